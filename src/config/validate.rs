//! From the file as written to settings that can be relied on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::auth::auth;
use super::env::expand;
use super::error::ConfigError;
use super::raw::Raw;
use super::settings::{Consistency, LogFormat, NodeSettings, OverBudget, Placement, Settings};
use super::tls::client_tls;
use super::units::duration;
use super::url;
use crate::auth::rules::address::Addresses;

/// The most worker threads: process ids told to clients hold the worker's number.
pub const MAX_WORKERS: usize = 64;

/// The most nodes.
pub const MAX_NODES: usize = 64;

/// As many workers as there are processors. One that has no clients costs next to nothing, and has none until the others
/// have too little time for theirs (`client/gather`).
fn default_workers(cpus: usize) -> usize {
    cpus.clamp(1, MAX_WORKERS)
}

/// Makes settings of a configuration. By `cpus`, the number of processors, goes the default number of workers; `lookup` finds the variables
/// that `${NAME}` stands for.
///
/// # Errors
/// The first value that cannot be used.
pub fn settings(
    raw: &Raw,
    cpus: usize,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Settings, ConfigError> {
    let time = |key: &str, value: &Option<String>, default: Duration| match value {
        Some(text) => duration(key, text),
        None => Ok(default),
    };
    let positive = |key: &str, value: &Option<String>, default: Duration| {
        let found = time(key, value, default)?;
        if found.is_zero() {
            return Err(ConfigError::value(key, "0", "it must be longer than nothing"));
        }
        Ok(found)
    };
    let ms = Duration::from_millis;
    let s = Duration::from_secs;
    let (freshness, pool) = (&raw.freshness, &raw.pool);
    Ok(Settings {
        listen: address("listen", raw.listen.as_deref(), 6432)?,
        listen_replica: match &raw.listen_replica {
            Some(text) => Some(address("listen_replica", Some(text), 6433)?),
            None => None,
        },
        http: address("http", raw.http.as_deref(), 9464)?,
        nodes: nodes(raw, lookup)?,
        http_from: http_from(raw.http_from.as_deref())?,
        auth: auth(raw, lookup)?,
        tls: client_tls(&raw.tls)?,
        log_format: choice(
            "log.format",
            raw.log.format.as_deref(),
            &[("text", LogFormat::Text), ("json", LogFormat::Json)],
        )?,
        workers: range("workers", raw.workers, default_workers(cpus), 1, MAX_WORKERS)?,
        client_placement: choice(
            "client_placement",
            raw.client_placement.as_deref(),
            &[("gather", Placement::Gather), ("even", Placement::Even), ("roam", Placement::Roam)],
        )?,
        io_uring: raw.io_uring.unwrap_or(true),
        consistency: choice(
            "freshness.consistency",
            freshness.consistency.as_deref(),
            &[
                ("session", Consistency::Session),
                ("read_your_writes", Consistency::ReadYourWrites),
                ("eventual", Consistency::Eventual),
            ],
        )?,
        replica_wait: time("freshness.replica_wait", &freshness.replica_wait, ms(10))?,
        max_staleness: freshness
            .max_staleness
            .as_ref()
            .map(|t| duration("freshness.max_staleness", t))
            .transpose()?,
        poll_interval: positive("freshness.poll_interval", &freshness.poll_interval, ms(50))?,
        poll_interval_busy: positive("freshness.poll_interval_busy", &freshness.poll_interval_busy, ms(2))?,
        poll_timeout: positive("freshness.poll_timeout", &freshness.poll_timeout, s(5))?,
        pool_size: range("pool.size", pool.size, 50, 1, 100_000)?,
        max_clients: range("pool.max_clients", pool.max_clients, 10_000, 1, 1_000_000)?,
        pool_timeout: positive("pool.timeout", &pool.timeout, s(10))?,
        server_idle_timeout: positive("pool.server_idle_timeout", &pool.server_idle_timeout, s(600))?,
        server_lifetime: positive("pool.server_lifetime", &pool.server_lifetime, s(3600))?,
        connect_timeout: positive("pool.connect_timeout", &pool.connect_timeout, s(5))?,
        login_timeout: positive("pool.login_timeout", &pool.login_timeout, s(15))?,
        prepared_statements: range("pool.prepared_statements", pool.prepared_statements, 500, 1, 100_000)?,
        fallback_per_second: freshness.fallback_per_second,
        over_budget: choice(
            "freshness.over_budget",
            freshness.over_budget.as_deref(),
            &[("wait", OverBudget::Wait), ("error", OverBudget::Error)],
        )?,
        drain_timeout: time("drain_timeout", &raw.drain_timeout, s(30))?,
        safe_functions: names(raw.routing.safe_functions.as_deref()),
        primary_functions: names(raw.routing.primary_functions.as_deref()),
        primary_relations: names(raw.routing.primary_relations.as_deref()),
    })
}

fn names(list: Option<&[String]>) -> Vec<String> {
    list.unwrap_or_default().iter().map(|n| n.to_ascii_lowercase()).collect()
}

/// One of a few words; the default where nothing is written.
fn choice<T: Copy + Default>(
    key: &str,
    value: Option<&str>,
    choices: &[(&str, T)],
) -> Result<T, ConfigError> {
    let Some(value) = value else { return Ok(T::default()) };
    match choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(value.trim())) {
        Some((_, found)) => Ok(*found),
        None => {
            let all: Vec<_> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
            Err(ConfigError::value(key, value, format!("write {}", all.join(" or "))))
        }
    }
}

fn range(
    key: &str,
    value: Option<usize>,
    default: usize,
    min: usize,
    max: usize,
) -> Result<usize, ConfigError> {
    match value {
        None => Ok(default),
        Some(n) if (min..=max).contains(&n) => Ok(n),
        Some(n) => Err(ConfigError::value(key, n.to_string(), format!("write a number from {min} to {max}"))),
    }
}

/// `IP:port`, `:port`, `*:port` or `localhost:port`.
fn address(key: &str, value: Option<&str>, default: u16) -> Result<SocketAddr, ConfigError> {
    let Some(text) = value else { return Ok((Ipv4Addr::LOCALHOST, default).into()) };
    let parsed = text.trim().parse().ok().or_else(|| {
        let (host, port) = text.trim().rsplit_once(':')?;
        let ip: IpAddr = match host {
            "" | "*" => Ipv4Addr::UNSPECIFIED.into(),
            "localhost" => Ipv4Addr::LOCALHOST.into(),
            _ => return None,
        };
        Some((ip, port.parse().ok()?).into())
    });
    parsed.ok_or_else(|| {
        // A URL in the wrong place may hold a password.
        let shown = if text.contains('@') { "..." } else { text };
        ConfigError::value(
            key,
            shown,
            format!("write an address and a port, such as 127.0.0.1:{default} or *:{default}"),
        )
    })
}

/// The networks from which HTTP is answered: those of this machine, unless others are named.
fn http_from(networks: Option<&[String]>) -> Result<Vec<Addresses>, ConfigError> {
    let read = |text: &str| -> Option<Addresses> {
        if text == "all" {
            return Some(Addresses::All);
        }
        let (address, bits) = text.split_once('/')?;
        Addresses::cidr(address.parse().ok()?, bits)
    };
    let local = ["127.0.0.0/8".to_owned(), "::1/128".to_owned()];
    let networks = networks.unwrap_or(&local).iter().map(|text| {
        read(text.trim()).ok_or_else(|| {
            ConfigError::value("http_from", text, r#"write networks such as "10.0.0.0/8", or "all""#)
        })
    });
    networks.collect()
}

fn nodes(raw: &Raw, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Vec<NodeSettings>, ConfigError> {
    let urls = raw.nodes.as_deref().unwrap_or_default();
    if urls.is_empty() {
        return Err(ConfigError::Missing {
            key: "nodes".into(),
            remedy: "name every PostgreSQL server, the primary and its standbys alike, with --node \
                     postgres://user:password@host:port/database (repeat it), or as nodes = [...] in the file"
                .into(),
        });
    }
    if urls.len() > MAX_NODES {
        return Err(ConfigError::value(
            "nodes",
            urls.len().to_string(),
            format!("at most {MAX_NODES} nodes can be named"),
        ));
    }
    let mut nodes: Vec<NodeSettings> = Vec::new();
    for text in urls {
        let node = url::node("nodes", &expand("nodes", text, lookup)?)?;
        if nodes.iter().any(|n| n.name == node.name) {
            return Err(ConfigError::value("nodes", node.name.to_string(), "this node is named twice"));
        }
        nodes.push(node);
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, ConfigError> {
        let raw: Raw = toml::from_str(text).unwrap();
        settings(&raw, 2, &|name| (name == "PW").then(|| "hunter2".to_owned()))
    }

    const NODE: &str = "nodes = ['postgres://h']\n";

    #[test]
    fn defaults_need_nothing_but_nodes() {
        let found = read(&format!("{NODE}[auth]\nmethod = 'trust'")).unwrap();
        assert_eq!(found.listen.to_string(), "127.0.0.1:6432");
        assert_eq!(found.http.to_string(), "127.0.0.1:9464");
        assert_eq!(found.consistency, Consistency::Session);
        assert_eq!(found.replica_wait, Duration::from_millis(10));
        assert_eq!(found.workers, 2);
        assert_eq!([0, 1, 2, 64, 96].map(default_workers), [1, 1, 2, 64, 64]);
    }

    #[test]
    fn http_answers_this_machine_alone_unless_others_are_named() {
        let held = |text: &str, address: &str| {
            let networks = read(&format!("{NODE}{text}")).unwrap().http_from;
            networks.iter().any(|network| network.hold(address.parse().unwrap()))
        };
        for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(held("", address), "{address}");
            assert!(!held("http_from = ['10.0.0.0/8']", address), "{address}");
        }
        for address in ["10.0.0.1", "128.0.0.1", "0.0.0.0", "::", "::2", "fe80::1", "::ffff:10.0.0.1"] {
            assert!(!held("", address), "{address}");
            assert!(held("http_from = ['all']", address), "{address}");
        }
        assert!(held("http_from = ['10.0.0.0/8']", "10.0.0.1"));
    }

    #[test]
    fn every_error_names_key_value_and_remedy() {
        let trust = "[auth]\nmethod = 'trust'\n";
        for (text, expected) in [
            (format!("{NODE}[auth]\nmethod = 'md5'"), r#"auth.method = "md5": write "scram""#),
            (
                format!("{NODE}[auth]\nrules = ['host all all all scram', 'host all all all peer']"),
                r#"auth.rules = "peer": line 2: "#,
            ),
            (
                format!("{NODE}[auth]\nrules = ['hostssl all all all cert map=m']"),
                r#"auth.rules = "m": there is no such map"#,
            ),
            (format!("{NODE}http_from = ['localhost']"), r#"http_from = "localhost": write networks"#),
            (trust.to_owned(), "nodes is missing: name every PostgreSQL server"),
            (format!("listen = 'x'\n{NODE}{trust}"), r#"listen = "x": write an address and a port"#),
            (format!("workers = 0\n{NODE}{trust}"), r#"workers = "0": write a number from 1 to 64"#),
            (
                format!("{NODE}{trust}[freshness]\nconsistency = 'strong'"),
                r#"freshness.consistency = "strong": write "session" or "#,
            ),
            (format!("{NODE}{trust}[pool]\ntimeout = '0'"), r#"pool.timeout = "0": it must be longer"#),
            (
                format!("nodes = ['postgres://h', 'postgres://h:5432']\n{trust}"),
                r#"nodes = "h:5432": this node is named twice"#,
            ),
            (format!("{NODE}[[auth.users]]\nname = 'bob'"), "auth.users[bob] is missing: give either"),
            (
                format!("{NODE}[[auth.users]]\nname = 'bob'\nverifier = 'hunter2'"),
                r#"auth.users[bob].verifier = "...": write rolpassword"#,
            ),
            (
                format!("{NODE}[[auth.users]]\nname = 'bob'\npassword = '${{NO}}'"),
                r#"auth.users[bob].password = "${NO}": the variable NO is not set"#,
            ),
        ] {
            let error = read(&text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}\nexpected: {expected}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn an_unknown_key_is_shown_with_its_line() {
        let error = toml::from_str::<Raw>("listen = 'x'\n[pool]\nsice = 5").err().unwrap().to_string();
        assert!(error.contains("sice") && error.contains("line 3"), "{error}");
    }

    #[test]
    fn secrets_come_from_variables_and_never_show() {
        let found = read(&format!("{NODE}[[auth.users]]\nname = 'bob'\npassword = '${{PW}}'")).unwrap();
        assert_eq!(found.auth.users.first().map(|u| u.secret.as_str()), Some("hunter2"));
        assert!(!format!("{found:?}").contains("hunter2"));
    }
}
