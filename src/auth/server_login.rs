//! We log in to a node: what comes after our startup packet, up to ReadyForQuery.

use std::fmt;

use bytes::BytesMut;

use super::Credential;
use super::md5::Md5Hash;
use super::scram::binding::{Binding, Channel};
use super::scram::client::{
    self as scram_client, Answer, AwaitHashed, AwaitServerFinal, AwaitServerFirst, Knowledge,
};
use super::scram::hash::{HashJob, Hashed};
use super::scram::message::{Nonce, ScramError};
use super::scram::{MECHANISM, MECHANISM_PLUS};
use crate::wire::build::message;
use crate::wire::client;
use crate::wire::frame::{cstr, int32};
use crate::wire::server::{Fields, Status, parameter_status, tag};
use crate::wire::startup::MAX_CANCEL_KEY;

/// Bytes of the longest body that a login takes, of any message.
pub const MAX_BODY: usize = 64 * 1024;

/// The most parameters that a login keeps; PostgreSQL 18 reports 15.
pub const MAX_PARAMETERS: usize = 256;

/// Bytes that the names and values of all parameters may have together.
pub const MAX_PARAMETER_BYTES: usize = 64 * 1024;

/// What to do after a message.
#[derive(Debug)]
pub enum Step {
    /// Nothing: wait for the next message.
    Continue,
    /// Send this complete message.
    Send(Vec<u8>),
    /// Run this where it makes nobody wait, and give what comes of it to [`ServerLogin::on_hashed`].
    Hash(HashJob),
    /// The server takes queries.
    Ready(ServerReady),
}

/// What a server told while we logged in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerReady {
    /// ParameterStatus in the order of arrival; each name once, with its last value.
    pub parameters: Vec<(String, String)>,
    /// What a cancel request needs; absent if the server does not take any.
    pub key: Option<BackendKey>,
    /// Set if the server does not speak the version, or know an option, of our startup packet.
    pub negotiated: Option<Negotiated>,
    /// The transaction status in ReadyForQuery.
    pub status: Status,
}

/// BackendKeyData.
#[derive(Clone, PartialEq, Eq)]
pub struct BackendKey {
    /// The server's process id.
    pub pid: u32,
    /// 4 to 256 bytes (4 before protocol 3.2).
    pub secret: Vec<u8>,
}

impl fmt::Debug for BackendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackendKey({}, ..)", self.pid)
    }
}

/// NegotiateProtocolVersion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// The newest version that the server speaks, as in a startup packet: major in the upper 16
    /// bits, minor in the lower.
    pub version: u32,
    /// Protocol options that it does not know.
    pub unknown: Vec<String>,
}

/// An ErrorResponse of the server.
#[derive(Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its SQLSTATE.
    pub sqlstate: String,
    /// Its message.
    pub message: String,
    /// The whole body, to pass on unchanged.
    pub body: Vec<u8>,
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Refusal({}, {:?})", self.sqlstate, self.message)
    }
}

/// Why a login to a server fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The server says no.
    #[error("the server refused the login: {} ({})", .0.message, .0.sqlstate)]
    Refused(Box<Refusal>),
    /// The server wants a secret, and we have none for the user.
    #[error("the server asks for a password ({0}), and there is none for this user")]
    NoCredential(&'static str),
    /// The server wants the clear password, or another hash of it than we have.
    #[error(
        "the server asks for {0} authentication, which needs the clear password; only another hash of it is known"
    )]
    NeedsPassword(&'static str),
    /// The server wants a method that we do not have.
    #[error("the server asks for {0} authentication, which is not supported")]
    UnsupportedMethod(&'static str),
    /// The server believes that the connection is encrypted, and it is not: somebody in between took the
    /// encryption away (libpq: `pg_SASL_init`).
    #[error("the server offered SCRAM-SHA-256-PLUS authentication over a connection that is not encrypted")]
    PlusWithoutTls,
    /// SCRAM fails.
    #[error(transparent)]
    Scram(#[from] ScramError),
    /// The server let us in without proving that it knows the password, in the middle of SCRAM.
    #[error("the server ended SCRAM authentication without proving itself")]
    Unproven,
    /// A message that does not belong here.
    #[error("unexpected message of type {0:#04x} during login")]
    UnexpectedMessage(u8),
    /// A message's body is not of the protocol's form; the text names the message.
    #[error("malformed {0} during login")]
    Malformed(&'static str),
    /// More than a login may bring: see [`MAX_BODY`], [`MAX_PARAMETERS`], [`MAX_PARAMETER_BYTES`].
    #[error("the server sent more than a login may bring ({0})")]
    TooMuch(&'static str),
    /// The password holds a zero byte, which the protocol cannot carry.
    #[error("the password holds a zero byte")]
    ZeroByte,
    /// The login is over, well or not; nothing more is taken.
    #[error("the login is over")]
    Over,
}

/// A login to a server.
#[derive(Debug)]
pub struct ServerLogin {
    user: String,
    told: ServerReady,
    state: State,
}

/// What the login waits for.
#[derive(Debug)]
enum State {
    /// The server's wish.
    Request { credential: Option<Credential>, nonce: Nonce, channel: Channel },
    /// SASLContinue.
    ServerFirst(AwaitServerFirst),
    /// The hashed password.
    Hashed(AwaitHashed),
    /// SASLFinal.
    ServerFinal(AwaitServerFinal),
    /// AuthenticationOk.
    Ok,
    /// ReadyForQuery.
    Ready,
    /// Nothing more: done or failed.
    Over,
}

impl ServerLogin {
    /// Begins a login; the startup packet with the same `user` has been sent over `channel`.
    #[must_use]
    pub fn new(
        user: impl Into<String>,
        credential: Option<Credential>,
        nonce: Nonce,
        channel: Channel,
    ) -> Self {
        let state = State::Request { credential, nonce, channel };
        Self { user: user.into(), told: ServerReady::default(), state }
    }

    /// Takes the server's next message. After an error, or when ready, takes nothing more.
    ///
    /// # Errors
    /// The login fails; close the connection.
    pub fn on_message(&mut self, tag: u8, body: &[u8]) -> Result<Step, LoginError> {
        let state = std::mem::replace(&mut self.state, State::Over);
        if matches!(state, State::Over) {
            return Err(LoginError::Over);
        }
        if body.len() > MAX_BODY {
            return Err(LoginError::TooMuch("message size"));
        }
        let (state, step) = match (tag, state) {
            (tag::ERROR_RESPONSE, _) => return Err(refusal(body)),
            (tag::NOTICE_RESPONSE, state) => (state, Step::Continue),
            (tag::AUTHENTICATION, state) => {
                let (kind, data) = int32(body).ok_or(LoginError::Malformed("Authentication message"))?;
                self.authentication(state, kind, data)?
            }
            (tag::NEGOTIATE_VERSION, state @ State::Request { .. }) => {
                let told = negotiated(body).ok_or(LoginError::Malformed("NegotiateProtocolVersion"))?;
                self.told.negotiated = Some(told);
                (state, Step::Continue)
            }
            (tag::PARAMETER_STATUS, State::Ready) => {
                self.parameter(body)?;
                (State::Ready, Step::Continue)
            }
            (tag::BACKEND_KEY_DATA, State::Ready) => {
                let key = backend_key(body).ok_or(LoginError::Malformed("BackendKeyData"))?;
                self.told.key = Some(key);
                (State::Ready, Step::Continue)
            }
            (tag::READY_FOR_QUERY, State::Ready) => {
                self.told.status = match body {
                    &[byte] => Status::from_byte(byte),
                    _ => None,
                }
                .ok_or(LoginError::Malformed("ReadyForQuery"))?;
                (State::Over, Step::Ready(std::mem::take(&mut self.told)))
            }
            (tag, _) => return Err(LoginError::UnexpectedMessage(tag)),
        };
        self.state = state;
        Ok(step)
    }

    /// Takes what came of [`Step::Hash`].
    ///
    /// # Errors
    /// No password is to be hashed.
    pub fn on_hashed(&mut self, hashed: Hashed) -> Result<Step, LoginError> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Hashed(exchange) => {
                let (answer, next) = exchange.hashed(&hashed);
                self.state = State::ServerFinal(next);
                Ok(Step::Send(password_message(&[&answer])))
            }
            _ => Err(LoginError::Over),
        }
    }

    /// An Authentication message: its kind (PostgreSQL: `AUTH_REQ_*`, libpq/protocol.h) and what follows it.
    fn authentication(&self, state: State, kind: u32, data: &[u8]) -> Result<(State, Step), LoginError> {
        match (state, kind) {
            (State::Request { .. } | State::Ok, 0) => {
                if !data.is_empty() {
                    return Err(LoginError::Malformed("AuthenticationOk"));
                }
                Ok((State::Ready, Step::Continue))
            }
            (State::ServerFirst(_) | State::Hashed(_) | State::ServerFinal(_), 0) => {
                Err(LoginError::Unproven)
            }
            (State::Request { credential, nonce, channel }, 10) => {
                let binding = channel.binding(data)?;
                sasl(credential, nonce, binding)
            }
            (State::Request { credential, .. }, kind) => self.request(credential, kind, data),
            (State::ServerFirst(exchange), 11) => Ok(match exchange.server_first(data)? {
                Answer::Final(answer, next) => {
                    (State::ServerFinal(next), Step::Send(password_message(&[&answer])))
                }
                Answer::Hash(job, next) => (State::Hashed(next), Step::Hash(job)),
            }),
            (State::ServerFinal(exchange), 12) => {
                exchange.server_final(data)?;
                Ok((State::Ok, Step::Continue))
            }
            _ => Err(LoginError::UnexpectedMessage(tag::AUTHENTICATION)),
        }
    }

    fn request(
        &self,
        credential: Option<Credential>,
        kind: u32,
        data: &[u8],
    ) -> Result<(State, Step), LoginError> {
        match kind {
            3 => {
                let password = match credential {
                    Some(Credential::Password(password)) => password,
                    Some(_) => return Err(LoginError::NeedsPassword("password")),
                    None => return Err(LoginError::NoCredential("password")),
                };
                if password.contains('\0') {
                    return Err(LoginError::ZeroByte);
                }
                let answer = password_message(&[password.as_bytes(), b"\0"]);
                Ok((State::Ok, Step::Send(answer)))
            }
            5 => {
                let salt = data.try_into().map_err(|_| LoginError::Malformed("AuthenticationMD5Password"))?;
                let hash = match credential {
                    Some(Credential::Password(password)) => Md5Hash::of(&self.user, password.as_bytes()),
                    Some(Credential::Md5(hash)) => hash,
                    Some(Credential::ScramKeys(_)) => return Err(LoginError::NeedsPassword("md5")),
                    None => return Err(LoginError::NoCredential("md5")),
                };
                let answer = password_message(&[hash.response(salt).as_bytes(), b"\0"]);
                Ok((State::Ok, Step::Send(answer)))
            }
            2 => Err(LoginError::UnsupportedMethod("Kerberos V5")),
            6 => Err(LoginError::UnsupportedMethod("SCM credential")),
            7 | 8 => Err(LoginError::UnsupportedMethod("GSSAPI")),
            9 => Err(LoginError::UnsupportedMethod("SSPI")),
            10..=12 => Err(LoginError::UnexpectedMessage(tag::AUTHENTICATION)),
            _ => Err(LoginError::UnsupportedMethod("an unknown kind of")),
        }
    }

    fn parameter(&mut self, body: &[u8]) -> Result<(), LoginError> {
        let (name, value) = parameter_status(body).ok_or(LoginError::Malformed("ParameterStatus"))?;
        let name = String::from_utf8_lossy(name).into_owned();
        let value = String::from_utf8_lossy(value).into_owned();
        let all = &mut self.told.parameters;
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some((_, place)) => *place = value,
            None => all.push((name, value)),
        }
        let bytes: usize = all.iter().map(|(n, v)| n.len() + v.len()).sum();
        if all.len() > MAX_PARAMETERS || bytes > MAX_PARAMETER_BYTES {
            return Err(LoginError::TooMuch("parameters"));
        }
        Ok(())
    }
}

/// Answers AuthenticationSASL.
fn sasl(credential: Option<Credential>, nonce: Nonce, binding: Binding) -> Result<(State, Step), LoginError> {
    let knowledge = match credential {
        Some(Credential::Password(password)) => Knowledge::Password(password),
        Some(Credential::ScramKeys(keys)) => Knowledge::Keys(keys),
        Some(Credential::Md5(_)) => return Err(LoginError::NeedsPassword(MECHANISM)),
        None => return Err(LoginError::NoCredential(MECHANISM)),
    };
    let mechanism = binding.mechanism();
    let (first, next) = scram_client::start(knowledge, nonce, binding);
    let len = u32::try_from(first.len()).unwrap_or(u32::MAX);
    let answer = password_message(&[mechanism.as_bytes(), b"\0", &len.to_be_bytes(), &first]);
    Ok((State::ServerFirst(next), Step::Send(answer)))
}

impl Channel {
    /// What we say of channel binding to a server that offers these mechanisms (libpq: `pg_SASL_init`
    /// and `build_client_first_message`, with channel_binding=prefer).
    fn binding(self, offered: &[u8]) -> Result<Binding, LoginError> {
        let offered = offers(offered).ok_or(LoginError::Malformed("AuthenticationSASL"))?;
        match self {
            Self::Plain if offered.plus => Err(LoginError::PlusWithoutTls),
            Self::Tls(Some(end_point)) if offered.plus => Ok(Binding::To(end_point)),
            _ if !offered.bare => Err(LoginError::UnsupportedMethod("SASL other than SCRAM-SHA-256")),
            Self::Tls(Some(_)) => Ok(Binding::Unused),
            Self::Tls(None) | Self::Plain => Ok(Binding::Unable),
        }
    }
}

/// Which of our mechanisms a server offers.
#[derive(Clone, Copy, Default)]
struct Offered {
    bare: bool,
    plus: bool,
}

/// Reads a list of mechanisms; `None` if it is not a list.
fn offers(mut list: &[u8]) -> Option<Offered> {
    let mut found = Offered::default();
    loop {
        let (name, rest) = cstr(list)?;
        if name.is_empty() {
            return rest.is_empty().then_some(found);
        }
        found.bare |= name == MECHANISM.as_bytes();
        found.plus |= name == MECHANISM_PLUS.as_bytes();
        list = rest;
    }
}

fn refusal(body: &[u8]) -> LoginError {
    let fields = Fields::new(body);
    LoginError::Refused(Box::new(Refusal {
        sqlstate: String::from_utf8_lossy(fields.sqlstate()).into_owned(),
        message: String::from_utf8_lossy(fields.message()).into_owned(),
        body: body.to_vec(),
    }))
}

fn negotiated(body: &[u8]) -> Option<Negotiated> {
    let (version, rest) = int32(body)?;
    let (count, mut rest) = int32(rest)?;
    let mut unknown = Vec::new();
    for _ in 0..count {
        let (name, behind) = cstr(rest)?;
        unknown.push(String::from_utf8_lossy(name).into_owned());
        rest = behind;
    }
    rest.is_empty().then_some(Negotiated { version, unknown })
}

fn backend_key(body: &[u8]) -> Option<BackendKey> {
    let (pid, secret) = int32(body)?;
    (4..=MAX_CANCEL_KEY).contains(&secret.len()).then(|| BackendKey { pid, secret: secret.to_vec() })
}

/// PasswordMessage, SASLInitialResponse or SASLResponse: all of one type.
fn password_message(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = BytesMut::new();
    message(&mut out, client::tag::PASSWORD, |body| {
        for part in parts {
            body.extend_from_slice(part);
        }
    });
    out.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::scram::binding::EndPoint;
    use crate::auth::scram::key::{Iterations, ScramKeys};

    /// A login of `m` with the nonce that the recorded exchange below was made with.
    fn login(credential: Option<Credential>) -> ServerLogin {
        over(Channel::Plain, credential)
    }

    fn over(channel: Channel, credential: Option<Credential>) -> ServerLogin {
        ServerLogin::new("m", credential, Nonce::new([0x17; Nonce::RAW_LEN]), channel)
    }

    fn password() -> Option<Credential> {
        Some(Credential::Password("secret".to_owned()))
    }

    fn keys() -> Option<Credential> {
        let iterations = Iterations::new(1).unwrap();
        Some(Credential::ScramKeys(ScramKeys::from_password("secret", b"salt", iterations)))
    }

    fn auth(kind: u32, data: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes(), data].concat()
    }

    fn sent(step: Step) -> Vec<u8> {
        match step {
            Step::Send(message) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_a_server_tells_is_collected() {
        let mut login = login(None);
        login.on_message(b'v', b"\0\x03\0\0\0\0\0\x01_pq_.x\0").unwrap();
        login.on_message(b'R', &auth(0, b"")).unwrap();
        for body in [&b"a\x001\0"[..], b"b\x002\0", b"a\x003\0"] {
            login.on_message(b'S', body).unwrap();
        }
        login.on_message(b'N', b"SNOTICE\0Mhello\0\0").unwrap();
        let key = [&7_u32.to_be_bytes()[..], &[1; 32]].concat();
        login.on_message(b'K', &key).unwrap();
        let Step::Ready(ready) = login.on_message(b'Z', b"I").unwrap() else { panic!() };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(ready.parameters, [pair("a", "3"), pair("b", "2")]);
        assert_eq!(ready.status, Status::Idle);
        assert_eq!(format!("{:?}", ready.key), "Some(BackendKey(7, ..))");
        assert_eq!(ready.key.unwrap().secret, [1; 32]);
        let negotiated = ready.negotiated.unwrap();
        assert_eq!(negotiated.version, 3 << 16);
        assert_eq!(negotiated.unknown, ["_pq_.x"]);
        assert_eq!(login.on_message(b'Z', b"I").unwrap_err(), LoginError::Over);
    }

    #[test]
    fn a_recorded_login_to_postgres_15_is_accepted() {
        let recorded = |kind: u32, text: &str| auth(kind, text.as_bytes());
        let secret = Credential::Password("tide-gate é ①".to_owned());
        let mut login = login(Some(secret));
        let list = recorded(10, "SCRAM-SHA-256\0\0");
        sent(login.on_message(b'R', &list).unwrap());
        let first = recorded(
            11,
            "r=FxcXFxcXFxcXFxcXFxcXFxcXSNeX35Wd4VjVOZcjPlTJWVfN,s=v8lAFVo/Y89zFnPYfFRYFA==,i=4096",
        );
        let Step::Hash(job) = login.on_message(b'R', &first).unwrap() else { panic!() };
        sent(login.on_hashed(job.run()).unwrap());
        // Only who has hashed the same password, prepared in the same way, finds this right.
        let last = recorded(12, "v=VyeuyA53q5YnvADnxGhXDJc9nWAzk4QIWKN4pjsZCFU=");
        login.on_message(b'R', &last).unwrap();
        login.on_message(b'R', &recorded(0, "")).unwrap();
        login.on_message(b'S', b"in_hot_standby\0off\0").unwrap();
        login.on_message(b'K', b"\0\09e\xfd\xb6=C").unwrap();
        assert!(matches!(login.on_message(b'Z', b"I"), Ok(Step::Ready(_))));
    }

    #[test]
    fn a_hash_answers_md5_and_nothing_else() {
        let hash = || Some(Credential::Md5(Md5Hash::of("m", b"secret")));
        let by_password = sent(login(password()).on_message(b'R', &auth(5, b"salt")).unwrap());
        assert_eq!(sent(login(hash()).on_message(b'R', &auth(5, b"salt")).unwrap()), by_password);
        for (kind, data, name) in [(3, &b""[..], "password"), (10, b"SCRAM-SHA-256\0\0", "SCRAM-SHA-256")] {
            let error = login(hash()).on_message(b'R', &auth(kind, data)).unwrap_err();
            assert_eq!(error, LoginError::NeedsPassword(name));
        }
    }

    #[test]
    fn the_best_that_channel_and_server_can_do_is_chosen() {
        let tls = |hash: &[u8]| Channel::Tls(EndPoint::new(hash));
        let both = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
        let first = |channel: Channel, offered: &[u8]| {
            over(channel, keys()).on_message(b'R', &auth(10, offered)).map(sent)
        };
        for (channel, offered, name, flag) in [
            (tls(b"hash"), &both[..], "SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,n=,r="),
            (tls(b"hash"), b"SCRAM-SHA-256\0SCRAM-SHA-256-PLUS\0\0", "SCRAM-SHA-256-PLUS", "p="),
            (tls(b"hash"), b"SCRAM-SHA-256-PLUS\0\0", "SCRAM-SHA-256-PLUS", "p="),
            (tls(b"hash"), b"SCRAM-SHA-256\0\0", "SCRAM-SHA-256", "y,,n=,r="),
            (tls(b""), both, "SCRAM-SHA-256", "n,,n=,r="),
            (Channel::Plain, b"SCRAM-SHA-256\0\0", "SCRAM-SHA-256", "n,,n=,r="),
        ] {
            let message = first(channel, offered).unwrap();
            let (mechanism, rest) = cstr(&message[5..]).unwrap();
            assert_eq!(mechanism, name.as_bytes());
            assert!(rest[4..].starts_with(flag.as_bytes()), "{name} {flag}");
        }
        // Somebody in between speaks TLS to the server and none to us.
        for offered in [&both[..], b"SCRAM-SHA-256-PLUS\0\0"] {
            assert_eq!(first(Channel::Plain, offered), Err(LoginError::PlusWithoutTls));
        }
        let alone = first(tls(b""), b"SCRAM-SHA-256-PLUS\0\0");
        assert!(matches!(alone, Err(LoginError::UnsupportedMethod(_))));
    }

    #[test]
    fn hashing_is_asked_for_once_and_nothing_is_taken_meanwhile() {
        let hashing = || {
            let mut login = login(password());
            let first = sent(login.on_message(b'R', &auth(10, b"SCRAM-SHA-256\0\0")).unwrap());
            let nonce = String::from_utf8(first[first.len() - 24..].to_vec()).unwrap();
            let challenge = format!("r={nonce}s,s=AAAA,i=1");
            let Step::Hash(job) = login.on_message(b'R', &auth(11, challenge.as_bytes())).unwrap() else {
                panic!()
            };
            (login, job)
        };
        let (mut login, job) = hashing();
        assert_eq!(login.on_message(b'R', &auth(0, b"")).unwrap_err(), LoginError::Unproven);
        assert_eq!(login.on_hashed(job.run()).unwrap_err(), LoginError::Over);
        let (mut login, job) = hashing();
        assert_eq!(login.on_message(b'R', &auth(12, b"")).unwrap_err(), LoginError::UnexpectedMessage(b'R'));
        assert_eq!(login.on_hashed(job.run()).unwrap_err(), LoginError::Over);
        let (mut login, job) = hashing();
        assert!(sent(login.on_hashed(job.run()).unwrap()).starts_with(b"p"));
        assert_eq!(login.on_hashed(hashing().1.run()).unwrap_err(), LoginError::Over);
        assert_eq!(self::login(password()).on_hashed(hashing().1.run()).unwrap_err(), LoginError::Over);
    }

    #[test]
    fn old_methods_get_the_password_only() {
        let cleartext = login(password()).on_message(b'R', &auth(3, b"")).unwrap();
        assert_eq!(sent(cleartext), b"p\0\0\0\x0bsecret\0");
        let md5 = login(password()).on_message(b'R', &auth(5, b"salt"));
        let wanted = Md5Hash::of("m", b"secret").response(*b"salt");
        assert_eq!(sent(md5.unwrap()), [b"p\0\0\0\x28", wanted.as_bytes(), b"\0"].concat());
        for (kind, name) in [(3, "password"), (5, "md5")] {
            let body = auth(kind, b"salt");
            assert_eq!(login(keys()).on_message(b'R', &body).unwrap_err(), LoginError::NeedsPassword(name));
            assert_eq!(login(None).on_message(b'R', &body).unwrap_err(), LoginError::NoCredential(name));
        }
        let zero = Some(Credential::Password("a\0b".to_owned()));
        assert_eq!(login(zero).on_message(b'R', &auth(3, b"")).unwrap_err(), LoginError::ZeroByte);
    }

    #[test]
    fn methods_that_we_lack_are_named() {
        for (kind, data, wanted) in [
            (2, &b""[..], "Kerberos V5"),
            (7, b"", "GSSAPI"),
            (9, b"", "SSPI"),
            (10, b"SCRAM-SHA-1\0\0", "SCRAM-SHA-256"),
            (99, b"", "unknown"),
        ] {
            let error = login(password()).on_message(b'R', &auth(kind, data)).unwrap_err();
            assert!(matches!(error, LoginError::UnsupportedMethod(_)));
            assert!(error.to_string().contains(wanted), "{error}");
        }
    }

    #[test]
    fn a_server_must_prove_itself_before_it_lets_us_in() {
        let mut login = login(password());
        let list = auth(10, b"SCRAM-SHA-256\0\0");
        login.on_message(b'R', &list).unwrap();
        assert_eq!(login.on_message(b'R', &auth(0, b"")).unwrap_err(), LoginError::Unproven);
    }

    #[test]
    fn messages_that_do_not_fit_end_the_login() {
        let after_ok = |tag: u8, body: &[u8]| {
            let mut login = login(None);
            login.on_message(b'R', &auth(0, b"")).unwrap();
            let error = login.on_message(tag, body).unwrap_err();
            assert_eq!(login.on_message(b'Z', b"I").unwrap_err(), LoginError::Over);
            error
        };
        assert_eq!(after_ok(b'Z', b"X"), LoginError::Malformed("ReadyForQuery"));
        assert_eq!(after_ok(b'Z', b""), LoginError::Malformed("ReadyForQuery"));
        assert_eq!(after_ok(b'K', b"1234567"), LoginError::Malformed("BackendKeyData"));
        assert_eq!(after_ok(b'K', &[0; 4 + 257]), LoginError::Malformed("BackendKeyData"));
        assert_eq!(after_ok(b'S', b"a\0b"), LoginError::Malformed("ParameterStatus"));
        assert_eq!(after_ok(b'T', b""), LoginError::UnexpectedMessage(b'T'));
        assert_eq!(after_ok(b'R', &auth(0, b"")), LoginError::UnexpectedMessage(b'R'));
        assert_eq!(after_ok(b'N', &vec![0; MAX_BODY + 1]), LoginError::TooMuch("message size"));
        for early in [b'Z', b'K', b'S'] {
            let error = login(None).on_message(early, b"I").unwrap_err();
            assert_eq!(error, LoginError::UnexpectedMessage(early));
        }
    }

    #[test]
    fn parameters_are_bounded() {
        let mut login = login(None);
        login.on_message(b'R', &auth(0, b"")).unwrap();
        for i in 0..MAX_PARAMETERS {
            login.on_message(b'S', format!("p{i}\0v\0").as_bytes()).unwrap();
        }
        assert_eq!(login.on_message(b'S', b"more\0v\0").unwrap_err(), LoginError::TooMuch("parameters"));
    }

    #[test]
    fn a_refusal_keeps_its_whole_body_and_debug_no_secret() {
        let mut login = login(password());
        assert!(!format!("{login:?}").contains("secret"));
        let body = b"SFATAL\0VFATAL\0C3D000\0Mdatabase \"x\" does not exist\0\0";
        let LoginError::Refused(refusal) = login.on_message(b'E', body).unwrap_err() else { panic!() };
        assert_eq!(refusal.sqlstate, "3D000");
        assert_eq!(refusal.message, "database \"x\" does not exist");
        assert_eq!(refusal.body, body);
    }
}
