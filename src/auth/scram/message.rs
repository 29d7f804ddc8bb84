//! SCRAM's four messages (RFC 5802, section 7): views of them, and what is wrong with them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::binding::{BINDING_TYPE, Binding, Selection};
use super::key::{Iterations, KEY_LEN, decode_key, decode_salt};

/// The longest message that we take from a client, in bytes (PostgreSQL: `PG_MAX_SASL_MESSAGE_LENGTH`).
pub const MAX_FROM_CLIENT: usize = 1024;

/// The longest message that we take from a server, in bytes.
pub const MAX_FROM_SERVER: usize = 64 * 1024;

/// Why an exchange ends without a login.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// The message is not of SCRAM's form; the text says where. For a client it is the DETAIL.
    #[error("malformed SCRAM message ({0})")]
    Malformed(&'static str),
    /// A nonce holds something else than printable ASCII.
    #[error("non-printable characters in SCRAM nonce")]
    NonPrintable,
    /// The message asks for something that neither PostgreSQL nor we can do.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The nonce is not the one of this exchange.
    #[error("invalid SCRAM response (Nonce does not match.)")]
    Nonce,
    /// The client knows channel binding and believes that we do not, but we have offered it: somebody in
    /// between took our offer away.
    #[error("SCRAM channel binding negotiation error")]
    Downgrade,
    /// The client binds to something else than the certificate's hash; its word for it, cut to 30
    /// characters, of which those that cannot be shown are `?`.
    #[error("unsupported SCRAM channel-binding type \"{0}\"")]
    BindingType(String),
    /// The client sees another certificate than ours: somebody is in between.
    #[error("SCRAM channel binding check failed")]
    BindingCheck,
    /// The client's second message contradicts its first one about channel binding.
    #[error("unexpected SCRAM channel-binding attribute in client-final-message")]
    ChannelBinding,
    /// The server asks for an iteration count outside of 1 to [`Iterations::MAX`].
    #[error("SCRAM iteration count is out of range")]
    Iterations,
    /// The client's proof is wrong, or the user is unknown.
    #[error("incorrect SCRAM proof")]
    Proof,
    /// The server does not know the verifier of the user.
    #[error("incorrect server signature: the server does not know this user's password")]
    Signature,
    /// The server ended the exchange with this error code.
    #[error("the server ended the SCRAM exchange: {0}")]
    Server(String),
}

impl ScramError {
    /// What PostgreSQL tells a client, and the DETAIL with it.
    #[must_use]
    pub fn told(&self) -> (String, Option<&'static str>) {
        match self {
            Self::Malformed(detail) => ("malformed SCRAM message".to_owned(), Some(detail)),
            Self::Nonce => ("invalid SCRAM response".to_owned(), Some("Nonce does not match.")),
            Self::Downgrade => (self.to_string(), Some(DOWNGRADE)),
            other => (other.to_string(), None),
        }
    }
}

const DOWNGRADE: &str = "The client supports SCRAM channel binding but thinks the server does not.  \
    However, this server does support channel binding.";

/// One side's random part of an exchange; must be fresh for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nonce(String);

impl Nonce {
    /// Random bytes that a nonce is made of (PostgreSQL: `SCRAM_RAW_NONCE_LEN`).
    pub const RAW_LEN: usize = 18;

    /// A nonce of random bytes.
    #[must_use]
    pub fn new(random: [u8; Self::RAW_LEN]) -> Self {
        Self(BASE64.encode(random))
    }

    /// A nonce with a given text: for the examples in the RFC.
    #[cfg(test)]
    pub(crate) fn of(text: &str) -> Self {
        Self(text.to_owned())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The client's first message.
#[derive(Clone, Debug)]
pub struct ClientFirst<'a> {
    /// What it says about channel binding.
    pub binding: Binding,
    /// The message without its GS2 header.
    pub bare: &'a [u8],
    /// The client's nonce.
    pub nonce: &'a str,
}

impl<'a> ClientFirst<'a> {
    /// Reads the message. The user name in it is ignored: PostgreSQL goes by the startup packet.
    ///
    /// # Errors
    /// The message is malformed, says of channel binding what does not go with the mechanism, or wants
    /// an authorization identity or an extension.
    pub fn read(message: &'a [u8], selection: &Selection) -> Result<Self, ScramError> {
        whole(message)?;
        let (binding, rest) = read_binding(message, selection)?;
        if rest.starts_with(b"a") {
            return Err(ScramError::Unsupported(
                "client uses authorization identity, but it is not supported",
            ));
        }
        let bare = rest
            .strip_prefix(b",")
            .ok_or(ScramError::Malformed("Unexpected attribute in client-first-message."))?;
        if bare.starts_with(b"m") {
            return Err(ScramError::Unsupported("client requires an unsupported SCRAM extension"));
        }
        let mut attributes = Attributes::new(bare)?;
        attributes.expect(b'n')?;
        let nonce = printable(attributes.expect(b'r')?)?;
        while attributes.next()?.is_some() {}
        Ok(Self { binding, bare, nonce })
    }
}

/// Reads the GS2 header up to the authorization identity, and gives what is behind.
fn read_binding<'a>(message: &'a [u8], selection: &Selection) -> Result<(Binding, &'a [u8]), ScramError> {
    let comma = |rest: &'a [u8]| rest.strip_prefix(b",").ok_or(ScramError::Malformed("Comma expected."));
    match (message.split_first(), selection) {
        (Some((b'n' | b'y', _)), Selection::Plus(_)) => Err(ScramError::Malformed(
            "The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding data.",
        )),
        (Some((b'p', _)), Selection::Bare { .. }) => Err(ScramError::Malformed(
            "The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding data.",
        )),
        (Some((b'y', _)), Selection::Bare { plus_offered: true }) => Err(ScramError::Downgrade),
        (Some((b'y', rest)), Selection::Bare { .. }) => Ok((Binding::Unused, comma(rest)?)),
        (Some((b'n', rest)), Selection::Bare { .. }) => Ok((Binding::Unable, comma(rest)?)),
        (Some((b'p', rest)), Selection::Plus(end_point)) => {
            let rest = rest.strip_prefix(b"=").ok_or(ScramError::Malformed("Attribute expected."))?;
            let end = memchr::memchr(b',', rest).unwrap_or(rest.len());
            let (kind, rest) = rest.split_at_checked(end).unwrap_or((rest, &[]));
            if kind != BINDING_TYPE.as_bytes() {
                return Err(ScramError::BindingType(shown(kind)));
            }
            Ok((Binding::To(end_point.clone()), comma(rest)?))
        }
        _ => Err(ScramError::Malformed("Unexpected channel-binding flag.")),
    }
}

/// PostgreSQL: `sanitize_str`.
fn shown(bytes: &[u8]) -> String {
    const SHOWN: usize = 30;
    let shown = |&byte: &u8| if byte.is_ascii_graphic() { char::from(byte) } else { '?' };
    bytes.iter().take(SHOWN).map(shown).collect()
}

/// The server's first message.
#[derive(Clone, Debug)]
pub struct ServerFirst<'a> {
    /// Both nonces, the client's first.
    pub nonce: &'a str,
    /// The salt.
    pub salt: Vec<u8>,
    /// How often to hash.
    pub iterations: Iterations,
}

impl<'a> ServerFirst<'a> {
    /// Reads the message.
    ///
    /// # Errors
    /// It is malformed, or the iteration count is out of range.
    pub fn read(message: &'a [u8]) -> Result<Self, ScramError> {
        let mut attributes = Attributes::new(message)?;
        let nonce = printable(attributes.expect(b'r')?)?;
        let salt = decode_salt(attributes.expect(b's')?).ok_or(ScramError::Malformed("invalid salt"))?;
        let iterations = Iterations::parse(attributes.expect(b'i')?).ok_or(ScramError::Iterations)?;
        attributes.end("garbage at the end of server-first-message")?;
        Ok(Self { nonce, salt, iterations })
    }

    /// The text of the message.
    #[must_use]
    pub fn write(nonce: &str, salt: &[u8], iterations: Iterations) -> Vec<u8> {
        format!("r={nonce},s={},i={}", BASE64.encode(salt), iterations.get()).into_bytes()
    }
}

/// The client's second and last message.
#[derive(Clone, Copy, Debug)]
pub struct ClientFinal<'a> {
    /// The message up to the proof: what the proof is about.
    pub without_proof: &'a [u8],
    /// Both nonces.
    pub nonce: &'a [u8],
    /// The proof.
    pub proof: [u8; KEY_LEN],
}

impl<'a> ClientFinal<'a> {
    /// Reads the message; `binding` is what the client's first one said.
    ///
    /// # Errors
    /// The message is malformed, says something else about channel binding, or binds to something else.
    pub fn read(message: &'a [u8], binding: &Binding) -> Result<Self, ScramError> {
        let mut attributes = Attributes::new(message)?;
        if attributes.expect(b'c')? != binding.echo().as_bytes() {
            return Err(match binding {
                Binding::To(_) => ScramError::BindingCheck,
                Binding::Unable | Binding::Unused => ScramError::ChannelBinding,
            });
        }
        let nonce = attributes.expect(b'r')?;
        loop {
            let without_proof = attributes.read_so_far();
            match attributes.next()? {
                Some((b'p', proof)) => {
                    let proof = decode_key(proof)
                        .ok_or(ScramError::Malformed("Malformed proof in client-final-message."))?;
                    attributes.end("Garbage found at the end of client-final-message.")?;
                    return Ok(Self { without_proof, nonce, proof });
                }
                Some(_) => {}
                None => return Err(ScramError::Malformed("Attribute expected, but found end of string.")),
            }
        }
    }

    /// The text of the message up to the proof.
    #[must_use]
    pub fn write_without_proof(nonce: &str, binding: &Binding) -> Vec<u8> {
        format!("c={},r={nonce}", binding.echo()).into_bytes()
    }

    /// Adds the proof.
    #[must_use]
    pub fn write(without_proof: &[u8], proof: &[u8; KEY_LEN]) -> Vec<u8> {
        [without_proof, b",p=", BASE64.encode(proof).as_bytes()].concat()
    }
}

/// The text of the server's last message.
#[must_use]
pub fn write_server_final(signature: &[u8; KEY_LEN]) -> Vec<u8> {
    format!("v={}", BASE64.encode(signature)).into_bytes()
}

/// Reads the server's last message: its signature.
///
/// # Errors
/// The message is malformed, or is an error code.
pub fn read_server_final(message: &[u8]) -> Result<[u8; KEY_LEN], ScramError> {
    const SHOWN: usize = 100;
    let mut attributes = Attributes::new(message)?;
    match attributes.next()? {
        Some((b'v', value)) => {
            let signature = decode_key(value).ok_or(ScramError::Malformed("invalid server signature"))?;
            attributes.end("garbage at the end of server-final-message")?;
            Ok(signature)
        }
        Some((b'e', value)) => {
            let shown = value.iter().filter(|b| b.is_ascii_graphic()).take(SHOWN);
            Err(ScramError::Server(shown.map(|&b| char::from(b)).collect()))
        }
        _ => Err(ScramError::Malformed("no server signature")),
    }
}

/// Walks over `a=value,b=value`.
struct Attributes<'a> {
    whole: &'a [u8],
    /// Where the next attribute starts; `None` when there is none.
    at: Option<usize>,
}

impl<'a> Attributes<'a> {
    fn new(whole: &'a [u8]) -> Result<Self, ScramError> {
        self::whole(whole)?;
        Ok(Self { whole, at: Some(0) })
    }

    fn next(&mut self) -> Result<Option<(u8, &'a [u8])>, ScramError> {
        let Some(at) = self.at else { return Ok(None) };
        let rest = self.whole.get(at..).unwrap_or_default();
        let end = memchr::memchr(b',', rest);
        self.at = end.map(|end| at + end + 1);
        match rest.get(..end.unwrap_or(rest.len())) {
            Some([name, b'=', value @ ..]) if name.is_ascii_alphabetic() => Ok(Some((*name, value))),
            _ => Err(ScramError::Malformed("Attribute expected.")),
        }
    }

    fn expect(&mut self, wanted: u8) -> Result<&'a [u8], ScramError> {
        match self.next()? {
            Some((name, value)) if name == wanted => Ok(value),
            Some(_) => Err(ScramError::Malformed("Unexpected attribute.")),
            None => Err(ScramError::Malformed("Attribute expected, but found end of string.")),
        }
    }

    /// Everything in front of the next attribute, without the comma between.
    fn read_so_far(&self) -> &'a [u8] {
        let end = self.at.map_or(self.whole.len(), |at| at.saturating_sub(1));
        self.whole.get(..end).unwrap_or_default()
    }

    fn end(&self, otherwise: &'static str) -> Result<(), ScramError> {
        match self.at {
            None => Ok(()),
            Some(_) => Err(ScramError::Malformed(otherwise)),
        }
    }
}

/// That a message is a text at all.
fn whole(message: &[u8]) -> Result<(), ScramError> {
    if message.is_empty() {
        return Err(ScramError::Malformed("The message is empty."));
    }
    // A zero byte, behind which PostgreSQL's own strings end.
    if message.contains(&0) {
        return Err(ScramError::Malformed("Message length does not match input length."));
    }
    Ok(())
}

/// `printable` of RFC 5802: a nonce must be made of it. Commas are gone by now.
fn printable(value: &[u8]) -> Result<&str, ScramError> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_graphic) {
        return Err(ScramError::NonPrintable);
    }
    std::str::from_utf8(value).map_err(|_| ScramError::NonPrintable)
}
