//! Makes server connections for clients.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;

use super::Parameters;
use super::connection::Connection;
use super::login::{Account, LoggedIn, login};
use crate::auth::{Credential, LoginError};
use crate::net::Connector;
use crate::net::timers::timeout;
use crate::session::{Replies, ServerStatements, SettingsMap};
use crate::topology::NodeId;
use crate::wire::server::Status;

/// Whom to log in as, and where.
#[derive(Clone)]
pub struct Target<'a> {
    /// The node.
    pub node: NodeId,
    /// How to reach it.
    pub connector: &'a Connector,
    /// The node's server epoch at this moment.
    pub epoch: u32,
    /// The role.
    pub user: &'a str,
    /// The database.
    pub database: &'a str,
    /// What else is said at startup.
    pub parameters: &'a [(String, String)],
    /// What proves that we may.
    pub credential: Option<Credential>,
    /// How long it may take.
    pub limit: Duration,
    /// The time since the process started.
    pub now: Duration,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The node cannot be reached, or broke off.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The node refused the login, or we the node.
    #[error("{0}")]
    Login(#[from] LoginError),
    /// The node did not answer in time.
    #[error("no answer within {0:?}")]
    Slow(Duration),
}

/// Connects and logs in.
///
/// # Errors
/// See [`DialError`].
pub async fn dial(target: Target<'_>) -> Result<Connection, DialError> {
    let Target { user, database, parameters, credential, limit, .. } = target;
    let account = Account { user, database, parameters, credential };
    let logged_in = timeout(limit, login(target.connector, &account)).await;
    let LoggedIn { stream, ready, rest } = logged_in.map_err(|_| DialError::Slow(limit))??;
    let (pid, key) = ready.key.map_or((0, Vec::new()), |k| (k.pid, k.secret));
    Ok(Connection {
        stream,
        node: target.node,
        epoch: target.epoch,
        born: target.now,
        idle_since: target.now,
        pid,
        key: key.into(),
        parameters: Parameters::new(ready.parameters),
        settings: Rc::new(SettingsMap::default()),
        statements: ServerStatements::default(),
        replies: Replies::default(),
        status: Status::Idle,
        input: BytesMut::new(),
        unsure: None,
        told: None,
        asked_at: Duration::ZERO,
        mute: false,
        tainted: !rest.is_empty(),
    })
}
