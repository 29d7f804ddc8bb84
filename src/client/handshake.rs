//! A client's first packets: version, encryption, login, and what it is told when it is in.

use std::net::IpAddr;
use std::rc::Rc;

use bytes::BytesMut;
use rand::Rng;

use super::cancel::Handle;
use super::login::{LoggedInAs, log_in};
use super::worker::Worker;
use crate::auth::{Applicant, Credential};
use crate::net::tls::{ALPN, Session};
use crate::net::{Acceptor, Stream};
use crate::route::Level;
use crate::session::SettingsMap;
use crate::wire::build::{self, Report};
use crate::wire::sqlstate;
use crate::wire::startup::{self, First, Parameters};

/// The newest minor version of protocol 3 that we speak.
const MINOR: u16 = 2;

/// The first byte of a TLS connection: no length of a startup packet begins like that.
const TLS_HANDSHAKE: u8 = 0x16;

/// The longest message that a client may send while it logs in.
pub(super) const MAX_LOGIN_MESSAGE: usize = 64 * 1024;

/// What a client asked for, and was proven to be.
#[derive(Debug)]
pub struct Arrival {
    /// The role.
    pub user: Rc<str>,
    /// The database.
    pub database: Rc<str>,
    /// Its oid, if that is known.
    pub role: Option<u32>,
    /// What servers take as proof.
    pub credential: Option<Credential>,
    /// Its settings.
    pub settings: Rc<SettingsMap>,
    /// The level that it asked for.
    pub level: Option<Level>,
    /// For a replication connection: what its server is told at startup. Empty for all others.
    pub replication: Vec<(String, String)>,
    /// What it is told first: that it has proven who it is. With the rest, for each write wakes it.
    pub said: BytesMut,
    /// Bytes of its cancel key.
    pub key_len: usize,
}

/// How a first packet ended.
#[derive(Debug)]
pub enum Greeting {
    /// A client wants in.
    Arrival(Box<Arrival>),
    /// A cancel request.
    Cancel(u32, Vec<u8>),
    /// Nothing more to do: it left, or was refused and told so.
    Over,
}

/// Speaks with a client until it has proven who it is. `input` may hold more afterwards.
pub async fn greet(stream: &mut Stream, address: IpAddr, input: &mut BytesMut, worker: &Worker) -> Greeting {
    match try_greet(stream, address, input, worker).await {
        Ok(greeting) => greeting,
        Err(Some(report)) => {
            worker.count_error(&report);
            let mut out = BytesMut::new();
            report.write(&mut out);
            // The client may be gone already; there is nobody else to tell.
            let _ = stream.write_all(&out).await;
            Greeting::Over
        }
        Err(None) => Greeting::Over,
    }
}

async fn try_greet(
    stream: &mut Stream,
    address: IpAddr,
    input: &mut BytesMut,
    worker: &Worker,
) -> Result<Greeting, Option<Report>> {
    while input.is_empty() {
        more(stream, input).await?;
    }
    if input.first() == Some(&TLS_HANDSHAKE) {
        greet_directly(stream, input, worker).await?;
    }
    loop {
        let len = loop {
            if let Some(len) = startup::length(input).map_err(|_| malformed())?
                && input.len() >= len
            {
                break len;
            }
            more(stream, input).await?;
        };
        let packet = input.split_to(len);
        match startup::parse(&packet).map_err(|_| malformed())? {
            request @ (First::Ssl | First::Gss) => {
                // Bytes that came before our answer may be an attacker's (CVE-2021-23222 and its kin).
                if !input.is_empty() {
                    return Err(Some(Report::fatal(
                        sqlstate::PROTOCOL_VIOLATION,
                        "received unencrypted data after an encryption request",
                    )));
                }
                match worker.shared.acceptor.load_full() {
                    Some(acceptor) if request == First::Ssl && stream.tls().is_none() => {
                        stream.write_all(b"S").await.map_err(|_| None)?;
                        secure(stream, &acceptor, BytesMut::new()).await?;
                    }
                    _ => stream.write_all(b"N").await.map_err(|_| None)?,
                }
            }
            First::Cancel { pid, key } => return Ok(Greeting::Cancel(pid, key.to_vec())),
            First::Version { major, minor } => {
                return Err(Some(Report::fatal(
                    sqlstate::FEATURE_NOT_SUPPORTED,
                    format!(
                        "unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.{MINOR}"
                    ),
                )));
            }
            First::Startup { minor, parameters } => {
                return arrive(stream, address, input, worker, minor, parameters)
                    .await
                    .map(|a| Greeting::Arrival(Box::new(a)));
            }
        }
    }
}

/// TLS from the first byte on, without asking (libpq's `sslnegotiation=direct`).
async fn greet_directly(
    stream: &mut Stream,
    input: &mut BytesMut,
    worker: &Worker,
) -> Result<(), Option<Report>> {
    let Some(acceptor) = worker.shared.acceptor.load_full() else { return Err(None) };
    secure(stream, &acceptor, input.split()).await?;
    // Whoever speaks another protocol could be made to speak to us instead (ALPACA): PostgreSQL insists, too.
    if stream.tls().and_then(Session::alpn) != Some(ALPN) {
        return Err(Some(Report::fatal(
            sqlstate::PROTOCOL_VIOLATION,
            "received direct SSL connection request without ALPN protocol negotiation extension",
        )));
    }
    Ok(())
}

async fn secure(stream: &mut Stream, acceptor: &Acceptor, received: BytesMut) -> Result<(), Option<Report>> {
    let session = acceptor.session().map_err(|_| None)?;
    stream.secure(session, received).await.map_err(|error| {
        tracing::debug!(%error, "a client's TLS handshake failed");
        None
    })
}

async fn arrive(
    stream: &mut Stream,
    address: IpAddr,
    input: &mut BytesMut,
    worker: &Worker,
    minor: u16,
    parameters: Parameters<'_>,
) -> Result<Arrival, Option<Report>> {
    let text = |name: &[u8]| parameters.get(name).map(|v| clip(String::from_utf8_lossy(v).into_owned()));
    let user = text(b"user").filter(|u| !u.is_empty()).ok_or_else(|| {
        Report::fatal(sqlstate::INVALID_AUTHORIZATION, "no PostgreSQL user name specified in startup packet")
    })?;
    let database = text(b"database").filter(|d| !d.is_empty()).unwrap_or_else(|| user.clone());
    let (settings, level) = settings(parameters)?;
    let unknown: Vec<&[u8]> =
        parameters.iter().map(|(name, _)| name).filter(|n| n.starts_with(b"_pq_.")).collect();
    // There never was a 3.1: whoever asks for it is given 3.0, as PostgreSQL does.
    let spoken = match minor {
        0 | 1 => 0,
        _ => MINOR,
    };
    let mut out = BytesMut::new();
    if minor != spoken || !unknown.is_empty() {
        build::negotiate_version(&mut out, spoken, &unknown);
    }
    let replication = Replication::of(parameters)?;
    let applicant = Applicant {
        address,
        tls: stream.tls().is_some(),
        database: &database,
        user: &user,
        replication: replication == Replication::Physical,
    };
    let LoggedInAs { role, credential } =
        log_in(stream, input, worker, applicant, &mut out).await.inspect_err(|refused| {
            if let Some(report) = refused {
                // Names are a stranger's text: in quotes, with whatever is not printable escaped.
                tracing::info!(user = ?applicant.user, database = ?applicant.database,
                    address = %applicant.address, sqlstate = %report.sqlstate, "a login was refused");
            }
        })?;
    Ok(Arrival {
        said: out,
        user: user.into(),
        database: database.into(),
        role,
        credential,
        settings: Rc::new(settings),
        level,
        replication: replication.parameters(parameters),
        key_len: if spoken >= 2 { 32 } else { 4 },
    })
}

/// A name as long as PostgreSQL takes it (`NAMEDATALEN`): a longer one would pass by a rule for the role that it ends up
/// as.
fn clip(mut name: String) -> String {
    const LONGEST: usize = 63;
    let end = (0..=LONGEST.min(name.len())).rev().find(|end| name.is_char_boundary(*end));
    name.truncate(end.unwrap_or_default());
    name
}

/// What the startup parameter `replication` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replication {
    /// An ordinary session.
    Off,
    /// A walsender without a database, for which there are rules of their own.
    Physical,
    /// A walsender in a database.
    Database,
}

impl Replication {
    /// Reads it as PostgreSQL does (`ProcessStartupPacket`): what we take for an ordinary session must be none there.
    fn of(parameters: Parameters<'_>) -> Result<Self, Option<Report>> {
        let mut all = parameters.iter().filter(|(name, _)| *name == b"replication").map(|(_, value)| value);
        let Some(value) = all.next() else { return Ok(Self::Off) };
        let read = match value {
            b"database" => Some(Self::Database),
            value => boolean(value).map(|on| if on { Self::Physical } else { Self::Off }),
        };
        // PostgreSQL mixes several of them.
        read.filter(|_| all.next().is_none()).ok_or_else(|| {
            let value = String::from_utf8_lossy(value).into_owned();
            let message = format!("invalid value for parameter \"replication\": \"{value}\"");
            let hint = "Valid values are: \"false\", 0, \"true\", 1, \"database\".";
            Some(Report::fatal(sqlstate::INVALID_PARAMETER_VALUE, message).hint(hint))
        })
    }

    /// What a replication connection's server must be told; nothing for an ordinary session.
    fn parameters(self, parameters: Parameters<'_>) -> Vec<(String, String)> {
        let value = match self {
            Self::Off => return Vec::new(),
            Self::Physical => "true",
            Self::Database => "database",
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let ours = |name: &[u8]| {
            matches!(name, b"user" | b"database" | b"replication")
                || name.starts_with(b"_pq_.")
                || name.starts_with(b"tidegate.")
        };
        let others = parameters.iter().filter(|(name, _)| !ours(name));
        let own = [("replication".to_owned(), value.to_owned())];
        own.into_iter().chain(others.map(|(name, value)| (text(name), text(value)))).collect()
    }
}

/// A boolean as PostgreSQL reads it: any prefix that tells (`parse_bool_with_len` in `utils/adt/bool.c`).
fn boolean(value: &[u8]) -> Option<bool> {
    let value = value.to_ascii_lowercase();
    let is = |word: &[u8], least: usize| value.len() >= least && word.starts_with(&value);
    match value.as_slice() {
        b"1" => Some(true),
        b"0" => Some(false),
        _ if is(b"true", 1) || is(b"yes", 1) || is(b"on", 2) => Some(true),
        _ if is(b"false", 1) || is(b"no", 1) || is(b"off", 2) => Some(false),
        _ => None,
    }
}

/// The parameters that a session starts with, and its level if it names one.
fn settings(parameters: Parameters<'_>) -> Result<(SettingsMap, Option<Level>), Option<Report>> {
    let mut settings = SettingsMap::default();
    let mut level = None;
    let mut set = |name: &str, value: &[u8]| -> Result<(), Report> {
        if let Some(own) = name.to_ascii_lowercase().strip_prefix("tidegate.") {
            let text = String::from_utf8_lossy(value);
            return match own {
                "consistency" => {
                    level = Some(Level::parse(&text).ok_or_else(|| {
                        Report::fatal(
                            sqlstate::INVALID_PARAMETER_VALUE,
                            format!("invalid value for parameter \"tidegate.consistency\": \"{text}\""),
                        )
                        .hint("Available values: eventual, read_your_writes, session.")
                    })?);
                    Ok(())
                }
                _ => Err(Report::fatal(
                    sqlstate::UNDEFINED_OBJECT,
                    format!("unrecognized configuration parameter \"tidegate.{own}\""),
                )),
            };
        }
        settings
            .set_startup(name, value)
            .map_err(|_| Report::fatal(sqlstate::LIMIT_EXCEEDED, "too many parameters in the startup packet"))
    };
    if let Some(encoding) = parameters.get(b"client_encoding") {
        // By it all other values are read.
        set("client_encoding", encoding)?;
    }
    for (name, value) in parameters.iter() {
        match name {
            b"user" | b"database" | b"replication" | b"client_encoding" => {}
            b"options" => {
                let text = String::from_utf8_lossy(value);
                let pairs = startup::options(&text).map_err(|word| {
                    Report::fatal(
                        "42601",
                        format!("invalid command-line argument for server process: {word}"),
                    )
                })?;
                for (name, value) in pairs {
                    set(&name, value.as_bytes())?;
                }
            }
            name if name.starts_with(b"_pq_.") => {}
            name => set(&String::from_utf8_lossy(name), value)?,
        }
    }
    Ok((settings, level))
}

/// What a client is told when it is in.
pub fn welcome(out: &mut BytesMut, parameters: &[(String, String)], pid: u32, key: &[u8]) {
    // Each message has its tag, its length, and the zeros behind name and value.
    let reports: usize = parameters.iter().map(|(name, value)| name.len() + value.len() + 7).sum();
    out.reserve(reports + key.len() + 16);
    for (name, value) in parameters {
        build::parameter_status(out, name.as_bytes(), value.as_bytes());
    }
    build::backend_key_data(out, pid, key);
    build::ready_for_query(out, crate::wire::server::Status::Idle);
}

/// Registers a client that has arrived; the handle's key is as long as its protocol has it.
pub fn register(worker: &Worker, key_len: usize) -> (u32, Vec<u8>, Rc<Handle>) {
    let mut key = vec![0; key_len];
    rand::rng().fill_bytes(&mut key);
    let (pid, handle) = worker.handles.borrow_mut().add(worker.number, key.clone());
    (pid, key, handle)
}

pub(super) async fn more(stream: &mut Stream, input: &mut BytesMut) -> Result<(), Option<Report>> {
    input.reserve(1024);
    match stream.read(input).await {
        Ok(n) if n > 0 => Ok(()),
        _ => Err(None),
    }
}

pub(super) fn malformed() -> Option<Report> {
    Some(Report::fatal(sqlstate::PROTOCOL_VIOLATION, "invalid length or layout of a startup or login packet"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_those_of_postgresql() {
        for (text, value) in [
            ("t", Some(true)),
            ("TRUE", Some(true)),
            ("ye", Some(true)),
            ("on", Some(true)),
            ("1", Some(true)),
            ("of", Some(false)),
            ("fals", Some(false)),
            ("n", Some(false)),
            ("0", Some(false)),
            ("o", None),
            ("", None),
            ("truer", None),
            ("2", None),
        ] {
            assert_eq!(boolean(text.as_bytes()), value, "{text}");
        }
    }
}
