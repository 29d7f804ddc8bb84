//! A client logs in to us: what comes after its startup packet.

use bytes::BytesMut;

use super::scram::MECHANISM;
use super::scram::key::{ScramKeys, ServerKey};
use super::scram::message::{MAX_FROM_CLIENT, Nonce, ScramError};
use super::scram::server::{AwaitProof, ServerExchange};
use super::{Credential, Users};
use crate::wire::build::{Report, authentication_ok, message};
use crate::wire::frame::{cstr, int32};
use crate::wire::{client, server, sqlstate};

/// Bytes of the longest body of a message during login: a SASL message, and in the first one a
/// mechanism's name and a length.
pub const MAX_BODY: usize = MAX_FROM_CLIENT + 64;

/// How clients prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Everyone is who they say.
    Trust,
    /// SCRAM-SHA-256 against [`Users`].
    Scram,
    /// md5.
    Md5,
    /// clear.
    Password,
}

/// How a login begins.
#[derive(Debug)]
pub enum Start {
    /// Send the message, then feed the answers to the login.
    Ask {
        /// What waits for the answers.
        login: Box<ClientLogin>,
        /// A complete AuthenticationSASL.
        message: Vec<u8>,
    },
    /// Nothing to prove.
    Done(LoggedIn),
}

/// What to do after a message.
#[derive(Debug)]
pub enum ClientStep {
    /// Send this complete message, and go on.
    Send(Vec<u8>),
    /// The client has logged in.
    Done(LoggedIn),
}

/// The end of a login that succeeded.
#[derive(Debug)]
pub struct LoggedIn {
    /// Complete messages to send: AuthenticationSASLFinal, if there was SCRAM, and AuthenticationOk.
    pub messages: Vec<u8>,
    /// What to log in to servers with as this user: the clear password if we have it, else the
    /// keys that the login showed, else nothing (good only for servers that trust us).
    pub credential: Option<Credential>,
}

/// Why a login fails. Its texts are PostgreSQL's own, and hold no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The startup packet names no user.
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUser,
    /// Wrong password, or no such user: the client cannot tell which.
    #[error("password authentication failed for user \"{user}\"")]
    Password {
        /// The name from the startup packet.
        user: String,
    },
    /// A message of another type than the login needs.
    #[error("expected SASL response, got message type {tag}")]
    UnexpectedMessage {
        /// Its type byte.
        tag: u8,
    },
    /// The client picked a mechanism that was not offered.
    #[error("client selected an invalid SASL authentication mechanism")]
    Mechanism,
    /// The message's body is not of the protocol's form, or is longer than [`MAX_BODY`].
    #[error("invalid message format")]
    Format,
    /// SCRAM's own errors, other than a wrong proof.
    #[error(transparent)]
    Scram(ScramError),
    /// The login is over, well or not; nothing more is taken.
    #[error("the login is over")]
    Over,
}

impl AuthError {
    /// The SQLSTATE that PostgreSQL would send.
    #[must_use]
    pub const fn sqlstate(&self) -> &'static str {
        match self {
            Self::NoUser => sqlstate::INVALID_AUTHORIZATION,
            Self::Password { .. } => sqlstate::INVALID_PASSWORD,
            Self::Scram(ScramError::Unsupported(_)) => sqlstate::FEATURE_NOT_SUPPORTED,
            Self::UnexpectedMessage { .. } | Self::Mechanism | Self::Format | Self::Scram(_) | Self::Over => {
                sqlstate::PROTOCOL_VIOLATION
            }
        }
    }

    /// The FATAL ErrorResponse to end the connection with.
    #[must_use]
    pub fn report(&self) -> Report {
        Report::fatal(self.sqlstate(), self.to_string())
    }
}

/// A client's login by SCRAM.
#[derive(Debug)]
pub struct ClientLogin {
    user: String,
    /// For the credential, if the password is not known in clear.
    server_key: Option<ServerKey>,
    password: Option<Credential>,
    state: State,
}

/// What the login waits for.
#[derive(Debug)]
enum State {
    /// SASLInitialResponse.
    Mechanism(ServerExchange),
    /// SASLResponse with SCRAM's first message, which SASLInitialResponse did not bring.
    ClientFirst(ServerExchange),
    /// SASLResponse with the proof.
    Proof(AwaitProof),
    /// Nothing more: done or failed.
    Over,
}

impl ClientLogin {
    /// Begins the login of `user`, the name in the startup packet. An unknown user is asked like
    /// any other.
    ///
    /// # Errors
    /// The name is empty.
    pub fn start(method: Method, user: &str, users: &Users, nonce: Nonce) -> Result<Start, AuthError> {
        if user.is_empty() {
            return Err(AuthError::NoUser);
        }
        let known = users.get(user);
        let password = known.and_then(|known| known.password());
        match method {
            Method::Trust => {
                let mut out = BytesMut::new();
                authentication_ok(&mut out);
                Ok(Start::Done(LoggedIn { messages: out.to_vec(), credential: password }))
            }
            Method::Md5 | Method::Password | Method::Scram => Ok(Start::Ask {
                message: sasl(10, format!("{MECHANISM}\0\0").as_bytes()).to_vec(),
                login: Box::new(Self {
                    user: user.to_owned(),
                    server_key: known.map(|known| known.verifier().server_key.clone()),
                    password,
                    state: State::Mechanism(users.exchange(user, nonce)),
                }),
            }),
        }
    }

    /// Takes the client's next message. After an error, or when done, takes nothing more.
    ///
    /// # Errors
    /// The login fails; send [`AuthError::report`] and close.
    pub fn on_message(&mut self, tag: u8, body: &[u8]) -> Result<ClientStep, AuthError> {
        // PostgreSQL looks at the type before anything else (`CheckSASLAuth`).
        let state = std::mem::replace(&mut self.state, State::Over);
        if matches!(state, State::Over) {
            return Err(AuthError::Over);
        }
        if tag != client::tag::PASSWORD {
            return Err(AuthError::UnexpectedMessage { tag });
        }
        if body.len() > MAX_BODY {
            return Err(AuthError::Format);
        }
        match state {
            State::Mechanism(exchange) => match initial_response(body)? {
                Some(first) => self.client_first(exchange, first),
                None => {
                    self.state = State::ClientFirst(exchange);
                    Ok(ClientStep::Send(sasl(11, b"").to_vec()))
                }
            },
            State::ClientFirst(exchange) => self.client_first(exchange, body),
            State::Proof(exchange) => self.proof(exchange, body),
            State::Over => Err(AuthError::Over),
        }
    }

    fn client_first(&mut self, exchange: ServerExchange, message: &[u8]) -> Result<ClientStep, AuthError> {
        let (server_first, next) = exchange.client_first(message).map_err(AuthError::Scram)?;
        self.state = State::Proof(next);
        Ok(ClientStep::Send(sasl(11, &server_first).to_vec()))
    }

    fn proof(&mut self, exchange: AwaitProof, message: &[u8]) -> Result<ClientStep, AuthError> {
        let (server_final, client_key) = exchange.client_final(message).map_err(|error| match error {
            ScramError::Proof => AuthError::Password { user: self.user.clone() },
            other => AuthError::Scram(other),
        })?;
        let keys = self
            .server_key
            .take()
            .map(|server_key| Credential::ScramKeys(ScramKeys { client_key, server_key }));
        let mut messages = sasl(12, &server_final);
        authentication_ok(&mut messages);
        Ok(ClientStep::Done(LoggedIn {
            messages: messages.to_vec(),
            credential: self.password.take().or(keys),
        }))
    }
}

/// SASLInitialResponse: the data for the mechanism, if there are any.
fn initial_response(body: &[u8]) -> Result<Option<&[u8]>, AuthError> {
    const NO_DATA: u32 = u32::MAX;
    let (mechanism, rest) = cstr(body).ok_or(AuthError::Format)?;
    if mechanism != MECHANISM.as_bytes() {
        return Err(AuthError::Mechanism);
    }
    match int32(rest) {
        Some((NO_DATA, [])) => Ok(None),
        Some((len, data)) if usize::try_from(len) == Ok(data.len()) => Ok(Some(data)),
        _ => Err(AuthError::Format),
    }
}

/// An Authentication message of a kind that carries SASL data.
fn sasl(kind: u32, data: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    message(&mut out, server::tag::AUTHENTICATION, |body| {
        body.extend_from_slice(&kind.to_be_bytes());
        body.extend_from_slice(data);
    });
    out
}
