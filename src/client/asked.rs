//! What a client asks for in its startup packet.

use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;

use crate::route::Level;
use crate::session::SettingsMap;
use crate::wire::build::{self, Report};
use crate::wire::sqlstate;
use crate::wire::startup::{self, Parameters};

/// The newest minor version of protocol 3 that we speak.
pub(super) const MINOR: u16 = 2;

/// What a client asks for.
#[derive(Debug)]
pub struct Asked {
    /// The role.
    pub user: Arc<str>,
    /// The database.
    pub database: Arc<str>,
    /// Its settings.
    pub settings: Rc<SettingsMap>,
    /// The level that it asked for.
    pub level: Option<Level>,
    /// It is a walsender without a database.
    pub physical: bool,
    /// For a replication connection: what its server is told at startup. Empty for all others.
    pub replication: Vec<(String, String)>,
    /// NegotiateProtocolVersion, if it asked for what we do not speak.
    pub negotiation: BytesMut,
    /// Bytes of its cancel key.
    pub key_len: usize,
}

impl Asked {
    /// Reads a startup packet.
    ///
    /// # Errors
    /// What the client is to be told.
    pub fn read(minor: u16, parameters: Parameters<'_>) -> Result<Self, Report> {
        let text = |name: &[u8]| parameters.get(name).map(|v| clip(String::from_utf8_lossy(v).into_owned()));
        let user = text(b"user").filter(|u| !u.is_empty()).ok_or_else(|| {
            let message = "no PostgreSQL user name specified in startup packet";
            Report::fatal(sqlstate::INVALID_AUTHORIZATION, message)
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
        let mut negotiation = BytesMut::new();
        if minor != spoken || !unknown.is_empty() {
            build::negotiate_version(&mut negotiation, spoken, &unknown);
        }
        let replication = Replication::of(parameters)?;
        Ok(Self {
            user: user.into(),
            database: database.into(),
            settings: Rc::new(settings),
            level,
            physical: replication == Replication::Physical,
            replication: replication.parameters(parameters),
            negotiation,
            key_len: if spoken >= 2 { 32 } else { 4 },
        })
    }
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
    fn of(parameters: Parameters<'_>) -> Result<Self, Report> {
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
            Report::fatal(sqlstate::INVALID_PARAMETER_VALUE, message).hint(hint)
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
fn settings(parameters: Parameters<'_>) -> Result<(SettingsMap, Option<Level>), Report> {
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
