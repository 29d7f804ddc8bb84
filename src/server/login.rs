//! Connects to a node and logs in: for clients, and for the monitor.

use std::io;

use bytes::{Buf, BytesMut};
use rand::Rng;

use super::dial::DialError;
use crate::auth::{Channel, Credential, EndPoint, LoginError, Nonce, ServerLogin, ServerReady, Step};
use crate::net::unblock::unblock;
use crate::net::{Connector, Stream, Way, invalid_data};
use crate::wire::Frame;
use crate::wire::build;

/// The longest message that is taken during a login.
const MAX_LOGIN_MESSAGE: usize = 64 * 1024;

/// Whom to log in as.
#[derive(Clone)]
pub struct Account<'a> {
    /// The role.
    pub user: &'a str,
    /// The database.
    pub database: &'a str,
    /// What else is said at startup.
    pub parameters: &'a [(String, String)],
    /// What proves that we may.
    pub credential: Option<Credential>,
}

/// A login that went well.
#[derive(Debug)]
pub struct LoggedIn {
    /// The connection.
    pub stream: Stream,
    /// What the server told.
    pub ready: ServerReady,
    /// What has come behind that.
    pub rest: BytesMut,
}

/// Connects and logs in, by one way after the other, as long as the node refuses the login.
///
/// # Errors
/// See [`DialError`]; never [`DialError::Slow`].
pub async fn login(connector: &Connector, account: &Account<'_>) -> Result<LoggedIn, DialError> {
    let mut refused = None;
    for way in connector.ways() {
        match login_by(*way, connector, account).await {
            Err(error @ DialError::Login(LoginError::Refused(_))) => refused = refused.or(Some(error)),
            Err(error) => return Err(refused.unwrap_or(error)),
            logged_in => return logged_in,
        }
    }
    Err(refused.unwrap_or_else(|| io::Error::other("there is no way to the node").into()))
}

async fn login_by(way: Way, connector: &Connector, account: &Account<'_>) -> Result<LoggedIn, DialError> {
    let mut stream = connector.connect(way).await?;
    let mut buffer = BytesMut::with_capacity(1024);
    let mut parameters = vec![("user", account.user), ("database", account.database)];
    parameters.extend(account.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    build::startup(&mut buffer, &parameters);
    stream.write_all(&buffer).await?;
    buffer.clear();
    let mut random = [0; Nonce::RAW_LEN];
    rand::rng().fill_bytes(&mut random);
    let channel = match stream.tls() {
        Some(tls) => Channel::Tls(tls.end_point().as_deref().and_then(EndPoint::new)),
        None => Channel::Plain,
    };
    let mut login = ServerLogin::new(account.user, account.credential.clone(), Nonce::new(random), channel);
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
                let hashed = unblock(move || job.run()).await?;
                step = login.on_hashed(hashed)?;
            }
            match step {
                // One password, one hash.
                Step::Continue | Step::Hash(_) => {}
                Step::Send(message) => stream.write_all(&message).await?,
                Step::Ready(ready) => return Ok(LoggedIn { stream, ready, rest: buffer }),
            }
        }
        buffer.reserve(1024);
        if stream.read(&mut buffer).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}
