//! What a database stores of a role's password.

use super::md5::Md5Hash;
use super::scram::key::Verifier;

/// `pg_authid.rolpassword`, read (PostgreSQL: `get_password_type`, src/backend/libpq/crypt.c).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stored {
    /// A SCRAM-SHA-256 verifier.
    Scram(Verifier),
    /// An md5 hash.
    Md5(Md5Hash),
    /// No password, or no such role: every login with a password fails, as slowly as any other.
    #[default]
    Nothing,
}

impl Stored {
    /// Reads the column. What is neither a verifier nor a hash counts as nothing: PostgreSQL stores no
    /// clear passwords. So does a verifier with more than [`Iterations::MAX`] iterations.
    ///
    /// [`Iterations::MAX`]: super::scram::key::Iterations::MAX
    #[must_use]
    pub fn parse(rolpassword: Option<&str>) -> Self {
        let Some(text) = rolpassword else { return Self::Nothing };
        match (Md5Hash::parse(text), Verifier::parse(text)) {
            (Some(hash), _) => Self::Md5(hash),
            (None, Ok(verifier)) => Self::Scram(verifier),
            (None, Err(_)) => Self::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::scram::key::Iterations;

    #[test]
    fn the_column_is_read_as_postgres_reads_it() {
        let verifier = Verifier::from_password("a", b"salt", Iterations::new(1).unwrap());
        assert_eq!(Stored::parse(Some(&verifier.to_text())), Stored::Scram(verifier));
        let hash = Md5Hash::of("m", b"secret");
        assert_eq!(Stored::parse(Some("md5b52328d7451bfeace80c4b8c338106f9")), Stored::Md5(hash));
        let nothing =
            ["", "secret", "md5", "SCRAM-SHA-256$4096:AAAA$", "md5B52328D7451BFEACE80C4B8C338106F9"];
        for text in nothing {
            assert_eq!(Stored::parse(Some(text)), Stored::Nothing, "{text}");
        }
        assert_eq!(Stored::parse(None), Stored::Nothing);
    }

    #[test]
    fn debug_shows_the_kind_and_no_secret() {
        let shown = |text: &str| format!("{:?}", Stored::parse(Some(text)));
        assert_eq!(shown("md5b52328d7451bfeace80c4b8c338106f9"), "Md5(Md5Hash(..))");
        let verifier = Verifier::from_password("a", b"salt", Iterations::new(1).unwrap());
        assert_eq!(shown(&verifier.to_text()), "Scram(Verifier(..))");
        assert_eq!(shown("hush"), "Nothing");
    }
}
