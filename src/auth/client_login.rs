//! A client logs in to us: what comes after its startup packet.

use bytes::BytesMut;

use super::md5::Md5Hash;
use super::scram::binding::EndPoint;
use super::scram::hash::{HashJob, Hashed};
use super::scram::key::{ScramKeys, ServerKey, Verifier};
use super::scram::message::{MAX_FROM_CLIENT, Nonce, ScramError};
use super::scram::server::{AwaitClientFirst, AwaitProof, MockSecret, ServerExchange};
use super::{AuthError, Credential, Stored, User};
use crate::wire::build::{authentication_ok, message};
use crate::wire::frame::{cstr, int32};
use crate::wire::{client, server};

/// Bytes of the longest body of a message during login, other than a clear password: a SASL message,
/// and in the first one a mechanism's name and a length.
pub const MAX_BODY: usize = MAX_FROM_CLIENT + 64;

/// Bytes of the longest body with a clear password (PostgreSQL: `PG_MAX_AUTH_TOKEN_LENGTH`).
pub const MAX_PASSWORD: usize = 65_535;

/// How clients prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Everyone is who they say.
    Trust,
    /// SCRAM-SHA-256; fails for users of whom something else is stored.
    Scram,
    /// What is stored of the user decides: an md5 hash leads to md5, all else to SCRAM.
    Md5,
    /// The clear password; for TLS only.
    Password,
}

/// Who wants to log in.
#[derive(Clone, Debug)]
pub struct Claimant<'a> {
    /// The name in the startup packet.
    pub name: &'a str,
    /// What is known of that user; `User::default()` for one that does not exist, or may not use its
    /// password any more. It is asked like any other.
    pub user: &'a User,
    /// Makes the salts of those.
    pub mock: &'a MockSecret,
    /// The hash of the certificate that we have shown to this client; `None` without TLS.
    pub end_point: Option<EndPoint>,
}

/// Fresh random bytes for one login.
#[derive(Clone, Debug)]
pub struct Random {
    /// For SCRAM.
    pub nonce: Nonce,
    /// For md5.
    pub md5_salt: [u8; 4],
}

/// How a login begins.
#[derive(Debug)]
pub enum Start {
    /// Send the message, then feed the answers to the login.
    Ask {
        /// What waits for the answers.
        login: Box<ClientLogin>,
        /// A complete Authentication message.
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
    /// Run this where it makes nobody wait, and give what comes of it to [`ClientLogin::on_hashed`]. No
    /// message is taken before.
    Hash(HashJob),
    /// The client has logged in.
    Done(LoggedIn),
}

/// The end of a login that succeeded.
#[derive(Debug)]
pub struct LoggedIn {
    /// Complete messages to send: AuthenticationSASLFinal, if there was SCRAM, and AuthenticationOk.
    pub messages: Vec<u8>,
    /// What to log in to servers with as this user: the clear password if the configuration has it, else
    /// the keys or the hash that the login showed, else nothing (good only for servers that trust us).
    pub credential: Option<Credential>,
}

/// A client's login.
#[derive(Debug)]
pub struct ClientLogin {
    name: String,
    /// The configured password, which is worth more than what the login shows.
    password: Option<Credential>,
    state: State,
}

/// What the login waits for.
#[derive(Debug)]
enum State {
    /// SASLInitialResponse.
    Mechanism(ServerExchange, Option<ServerKey>),
    /// SASLResponse with SCRAM's first message, which SASLInitialResponse did not bring.
    ClientFirst(AwaitClientFirst, Option<ServerKey>),
    /// SASLResponse with the proof. The server's key is for the credential.
    Proof(AwaitProof, Option<ServerKey>),
    /// PasswordMessage with the answer to this salt.
    Md5(Md5Hash, [u8; 4]),
    /// PasswordMessage in clear. The verifier is for those who have none.
    Clear(Stored, Verifier),
    /// The hashed password.
    Hashed(Check),
    /// Nothing more: done or failed.
    Over,
}

/// What a clear password is checked by when it has been hashed.
#[derive(Debug)]
enum Check {
    Verifier(Verifier),
    /// Nothing: it was an md5 hash, and the right one, or the password is wrong. The work was done all
    /// the same, since time must not tell whether there is such a user.
    Settled(Option<Md5Hash>),
}

impl ClientLogin {
    /// Begins a login; `random` is asked for if the method needs it. An unknown user is asked like any other (PostgreSQL: `CheckPWChallengeAuth`).
    ///
    /// # Errors
    /// The name is empty.
    pub fn start(
        method: Method,
        claimant: Claimant<'_>,
        random: impl FnOnce() -> Random,
    ) -> Result<Start, AuthError> {
        let Claimant { name, user, mock, end_point } = claimant;
        if name.is_empty() {
            return Err(AuthError::NoUser);
        }
        let password = user.password();
        let (state, message) = match (method, user.stored()) {
            (Method::Trust, _) => return Ok(Start::Done(done(BytesMut::with_capacity(16), password))),
            (Method::Scram | Method::Md5, Stored::Scram(verifier)) => {
                let exchange = ServerExchange::new(verifier, random().nonce, end_point);
                let message = offer(&exchange);
                (State::Mechanism(exchange, Some(verifier.server_key.clone())), message)
            }
            (Method::Md5, Stored::Md5(hash)) => {
                let salt = random().md5_salt;
                (State::Md5(hash.clone(), salt), authentication(5, &salt))
            }
            (Method::Scram | Method::Md5, _) => {
                let exchange = ServerExchange::mock(mock, name, random().nonce, end_point);
                let message = offer(&exchange);
                (State::Mechanism(exchange, None), message)
            }
            (Method::Password, stored) => {
                (State::Clear(stored.clone(), mock.verifier(name)), authentication(3, b""))
            }
        };
        let login = Box::new(Self { name: name.to_owned(), password, state });
        Ok(Start::Ask { login, message: message.to_vec() })
    }

    /// Bytes that the body of the next message may have; more need not even be read.
    #[must_use]
    pub const fn max_body(&self) -> usize {
        match self.state {
            State::Clear(..) => MAX_PASSWORD,
            _ => MAX_BODY,
        }
    }

    /// Takes the client's next message. After an error, or when done, takes nothing more.
    ///
    /// # Errors
    /// The login fails; send [`AuthError::report`] and close.
    pub fn on_message(&mut self, tag: u8, body: &[u8]) -> Result<ClientStep, AuthError> {
        let limit = self.max_body();
        let state = std::mem::replace(&mut self.state, State::Over);
        // PostgreSQL looks at the type before anything else (`CheckSASLAuth`, `recv_password_packet`).
        let (expected, too_long) = match state {
            State::Over | State::Hashed(_) => return Err(AuthError::Over),
            State::Clear(..) | State::Md5(..) => ("password", AuthError::PasswordSize),
            State::Mechanism(..) | State::ClientFirst(..) | State::Proof(..) => ("SASL", AuthError::Format),
        };
        if tag != client::tag::PASSWORD {
            return Err(AuthError::UnexpectedMessage { expected, tag });
        }
        if body.len() > limit {
            return Err(too_long);
        }
        match state {
            State::Mechanism(exchange, key) => {
                let (mechanism, rest) = cstr(body).ok_or(AuthError::Format)?;
                let exchange = exchange.select(mechanism).ok_or(AuthError::Mechanism)?;
                match initial_data(rest)? {
                    Some(first) => self.client_first(exchange, key, first),
                    None => {
                        self.state = State::ClientFirst(exchange, key);
                        Ok(ClientStep::Send(authentication(11, b"").to_vec()))
                    }
                }
            }
            State::ClientFirst(exchange, key) => self.client_first(exchange, key, body),
            State::Proof(exchange, key) => self.proof(exchange, key, body),
            State::Md5(hash, salt) => {
                let right = hash.accepts(salt, password(body)?);
                self.finish(BytesMut::new(), right.then_some(Credential::Md5(hash)))
            }
            State::Clear(stored, mock) => self.clear(stored, mock, password(body)?),
            State::Hashed(_) | State::Over => Err(AuthError::Over),
        }
    }

    /// Takes what came of [`ClientStep::Hash`].
    ///
    /// # Errors
    /// The login fails; send [`AuthError::report`] and close.
    pub fn on_hashed(&mut self, hashed: Hashed) -> Result<ClientStep, AuthError> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Hashed(Check::Verifier(verifier)) => {
                let right = verifier.fits(&hashed.0);
                self.finish(BytesMut::new(), right.then_some(Credential::ScramKeys(hashed.0)))
            }
            State::Hashed(Check::Settled(hash)) => self.finish(BytesMut::new(), hash.map(Credential::Md5)),
            _ => Err(AuthError::Over),
        }
    }

    fn client_first(
        &mut self,
        exchange: AwaitClientFirst,
        key: Option<ServerKey>,
        message: &[u8],
    ) -> Result<ClientStep, AuthError> {
        let (server_first, next) = exchange.client_first(message).map_err(AuthError::Scram)?;
        self.state = State::Proof(next, key);
        Ok(ClientStep::Send(authentication(11, &server_first).to_vec()))
    }

    fn proof(
        &mut self,
        exchange: AwaitProof,
        key: Option<ServerKey>,
        message: &[u8],
    ) -> Result<ClientStep, AuthError> {
        match exchange.client_final(message) {
            Ok((server_final, client_key)) => {
                let keys = key.map(|server_key| ScramKeys { client_key, server_key });
                self.finish(authentication(12, &server_final), keys.map(Credential::ScramKeys))
            }
            Err(ScramError::Proof) => self.finish(BytesMut::new(), None),
            Err(other) => Err(AuthError::Scram(other)),
        }
    }

    fn clear(&mut self, stored: Stored, mock: Verifier, password: &[u8]) -> Result<ClientStep, AuthError> {
        let (verifier, check) = match stored {
            Stored::Scram(verifier) => (verifier.clone(), Check::Verifier(verifier)),
            Stored::Md5(hash) => {
                let right = Md5Hash::of(&self.name, password) == hash;
                (mock, Check::Settled(right.then_some(hash)))
            }
            Stored::Nothing => (mock, Check::Settled(None)),
        };
        self.state = State::Hashed(check);
        Ok(ClientStep::Hash(HashJob::new(password, &verifier.salt, verifier.iterations)))
    }

    /// Ends the login, well if it has shown something.
    fn finish(&mut self, before: BytesMut, shown: Option<Credential>) -> Result<ClientStep, AuthError> {
        let shown = shown.ok_or_else(|| AuthError::Password { user: self.name.clone() })?;
        Ok(ClientStep::Done(done(before, self.password.take().or(Some(shown)))))
    }
}

fn done(mut messages: BytesMut, credential: Option<Credential>) -> LoggedIn {
    authentication_ok(&mut messages);
    LoggedIn { messages: messages.into(), credential }
}

/// A PasswordMessage's text: all of it but the zero byte at its end (PostgreSQL: `recv_password_packet`).
fn password(body: &[u8]) -> Result<&[u8], AuthError> {
    match cstr(body) {
        Some((b"", [])) => Err(AuthError::EmptyPassword),
        Some((password, [])) => Ok(password),
        _ => Err(AuthError::PasswordSize),
    }
}

/// What follows the mechanism's name in SASLInitialResponse: data for the mechanism, if there are any.
fn initial_data(rest: &[u8]) -> Result<Option<&[u8]>, AuthError> {
    const NO_DATA: u32 = u32::MAX;
    match int32(rest) {
        Some((NO_DATA, [])) => Ok(None),
        Some((len, data)) if usize::try_from(len) == Ok(data.len()) => Ok(Some(data)),
        _ => Err(AuthError::Format),
    }
}

/// AuthenticationSASL.
fn offer(exchange: &ServerExchange) -> BytesMut {
    let names = exchange.mechanisms().iter().map(|name| format!("{name}\0"));
    authentication(10, format!("{}\0", names.collect::<String>()).as_bytes())
}

/// An Authentication message.
fn authentication(kind: u32, data: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    message(&mut out, server::tag::AUTHENTICATION, |body| {
        body.extend_from_slice(&kind.to_be_bytes());
        body.extend_from_slice(data);
    });
    out
}
