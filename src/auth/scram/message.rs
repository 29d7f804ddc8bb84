//! SCRAM's four messages (RFC 5802, section 7): views of them, and what is wrong with them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::key::{Iterations, KEY_LEN, decode_key, decode_salt};

/// The longest message that we take from a client, in bytes (PostgreSQL: `PG_MAX_SASL_MESSAGE_LENGTH`).
pub const MAX_FROM_CLIENT: usize = 1024;

/// The longest message that we take from a server, in bytes.
pub const MAX_FROM_SERVER: usize = 64 * 1024;

/// Why an exchange ends without a login.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// The message is not of SCRAM's form; the text says where.
    #[error("malformed SCRAM message ({0})")]
    Malformed(&'static str),
    /// The message asks for something that neither PostgreSQL nor we can do.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The nonce is not the one of this exchange.
    #[error("invalid SCRAM response (nonce mismatch)")]
    Nonce,
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

/// What the client says about channel binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// `n`: it cannot.
    Unable,
    /// `y`: it could, and believes that we cannot; which is so.
    Unused,
}

impl Binding {
    /// Base64 of the GS2 header, which the client has to repeat in its second message.
    const fn echo(self) -> &'static [u8] {
        match self {
            Self::Unable => b"biws",
            Self::Unused => b"eSws",
        }
    }
}

/// The client's first message.
#[derive(Clone, Copy, Debug)]
pub struct ClientFirst<'a> {
    /// The channel-binding flag.
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
    /// The message is malformed, or wants channel binding, an authorization identity or an extension.
    pub fn read(message: &'a [u8]) -> Result<Self, ScramError> {
        let (binding, rest) = match message.split_first() {
            Some((b'n', rest)) => (Binding::Unable, rest),
            Some((b'y', rest)) => (Binding::Unused, rest),
            Some((b'p', _)) => {
                return Err(ScramError::Unsupported(
                    "client requires SCRAM channel binding, but it is not supported",
                ));
            }
            Some(_) => return Err(ScramError::Malformed("unexpected channel-binding flag")),
            None => return Err(ScramError::Malformed("the message is empty")),
        };
        let rest = rest.strip_prefix(b",").ok_or(ScramError::Malformed("comma expected"))?;
        if rest.starts_with(b"a") {
            return Err(ScramError::Unsupported(
                "client uses authorization identity, but it is not supported",
            ));
        }
        let bare = rest
            .strip_prefix(b",")
            .ok_or(ScramError::Malformed("unexpected attribute in client-first-message"))?;
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
    /// The message is malformed, or says something else about channel binding.
    pub fn read(message: &'a [u8], binding: Binding) -> Result<Self, ScramError> {
        let mut attributes = Attributes::new(message)?;
        if attributes.expect(b'c')? != binding.echo() {
            return Err(ScramError::ChannelBinding);
        }
        let nonce = attributes.expect(b'r')?;
        loop {
            let without_proof = attributes.read_so_far();
            match attributes.next()? {
                Some((b'p', proof)) => {
                    let proof = decode_key(proof)
                        .ok_or(ScramError::Malformed("invalid proof in client-final-message"))?;
                    attributes.end("garbage at the end of client-final-message")?;
                    return Ok(Self { without_proof, nonce, proof });
                }
                Some(_) => {}
                None => return Err(ScramError::Malformed("no proof in client-final-message")),
            }
        }
    }

    /// The text of the message up to the proof, for a client that cannot bind channels.
    #[must_use]
    pub fn write_without_proof(nonce: &str) -> Vec<u8> {
        format!("c=biws,r={nonce}").into_bytes()
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
        if whole.is_empty() {
            return Err(ScramError::Malformed("the message is empty"));
        }
        // PostgreSQL: "Message length does not match input length."
        if whole.contains(&0) {
            return Err(ScramError::Malformed("the message holds a zero byte"));
        }
        Ok(Self { whole, at: Some(0) })
    }

    fn next(&mut self) -> Result<Option<(u8, &'a [u8])>, ScramError> {
        let Some(at) = self.at else { return Ok(None) };
        let rest = self.whole.get(at..).unwrap_or_default();
        let end = memchr::memchr(b',', rest);
        self.at = end.map(|end| at + end + 1);
        match rest.get(..end.unwrap_or(rest.len())) {
            Some([name, b'=', value @ ..]) if name.is_ascii_alphabetic() => Ok(Some((*name, value))),
            _ => Err(ScramError::Malformed("attribute expected")),
        }
    }

    fn expect(&mut self, wanted: u8) -> Result<&'a [u8], ScramError> {
        match self.next()? {
            Some((name, value)) if name == wanted => Ok(value),
            Some(_) => Err(ScramError::Malformed("unexpected attribute")),
            None => Err(ScramError::Malformed("attribute missing")),
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

/// `printable` of RFC 5802: a nonce must be made of it. Commas are gone by now.
fn printable(value: &[u8]) -> Result<&str, ScramError> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_graphic) {
        return Err(ScramError::Malformed("non-printable characters in SCRAM nonce"));
    }
    std::str::from_utf8(value).map_err(|_| ScramError::Malformed("non-printable characters in SCRAM nonce"))
}
