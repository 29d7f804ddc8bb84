//! Connects to a node and logs in.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use rand::Rng;
use tokio::time::timeout;

use super::connection::Connection;
use crate::auth::{Channel, Credential, EndPoint, LoginError, Nonce, ServerLogin, Step};
use crate::net::{Connector, Way, invalid_data};
use crate::session::{Replies, ServerStatements, SettingsMap};
use crate::topology::NodeId;
use crate::wire::Frame;
use crate::wire::build;
use crate::wire::server::Status;

/// The longest message that is taken during a login.
const MAX_LOGIN_MESSAGE: usize = 64 * 1024;

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
    let limit = target.limit;
    timeout(limit, connect(target)).await.map_err(|_| DialError::Slow(limit))?
}

/// By one way after the other, as long as the node refuses the login.
async fn connect(target: Target<'_>) -> Result<Connection, DialError> {
    let mut refused = None;
    for way in target.connector.ways() {
        match connect_by(*way, &target).await {
            Err(error @ DialError::Login(LoginError::Refused(_))) => refused = refused.or(Some(error)),
            Err(error) => return Err(refused.unwrap_or(error)),
            connected => return connected,
        }
    }
    Err(refused.unwrap_or_else(|| io::Error::other("there is no way to the node").into()))
}

async fn connect_by(way: Way, target: &Target<'_>) -> Result<Connection, DialError> {
    let mut stream = target.connector.connect(way).await?;
    let mut buffer = BytesMut::with_capacity(1024);
    let mut parameters = vec![("user", target.user), ("database", target.database)];
    parameters.extend(target.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    build::startup(&mut buffer, &parameters);
    stream.write_all(&buffer).await?;
    buffer.clear();
    let mut random = [0; Nonce::RAW_LEN];
    rand::rng().fill_bytes(&mut random);
    let channel = match stream.tls() {
        Some(tls) => Channel::Tls(tls.end_point().as_deref().and_then(EndPoint::new)),
        None => Channel::Plain,
    };
    let credential = target.credential.clone();
    let mut login = ServerLogin::new(target.user, credential, Nonce::new(random), channel);
    loop {
        while let Some(frame) = Frame::peek(&buffer).map_err(invalid_data)? {
            if frame.len > MAX_LOGIN_MESSAGE {
                return Err(invalid_data("a message too long for a login").into());
            }
            let Some(body) = frame.body(&buffer) else { break };
            let mut step = login.on_message(frame.tag, body)?;
            buffer.advance(frame.len);
            if let Step::Hash(job) = step {
                // A millisecond and more: others are not to wait for it.
                let hashed =
                    tokio::task::spawn_blocking(move || job.run()).await.map_err(io::Error::other)?;
                step = login.on_hashed(hashed)?;
            }
            match step {
                // One password, one hash.
                Step::Continue | Step::Hash(_) => {}
                Step::Send(message) => stream.write_all(&message).await?,
                Step::Ready(ready) => {
                    let (pid, key) = ready.key.map_or((0, Vec::new()), |k| (k.pid, k.secret));
                    return Ok(Connection {
                        stream,
                        node: target.node,
                        epoch: target.epoch,
                        born: target.now,
                        idle_since: target.now,
                        pid,
                        key,
                        parameters: ready.parameters,
                        settings: Rc::new(SettingsMap::default()),
                        statements: ServerStatements::default(),
                        replies: Replies::default(),
                        status: Status::Idle,
                        input: BytesMut::new(),
                        unsure: None,
                        tainted: !buffer.is_empty(),
                    });
                }
            }
        }
        buffer.reserve(1024);
        if stream.read(&mut buffer).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}
