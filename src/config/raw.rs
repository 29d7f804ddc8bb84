//! The configuration file exactly as written.

use serde::Deserialize;

/// `tidegate.toml`. Everything may be left out.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Raw {
    /// Where clients connect.
    pub listen: Option<String>,
    /// `listen_replica`.
    pub listen_replica: Option<String>,
    /// Where metrics and health are served.
    pub http: Option<String>,
    /// From where these may be asked for.
    pub http_from: Option<Vec<String>>,
    /// Node URLs.
    pub nodes: Option<Vec<String>>,
    /// Worker threads.
    pub workers: Option<usize>,
    /// `gather`, `even` or `roam`.
    pub client_placement: Option<String>,
    /// Whether they may use io_uring.
    pub io_uring: Option<bool>,
    /// How long SIGTERM waits.
    pub drain_timeout: Option<String>,
    /// `[auth]`
    pub auth: Auth,
    /// `[tls]`
    pub tls: Tls,
    /// `[freshness]`
    pub freshness: Freshness,
    /// `[pool]`
    pub pool: Pool,
    /// `[routing]`
    pub routing: Routing,
    /// `[log]`
    pub log: Log,
}

/// `[auth]`
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// `trust` or `scram`.
    pub method: Option<String>,
    /// Lines as in pg_hba.conf.
    pub rules: Option<Vec<String>>,
    /// Lines as in pg_ident.conf.
    pub maps: Option<Vec<String>>,
    /// What asks the database for a role's stored password.
    pub query: Option<String>,
    /// How long that is believed.
    pub cache: Option<String>,
    /// Clients that log in at once.
    pub max_logins: Option<usize>,
    /// `[[auth.users]]`
    pub users: Vec<User>,
}

/// `[[auth.users]]`
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct User {
    /// The role.
    pub name: Option<String>,
    /// Its clear password.
    pub password: Option<String>,
    /// Or its verifier, `rolpassword` of `pg_authid`.
    pub verifier: Option<String>,
}

/// `[tls]`
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// `off`, `allow` or `require`.
    pub mode: Option<String>,
    /// The certificate.
    pub cert: Option<String>,
    /// Its key.
    pub key: Option<String>,
    /// Who vouches for clients.
    pub client_ca: Option<String>,
    /// `[[tls.more]]`
    pub more: Vec<KeyPair>,
}

/// `[[tls.more]]`
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyPair {
    /// The certificate.
    pub cert: Option<String>,
    /// Its key.
    pub key: Option<String>,
}

/// `[freshness]`
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Freshness {
    /// Default level.
    pub consistency: Option<String>,
    /// How long a read waits for a replica.
    pub replica_wait: Option<String>,
    /// The oldest data that is read.
    pub max_staleness: Option<String>,
    /// Between polls of a node at rest.
    pub poll_interval: Option<String>,
    /// Between polls of a busy node.
    pub poll_interval_busy: Option<String>,
    /// The longest poll.
    pub poll_timeout: Option<String>,
    /// Fallback reads on the primary.
    pub fallback_per_second: Option<u32>,
    /// `wait` or `error`.
    pub over_budget: Option<String>,
}

/// `[pool]`
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pool {
    /// Server connections per node.
    pub size: Option<usize>,
    /// Clients.
    pub max_clients: Option<usize>,
    /// How long a client waits.
    pub timeout: Option<String>,
    /// How long a server connection may idle.
    pub server_idle_timeout: Option<String>,
    /// How long it may live.
    pub server_lifetime: Option<String>,
    /// How long connecting may take.
    pub connect_timeout: Option<String>,
    /// How long a client's login may take.
    pub login_timeout: Option<String>,
    /// Prepared statements per server connection.
    pub prepared_statements: Option<usize>,
}

/// `[routing]`
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Routing {
    /// Functions that replicas may run.
    pub safe_functions: Option<Vec<String>>,
    /// Functions for the primary.
    pub primary_functions: Option<Vec<String>>,
    /// Relations for the primary.
    pub primary_relations: Option<Vec<String>>,
}

/// `[log]`
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `text` or `json`.
    pub format: Option<String>,
}
