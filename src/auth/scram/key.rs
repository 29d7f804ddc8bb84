//! What a password turns into: keys, and the verifier that PostgreSQL stores.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::saslprep;

/// Bytes of a key, a proof and a signature.
pub const KEY_LEN: usize = 32;

/// Bytes of a salt that we or PostgreSQL make (`SCRAM_DEFAULT_SALT_LEN`).
pub const SALT_LEN: usize = 16;

/// The longest salt that we take from outside, in bytes.
pub const MAX_SALT: usize = 1024;

/// Bytes of SHA-256's block, to which HMAC pads its key.
const BLOCK: usize = 64;

/// How often a password is hashed: 1 to [`Iterations::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Iterations(u32);

impl Iterations {
    /// More than this is refused: the server chooses the number, and the client does the work
    /// (about a quarter of a second for this many).
    pub const MAX: u32 = 1_000_000;

    /// `None` if out of range.
    #[must_use]
    pub const fn new(count: u32) -> Option<Self> {
        match count {
            1..=Self::MAX => Some(Self(count)),
            _ => None,
        }
    }

    /// Reads a decimal number; `None` if it is none or out of range.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if !text.iter().all(u8::is_ascii_digit) {
            return None;
        }
        Self::new(std::str::from_utf8(text).ok()?.parse().ok()?)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Default for Iterations {
    /// PostgreSQL's `SCRAM_SHA_256_DEFAULT_ITERATIONS`.
    fn default() -> Self {
        Self(4096)
    }
}

/// 32 secret bytes: compared in constant time, never shown.
#[derive(Clone)]
pub(crate) struct Secret(pub(crate) [u8; KEY_LEN]);

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

/// Proves that its owner knows the password: all that a client needs to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientKey(Secret);

/// `H(ClientKey)`: checks a proof, but cannot make one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKey(Secret);

/// Proves that a server knows the verifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerKey(Secret);

/// What a client needs to log in with SCRAM in place of the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScramKeys {
    /// Makes our proof.
    pub client_key: ClientKey,
    /// Checks the server's signature.
    pub server_key: ServerKey,
}

impl ScramKeys {
    /// Hashes a password (RFC 5802, section 3), SASLprep included. Takes about a millisecond for
    /// 4096 iterations.
    #[must_use]
    pub fn from_password(password: &str, salt: &[u8], iterations: Iterations) -> Self {
        Self::from_bytes(password.as_bytes(), salt, iterations)
    }

    /// The same for a password that may be no text.
    #[must_use]
    pub fn from_bytes(password: &[u8], salt: &[u8], iterations: Iterations) -> Self {
        let salted = salted_password(&saslprep::prepare_bytes(password), salt, iterations);
        Self {
            client_key: ClientKey(Secret(mac(&salted, &[b"Client Key"]))),
            server_key: ServerKey(Secret(mac(&salted, &[b"Server Key"]))),
        }
    }
}

impl ClientKey {
    /// The key that checks this one.
    #[must_use]
    pub fn stored_key(&self) -> StoredKey {
        StoredKey(Secret(Sha256::digest(self.0.0).into()))
    }

    /// `ClientProof` for an exchange.
    #[must_use]
    pub fn proof(&self, auth_message: &[&[u8]]) -> [u8; KEY_LEN] {
        xor(&self.0.0, &mac(&self.stored_key().0.0, auth_message))
    }
}

impl StoredKey {
    /// Checks a `ClientProof`, and gives the key that it was made with; `None` if it is wrong.
    #[must_use]
    pub fn recover(&self, auth_message: &[&[u8]], proof: &[u8; KEY_LEN]) -> Option<ClientKey> {
        let key = ClientKey(Secret(xor(proof, &mac(&self.0.0, auth_message))));
        (key.stored_key() == *self).then_some(key)
    }
}

impl ServerKey {
    /// `ServerSignature` for an exchange.
    #[must_use]
    pub(crate) fn signature(&self, auth_message: &[&[u8]]) -> Secret {
        Secret(mac(&self.0.0, auth_message))
    }
}

/// A stored verifier: `pg_authid.rolpassword` of a role with a SCRAM password.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    /// How often the password was hashed.
    pub iterations: Iterations,
    /// The salt; public.
    pub salt: Vec<u8>,
    /// Checks clients.
    pub stored_key: StoredKey,
    /// Proves us to clients.
    pub server_key: ServerKey,
}

/// The text is not `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, or its
/// iteration count or salt is out of range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a SCRAM-SHA-256 verifier of PostgreSQL's form")]
pub struct VerifierError;

impl Verifier {
    /// How the text of a verifier begins.
    pub const PREFIX: &str = "SCRAM-SHA-256$";

    /// Makes the verifier of a password.
    #[must_use]
    pub fn from_password(password: &str, salt: &[u8], iterations: Iterations) -> Self {
        let keys = ScramKeys::from_password(password, salt, iterations);
        Self {
            iterations,
            salt: salt.to_vec(),
            stored_key: keys.client_key.stored_key(),
            server_key: keys.server_key,
        }
    }

    /// Whether the keys are of the password that the verifier was made of.
    #[must_use]
    pub fn fits(&self, keys: &ScramKeys) -> bool {
        // PostgreSQL compares the server's key alone (`scram_verify_plain_password`); but it is the other
        // one that logs in to servers.
        let server = self.server_key == keys.server_key;
        let client = self.stored_key == keys.client_key.stored_key();
        server && client
    }

    /// A verifier that no password fits: its keys are zero.
    #[must_use]
    pub(crate) fn hollow(salt: &[u8], iterations: Iterations) -> Self {
        Self {
            iterations,
            salt: salt.to_vec(),
            stored_key: StoredKey(Secret([0; KEY_LEN])),
            server_key: ServerKey(Secret([0; KEY_LEN])),
        }
    }

    /// Reads the text that PostgreSQL stores (`parse_scram_secret`).
    ///
    /// # Errors
    /// It is not of that form. The error holds nothing of the text.
    pub fn parse(text: &str) -> Result<Self, VerifierError> {
        Self::read(text).ok_or(VerifierError)
    }

    fn read(text: &str) -> Option<Self> {
        let (head, keys) = text.strip_prefix(Self::PREFIX)?.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        Some(Self {
            iterations: Iterations::parse(iterations.as_bytes())?,
            salt: decode_salt(salt.as_bytes())?,
            stored_key: StoredKey(Secret(decode_key(stored_key.as_bytes())?)),
            server_key: ServerKey(Secret(decode_key(server_key.as_bytes())?)),
        })
    }

    /// The text that PostgreSQL stores. A method and not `Display`, so that it gets into no log.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!(
            "{}{}:{}${}:{}",
            Self::PREFIX,
            self.iterations.get(),
            BASE64.encode(&self.salt),
            BASE64.encode(self.stored_key.0.0),
            BASE64.encode(self.server_key.0.0),
        )
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(..)")
    }
}

/// Reads 32 bytes in base64.
pub(crate) fn decode_key(text: &[u8]) -> Option<[u8; KEY_LEN]> {
    BASE64.decode(text).ok()?.try_into().ok()
}

/// Reads a salt in base64: 1 to [`MAX_SALT`] bytes.
pub(crate) fn decode_salt(text: &[u8]) -> Option<Vec<u8>> {
    let salt = BASE64.decode(text).ok()?;
    (1..=MAX_SALT).contains(&salt.len()).then_some(salt)
}

/// `Hi()` of RFC 5802, section 2.2: PBKDF2 with one block of output.
fn salted_password(password: &[u8], salt: &[u8], iterations: Iterations) -> [u8; KEY_LEN] {
    let keyed = keyed(password);
    let round = |parts: &[&[u8]]| -> [u8; KEY_LEN] { finish(keyed.clone(), parts) };
    let mut last = round(&[salt, &1_u32.to_be_bytes()]);
    let mut sum = last;
    for _ in 1..iterations.get() {
        last = round(&[&last]);
        sum = xor(&sum, &last);
    }
    sum
}

/// HMAC-SHA-256 of the parts, one after the other.
pub(crate) fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; KEY_LEN] {
    finish(keyed(key), parts)
}

/// HMAC's key schedule (RFC 2104): a long key is hashed, a short one is padded with zeros.
/// Done here because the library's own way for keys of any length returns a `Result`.
fn keyed(key: &[u8]) -> Hmac<Sha256> {
    let mut block = [0; BLOCK];
    let hashed;
    let key = if key.len() > BLOCK {
        hashed = Sha256::digest(key);
        hashed.as_slice()
    } else {
        key
    };
    for (place, byte) in block.iter_mut().zip(key) {
        *place = *byte;
    }
    Hmac::new(&block.into())
}

fn finish(mut keyed: Hmac<Sha256>, parts: &[&[u8]]) -> [u8; KEY_LEN] {
    for part in parts {
        keyed.update(part);
    }
    keyed.finalize().into_bytes().into()
}

fn xor(a: &[u8; KEY_LEN], b: &[u8; KEY_LEN]) -> [u8; KEY_LEN] {
    std::array::from_fn(|i| a[i] ^ b[i])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `CREATE ROLE x LOGIN PASSWORD 'tide-gate é ①'` on PostgreSQL 15: holds a character that
    /// SASLprep changes.
    const POSTGRES: &str = "SCRAM-SHA-256$4096:9vNCqoohfG8ZCCqUoejW2Q==\
        $A9stynaq55CwPkzEZve/+LbfY5tJP540kjIK8cO4D2U=:tet0MbvWIuysOVEc/kgr+2Ey+g4bmJnakZ8eOp9xLZ0=";

    #[test]
    fn a_verifier_of_postgres_is_what_we_make_of_its_password() {
        let verifier = Verifier::parse(POSTGRES).unwrap();
        assert_eq!(verifier.to_text(), POSTGRES);
        let ours =
            |password| Verifier::from_password(password, &verifier.salt, verifier.iterations) == verifier;
        assert!(ours("tide-gate é ①"));
        assert!(ours("tide-gate é 1"));
        assert!(!ours("tide-gate e 1"));
    }

    #[test]
    fn keys_longer_than_a_block_are_hashed() {
        // RFC 4231, test cases 2 and 6.
        let hex = |bytes: [u8; KEY_LEN]| bytes.map(|b| format!("{b:02x}")).concat();
        assert_eq!(
            hex(mac(b"Jefe", &[b"what do ya want ", b"for nothing?"])),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            hex(mac(&[0xaa; 131], &[b"Test Using Larger Than Block-Size Key - Hash Key First"])),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    #[test]
    fn what_is_not_a_verifier_is_refused() {
        let good = |iterations: &str, salt: &str| {
            let keys = POSTGRES.rsplit('$').next().unwrap();
            Verifier::parse(&format!("SCRAM-SHA-256${iterations}:{salt}${keys}"))
        };
        assert!(good("1", "AAAA").is_ok());
        assert!(good("1000000", "AAAA").is_ok());
        for iterations in ["", "0", "1000001", "-1", "+1", "1 ", "99999999999999999999"] {
            assert!(good(iterations, "AAAA").is_err(), "{iterations}");
        }
        for salt in ["", "A", "AAA*", &"A".repeat(1400)] {
            assert!(good("1", salt).is_err(), "{salt}");
        }
        for end in 0..POSTGRES.len() {
            assert!(Verifier::parse(&POSTGRES[..end]).is_err());
        }
        assert!(Verifier::parse(&format!("{POSTGRES}A")).is_err());
    }

    #[test]
    fn debug_shows_nothing() {
        let verifier = Verifier::parse(POSTGRES).unwrap();
        assert_eq!(format!("{verifier:?}"), "Verifier(..)");
        let keys = ScramKeys::from_password("hush", b"salt", Iterations(1));
        assert_eq!(format!("{keys:?}"), "ScramKeys { client_key: ClientKey(..), server_key: ServerKey(..) }");
    }

    proptest! {
        #[test]
        fn text_and_verifier_are_the_same_thing(
            password: String, salt in proptest::collection::vec(any::<u8>(), 1..40), count in 1_u32..9,
        ) {
            let verifier = Verifier::from_password(&password, &salt, Iterations(count));
            prop_assert_eq!(Verifier::parse(&verifier.to_text()), Ok(verifier));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "(SCRAM-SHA-256\\$)?[0-9:$=+/A-Za-zé]{0,60}") {
            let _ = Verifier::parse(&text);
        }
    }
}
