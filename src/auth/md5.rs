//! PostgreSQL's md5 login, for clusters that still have such passwords (src/common/md5_common.c).

use std::fmt::{self, Write as _};

use md5::{Digest, Md5};
use subtle::ConstantTimeEq as _;

/// Hexadecimal digits of a hash.
const DIGITS: usize = 32;

/// What PostgreSQL stores for such a password: `md5(password + user)`. It is as good as the password
/// itself to whoever wants in by md5. Compared in constant time, never shown.
#[derive(Clone)]
pub struct Md5Hash(String);

impl Md5Hash {
    /// Reads `pg_authid.rolpassword`: `md5` and 32 hexadecimal digits in lower case (`get_password_type`).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("md5")?;
        let good = digits.len() == DIGITS && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        good.then(|| Self(digits.to_owned()))
    }

    /// Hashes a password (`pg_md5_encrypt` with the user's name as salt).
    #[must_use]
    pub fn of(user: &str, password: &[u8]) -> Self {
        Self(hex(&[password, user.as_bytes()]))
    }

    /// The text that answers AuthenticationMD5Password: `md5` and the hex of `md5(hash + salt)`.
    #[must_use]
    pub fn response(&self, salt: [u8; 4]) -> String {
        format!("md5{}", hex(&[self.0.as_bytes(), &salt]))
    }

    /// Whether that is the answer (`md5_crypt_verify`).
    #[must_use]
    pub fn accepts(&self, salt: [u8; 4], answer: &[u8]) -> bool {
        self.response(salt).as_bytes().ct_eq(answer).into()
    }
}

impl PartialEq for Md5Hash {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Md5Hash {}

impl fmt::Debug for Md5Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Md5Hash(..)")
    }
}

fn hex(parts: &[&[u8]]) -> String {
    let mut hash = Md5::new();
    for part in parts {
        hash.update(part);
    }
    let mut text = String::with_capacity(DIGITS);
    for byte in hash.finalize() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ALTER ROLE m PASSWORD 'secret'` with password_encryption = md5 on PostgreSQL 15.
    const POSTGRES: &str = "md5b52328d7451bfeace80c4b8c338106f9";

    #[test]
    fn the_hash_of_a_password_is_what_postgres_stores() {
        assert_eq!(Md5Hash::parse(POSTGRES), Some(Md5Hash::of("m", b"secret")));
        assert_ne!(Md5Hash::of("m", b"secret"), Md5Hash::of("n", b"secret"));
    }

    #[test]
    fn the_salt_counts() {
        let hash = Md5Hash::of("m", b"secret");
        let answer = hash.response([1, 2, 3, 4]);
        assert_eq!(answer.len(), 35);
        assert!(answer.starts_with("md5"));
        assert!(hash.accepts([1, 2, 3, 4], answer.as_bytes()));
        assert!(!hash.accepts([1, 2, 3, 5], answer.as_bytes()));
        for wrong in [&b""[..], b"secret", POSTGRES.as_bytes(), &answer.as_bytes()[..34]] {
            assert!(!hash.accepts([1, 2, 3, 4], wrong));
        }
    }

    #[test]
    fn what_is_no_hash_is_refused_and_none_is_shown() {
        for text in ["", "md5", &POSTGRES[..34], &format!("{POSTGRES}0"), &POSTGRES.to_uppercase()] {
            assert_eq!(Md5Hash::parse(text), None, "{text}");
        }
        assert_eq!(Md5Hash::parse("md5g52328d7451bfeace80c4b8c338106f9"), None);
        assert_eq!(format!("{:?}", Md5Hash::parse(POSTGRES)), "Some(Md5Hash(..))");
    }
}
