//! The first packet of a connection, which has no tag.

use super::frame::{cstr, int32};

/// The longest first packet that is read, length word included (`MAX_STARTUP_PACKET_LENGTH` in `libpq/pqcomm.h`).
pub const MAX_STARTUP: usize = 10_000;

/// The longest cancel key of protocol 3.2, in bytes.
pub const MAX_CANCEL_KEY: usize = 256;

const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;

/// What a first packet asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First<'a> {
    /// SSLRequest: the answer is one byte.
    Ssl,
    /// GSSENCRequest: the answer is one byte.
    Gss,
    /// CancelRequest: no answer.
    Cancel {
        /// The process id of BackendKeyData.
        pid: u32,
        /// The secret key of BackendKeyData.
        key: &'a [u8],
    },
    /// StartupMessage.
    Startup {
        /// The minor version asked for; the major one is 3.
        minor: u16,
        /// The parameters: name and value, each zero-terminated, and a last zero.
        parameters: Parameters<'a>,
    },
    /// A version that we do not speak.
    Version {
        /// Major version.
        major: u16,
        /// Minor version.
        minor: u16,
    },
}

/// The packet is not a possible first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartupError;

/// Bytes of the first packet at the start of `bytes`, length word included; `None` if that is not known yet.
///
/// # Errors
/// The length is not possible.
pub fn length(bytes: &[u8]) -> Result<Option<usize>, StartupError> {
    let Some((len, _)) = int32(bytes) else {
        return Ok(None);
    };
    let len = len as usize;
    if (8..=MAX_STARTUP).contains(&len) { Ok(Some(len)) } else { Err(StartupError) }
}

/// Reads a whole first packet, length word included.
///
/// # Errors
/// It is not a possible first packet.
pub fn parse(packet: &[u8]) -> Result<First<'_>, StartupError> {
    let (_, rest) = int32(packet).ok_or(StartupError)?;
    let (code, rest) = int32(rest).ok_or(StartupError)?;
    match code {
        SSL_REQUEST => Ok(First::Ssl),
        GSS_REQUEST => Ok(First::Gss),
        CANCEL_REQUEST => {
            let (pid, key) = int32(rest).ok_or(StartupError)?;
            if key.is_empty() || key.len() > MAX_CANCEL_KEY {
                return Err(StartupError);
            }
            Ok(First::Cancel { pid, key })
        }
        version => {
            let (major, minor) = ((version >> 16) as u16, version as u16);
            if major != 3 {
                return Ok(First::Version { major, minor });
            }
            let parameters = Parameters { bytes: rest };
            parameters.check()?;
            Ok(First::Startup { minor, parameters })
        }
    }
}

/// The parameters of a StartupMessage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters<'a> {
    bytes: &'a [u8],
}

impl<'a> Parameters<'a> {
    fn check(self) -> Result<(), StartupError> {
        let mut rest = self.bytes;
        loop {
            let (name, behind) = cstr(rest).ok_or(StartupError)?;
            if name.is_empty() {
                return if behind.is_empty() { Ok(()) } else { Err(StartupError) };
            }
            let (_, behind) = cstr(behind).ok_or(StartupError)?;
            rest = behind;
        }
    }

    /// Name and value of each parameter, in order.
    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let mut rest = self.bytes;
        std::iter::from_fn(move || {
            let (name, behind) = cstr(rest)?;
            if name.is_empty() {
                return None;
            }
            let (value, behind) = cstr(behind)?;
            rest = behind;
            Some((name, value))
        })
    }

    /// The last value of that name.
    #[must_use]
    pub fn get(self, name: &[u8]) -> Option<&'a [u8]> {
        self.iter().filter(|(n, _)| *n == name).map(|(_, v)| v).last()
    }
}

/// Reads the settings out of the startup parameter `options` (`-c name=value`, `-cname=value`,
/// `--name=value`; a backslash quotes a space or a backslash), as `pg_split_opts` and
/// `process_postgres_switches` in PostgreSQL's `postinit.c` and `postgres.c` do.
///
/// # Errors
/// The first word that is none of those.
pub fn options(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut found = Vec::new();
    let mut words = split_options(text).into_iter();
    while let Some(word) = words.next() {
        let pair = if word == "-c" {
            words.next().ok_or_else(|| word.clone())?
        } else if let Some(pair) = word.strip_prefix("--").or_else(|| word.strip_prefix("-c")) {
            pair.to_owned()
        } else {
            return Err(word);
        };
        let Some((name, value)) = pair.split_once('=') else {
            return Err(word);
        };
        found.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(found)
}

fn split_options(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter.is_ascii_whitespace() {
            words.extend(word.take());
            continue;
        }
        let letter = if letter == '\\' { letters.next().unwrap_or('\\') } else { letter };
        word.get_or_insert_default().push(letter);
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(code: u32, rest: &[u8]) -> Vec<u8> {
        let mut bytes = (rest.len() as u32 + 8).to_be_bytes().to_vec();
        bytes.extend_from_slice(&code.to_be_bytes());
        bytes.extend_from_slice(rest);
        bytes
    }

    #[test]
    fn each_kind_of_first_packet_is_told_apart() {
        assert_eq!(parse(&packet(SSL_REQUEST, b"")), Ok(First::Ssl));
        assert_eq!(parse(&packet(GSS_REQUEST, b"")), Ok(First::Gss));
        assert_eq!(
            parse(&packet(CANCEL_REQUEST, b"\0\0\0\x07abcd")),
            Ok(First::Cancel { pid: 7, key: b"abcd" })
        );
        assert_eq!(parse(&packet(2 << 16, b"")), Ok(First::Version { major: 2, minor: 0 }));
        let bytes = packet((3 << 16) | 2, b"user\0bob\0database\0shop\0\0");
        let Ok(First::Startup { minor, parameters }) = parse(&bytes) else {
            panic!("not a startup message");
        };
        assert_eq!(minor, 2);
        assert_eq!(parameters.get(b"user"), Some(&b"bob"[..]));
        assert_eq!(parameters.get(b"database"), Some(&b"shop"[..]));
        assert_eq!(parameters.get(b"options"), None);
    }

    #[test]
    fn parameters_must_end_where_the_packet_ends() {
        for rest in [&b"user\0bob"[..], b"user\0bob\0", b"user\0\0extra", b"", b"user\0bob\0\0x"] {
            assert_eq!(parse(&packet(3 << 16, rest)), Err(StartupError), "{rest:?}");
        }
    }

    #[test]
    fn options_come_in_three_forms() {
        assert_eq!(
            options(r"-c geqo=off  --statement-timeout=5min -csearch_path=a\ b\\c"),
            Ok(vec![
                ("geqo".into(), "off".into()),
                ("statement_timeout".into(), "5min".into()),
                ("search_path".into(), r"a b\c".into()),
            ])
        );
        assert_eq!(options("-c"), Err("-c".into()));
        assert_eq!(options("-B 10"), Err("-B".into()));
    }

    proptest! {
        #[test]
        fn any_packet_is_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), text in ".{0,80}") {
            let _ = length(&bytes);
            if let Ok(First::Startup { parameters, .. }) = parse(&bytes) {
                parameters.iter().count();
            }
            let _ = options(&text);
        }
    }
}
