//! PostgreSQL's md5 login, for nodes that still ask for it.

use std::fmt::Write as _;

use md5::{Digest, Md5};

/// The text that answers AuthenticationMD5Password: `md5` and the hex of
/// `md5(hex(md5(password + user)) + salt)` (PostgreSQL: `pg_md5_encrypt`, src/common/md5_common.c).
#[must_use]
pub fn response(user: &str, password: &str, salt: [u8; 4]) -> String {
    let stored = hex(&[password.as_bytes(), user.as_bytes()]);
    format!("md5{}", hex(&[stored.as_bytes(), &salt]))
}

fn hex(parts: &[&[u8]]) -> String {
    let mut hash = Md5::new();
    for part in parts {
        hash.update(part);
    }
    let mut text = String::with_capacity(32);
    for byte in hash.finalize() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inner_hash_is_what_postgres_stores() {
        // `ALTER ROLE m PASSWORD 'secret'` with password_encryption = md5 on PostgreSQL 15.
        assert_eq!(hex(&[b"secret", b"m"]), "b52328d7451bfeace80c4b8c338106f9");
    }

    #[test]
    fn the_salt_counts() {
        let one = response("m", "secret", [1, 2, 3, 4]);
        assert_eq!(one.len(), 35);
        assert!(one.starts_with("md5"));
        assert_ne!(one, response("m", "secret", [1, 2, 3, 5]));
    }
}
