//! Validated settings: the only form of the configuration that the rest of the house sees.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::rules::address::Addresses;
use crate::auth::{IdentMaps, Rules};

/// Which workers have which clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// Clients are on as few workers as have time for them, and move when that is otherwise.
    #[default]
    Gather,
    /// A new client goes to the worker that has the fewest, and stays there.
    Even,
    /// A client goes to the next worker whenever it can: for tests.
    Roam,
}

/// How much a read must show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Consistency {
    /// Any replica that is up.
    Eventual,
    /// Everything that the session has written.
    ReadYourWrites,
    /// Everything that the session has written or already read.
    #[default]
    Session,
}

/// What happens to a read for which no replica is fresh enough when the primary's budget is spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OverBudget {
    /// Wait for a replica, up to the pool's timeout.
    #[default]
    Wait,
    /// Refuse with SQLSTATE 53000 family.
    Error,
}

/// Whether and how a connection to a node is encrypted: libpq's `sslmode` (manual, "SSL Mode Descriptions").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Only if the node takes no login without.
    Allow,
    /// If the node has it.
    #[default]
    Prefer,
    /// Always, with whoever answers; with a root certificate, as `VerifyCa`.
    Require,
    /// Always, with who has a certificate from the root.
    VerifyCa,
    /// Always, with who has a certificate from the root for the host's name.
    VerifyFull,
}

/// Which certificates are trusted to vouch for a node's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Roots {
    /// None.
    #[default]
    None,
    /// Those of a PEM file.
    File(PathBuf),
    /// Those of the operating system.
    System,
}

impl Roots {
    /// Where they stand, for messages.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        match self {
            Self::None => "sslrootcert".into(),
            Self::File(file) => file.clone(),
            Self::System => "the system's certificates".into(),
        }
    }
}

/// A certificate (chain) and its private key, in PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPair {
    /// The certificate, and those between it and the root.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// TLS to a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeTls {
    /// `sslmode`.
    pub mode: SslMode,
    /// `sslrootcert`.
    pub roots: Roots,
    /// `sslcert` and `sslkey`: what we show the node.
    pub own: Option<KeyPair>,
    /// `sslnegotiation=direct`: without asking first (since PostgreSQL 17).
    pub direct: bool,
}

/// TLS to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// Clients without it are refused.
    pub required: bool,
    /// What clients are shown: the first that is for the host they ask for, or else the first; at least one.
    pub certificates: Vec<KeyPair>,
    /// Who vouches for the certificates of clients.
    pub client_ca: Option<PathBuf>,
}

/// One PostgreSQL instance. Its role is found out, never told.
#[derive(Clone, PartialEq, Eq)]
pub struct NodeSettings {
    /// `host:port`, the label everywhere; holds no secret.
    pub name: Arc<str>,
    /// Host name, address, or the directory of a Unix socket (starts with `/`).
    pub host: String,
    /// TCP port, or the number in the Unix socket's name.
    pub port: u16,
    /// Whom the monitor logs in as.
    pub user: String,
    /// The monitor's password, if the URL had one. Never logged.
    pub password: Option<String>,
    /// The monitor's database.
    pub database: String,
    /// How connections to it are encrypted.
    pub tls: NodeTls,
}

/// Who may come in, and how that is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthSettings {
    /// Who has to prove what; the first that fits counts.
    pub rules: Rules,
    /// Which certificate may come in as which role.
    pub maps: IdentMaps,
    /// Roles whose secrets are given here rather than asked for in the database.
    pub users: Vec<UserSettings>,
    /// What asks the database for a role's stored password; `None` for what PostgreSQL itself has.
    pub query: Option<String>,
    /// How long the answer is believed. Default 10 s.
    pub cache: Duration,
    /// The most clients that log in at once; ten times as many may wait for that. Default 1000.
    pub max_logins: usize,
}

/// A user of the configuration file.
#[derive(Clone, PartialEq, Eq)]
pub struct UserSettings {
    /// The role's name.
    pub name: String,
    /// A clear password, or a `SCRAM-SHA-256$...` verifier. Never logged.
    pub secret: String,
}

/// How lines of log are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where clients connect that only ever read from replicas.
    pub listen_replica: Option<SocketAddr>,
    /// Where metrics and health are served.
    pub http: SocketAddr,
    /// The nodes; at least one.
    pub nodes: Vec<NodeSettings>,
    /// The networks from which HTTP is answered. Default: this machine.
    pub http_from: Vec<Addresses>,
    /// Who may come in.
    pub auth: AuthSettings,
    /// TLS to clients; `None` for none.
    pub tls: Option<ClientTls>,
    /// Log format.
    pub log_format: LogFormat,
    /// Worker threads; at least 1. Default: as many as there are processors, up to 64.
    pub workers: usize,
    /// Which workers have which clients. Default: gathered.
    pub client_placement: Placement,
    /// Whether workers send by io_uring, where there is one. Default true.
    pub io_uring: bool,
    /// Default level of new sessions.
    pub consistency: Consistency,
    /// How long a read waits for a replica before it goes to the primary. Default 10 ms; 0 never waits.
    pub replica_wait: Duration,
    /// Replicas whose data may be older than this are not read from; `None` for no bound.
    pub max_staleness: Option<Duration>,
    /// Time between polls of a node at rest. Default 50 ms.
    pub poll_interval: Duration,
    /// Time between polls of a node while somebody waits for them; the shortest that units make it, of which 200 pay for
    /// one; an eighth of the longest for a primary to which any flow. Of the replicas that somebody waits for any of, one
    /// is polled in that time. Default 2 ms.
    pub poll_interval_busy: Duration,
    /// A poll without answer for this long means that the node is down. Default 5 s.
    pub poll_timeout: Duration,
    /// Server connections per node, over all workers. Default 50.
    pub pool_size: usize,
    /// Clients, over all workers. Default 10000.
    pub max_clients: usize,
    /// How long a client waits for a server connection. Default 10 s.
    pub pool_timeout: Duration,
    /// Idle server connections are closed after this long. Default 10 min.
    pub server_idle_timeout: Duration,
    /// Server connections are closed at the end of a lease when older than this. Default 1 h.
    pub server_lifetime: Duration,
    /// How long a connection attempt to a node may take. Default 5 s.
    pub connect_timeout: Duration,
    /// How long a client may take to log in. Default 15 s.
    pub login_timeout: Duration,
    /// Prepared statements kept per server connection. Default 500.
    pub prepared_statements: usize,
    /// Fallback reads (no replica fresh enough) per second on the primary; `None` for no limit. Default none.
    pub fallback_per_second: Option<u32>,
    /// What happens to a read over that budget.
    pub over_budget: OverBudget,
    /// How long SIGTERM waits for running units. Default 30 s.
    pub drain_timeout: Duration,
    /// Function names that are safe on replicas whatever the catalog says (lower case).
    pub safe_functions: Vec<String>,
    /// Function names that belong to the primary whatever the catalog says (lower case).
    pub primary_functions: Vec<String>,
    /// Relation names that belong to the primary (lower case).
    pub primary_relations: Vec<String>,
}

impl fmt::Debug for NodeSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}/{}", self.user, self.name, self.database)
    }
}

impl fmt::Debug for UserSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)
    }
}
