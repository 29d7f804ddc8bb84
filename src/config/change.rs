//! What differs between two settings, and what of it takes effect while running.

use super::settings::Settings;

/// A key that has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: &'static str,
    /// It takes effect at a restart only.
    pub needs_restart: bool,
}

/// Every key whose value differs.
#[must_use]
pub fn changes(old: &Settings, new: &Settings) -> Vec<Change> {
    // Naming every field makes a new one impossible to forget.
    let Settings {
        listen,
        listen_replica,
        http,
        nodes,
        http_from,
        auth,
        tls,
        log_format,
        workers,
        client_placement,
        io_uring,
        consistency,
        replica_wait,
        max_staleness,
        poll_interval,
        poll_interval_busy,
        poll_timeout,
        pool_size,
        max_clients,
        pool_timeout,
        server_idle_timeout,
        server_lifetime,
        connect_timeout,
        login_timeout,
        prepared_statements,
        fallback_per_second,
        over_budget,
        drain_timeout,
        safe_functions,
        primary_functions,
        primary_relations,
    } = new;
    let all = [
        ("listen", *listen != old.listen, true),
        ("listen_replica", *listen_replica != old.listen_replica, true),
        ("http", *http != old.http, true),
        ("nodes", *nodes != old.nodes, true),
        ("workers", *workers != old.workers, true),
        ("client_placement", *client_placement != old.client_placement, false),
        ("io_uring", *io_uring != old.io_uring, true),
        ("log.format", *log_format != old.log_format, true),
        ("freshness.fallback_per_second", *fallback_per_second != old.fallback_per_second, true),
        ("http_from", *http_from != old.http_from, false),
        ("auth.rules", auth.rules != old.auth.rules, false),
        ("auth.maps", auth.maps != old.auth.maps, false),
        ("auth.users", auth.users != old.auth.users, false),
        ("auth.query", auth.query != old.auth.query, true),
        ("auth.cache", auth.cache != old.auth.cache, true),
        ("auth.max_logins", auth.max_logins != old.auth.max_logins, false),
        ("tls", *tls != old.tls, false),
        ("freshness.consistency", *consistency != old.consistency, false),
        ("freshness.replica_wait", *replica_wait != old.replica_wait, false),
        ("freshness.max_staleness", *max_staleness != old.max_staleness, false),
        ("freshness.poll_interval", *poll_interval != old.poll_interval, false),
        ("freshness.poll_interval_busy", *poll_interval_busy != old.poll_interval_busy, false),
        ("freshness.poll_timeout", *poll_timeout != old.poll_timeout, false),
        ("freshness.over_budget", *over_budget != old.over_budget, false),
        ("pool.size", *pool_size != old.pool_size, false),
        ("pool.max_clients", *max_clients != old.max_clients, false),
        ("pool.timeout", *pool_timeout != old.pool_timeout, false),
        ("pool.server_idle_timeout", *server_idle_timeout != old.server_idle_timeout, false),
        ("pool.server_lifetime", *server_lifetime != old.server_lifetime, false),
        ("pool.connect_timeout", *connect_timeout != old.connect_timeout, false),
        ("pool.login_timeout", *login_timeout != old.login_timeout, false),
        ("pool.prepared_statements", *prepared_statements != old.prepared_statements, false),
        ("drain_timeout", *drain_timeout != old.drain_timeout, false),
        ("routing.safe_functions", *safe_functions != old.safe_functions, false),
        ("routing.primary_functions", *primary_functions != old.primary_functions, false),
        ("routing.primary_relations", *primary_relations != old.primary_relations, false),
    ];
    all.into_iter()
        .filter(|(_, changed, _)| *changed)
        .map(|(key, _, needs_restart)| Change { key, needs_restart })
        .collect()
}
