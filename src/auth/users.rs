//! Who may log in, and with what.

use std::collections::HashMap;
use std::fmt;

use super::md5::Md5Hash;
use super::scram::key::{Iterations, Verifier};
use super::scram::server::MockSecret;
use super::{Credential, Stored};

/// The configured users. Immutable: a reload makes a new one.
pub struct Users {
    by_name: HashMap<String, User>,
    mock: MockSecret,
}

/// What a user's logins are checked by, wherever we have it from. The default is nobody's.
#[derive(Clone, Default)]
pub struct User {
    stored: Stored,
    /// Kept only where the configuration has it: servers may ask for it.
    password: Option<String>,
}

/// What is wrong with a configured user. Names the user, never the secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsersError {
    /// The name is empty or holds a zero byte.
    #[error("user {name:?}: a user's name must not be empty or hold a zero byte")]
    Name {
        /// The name.
        name: String,
    },
    /// The name occurs twice.
    #[error("user {name:?} is there twice")]
    Twice {
        /// The name.
        name: String,
    },
    /// The secret is empty or holds a zero byte: PostgreSQL takes no such password.
    #[error("user {name:?}: the secret must not be empty or hold a zero byte")]
    Secret {
        /// The user's name.
        name: String,
    },
    /// The secret starts like a verifier, but is none.
    #[error("user {name:?}: the secret starts with SCRAM-SHA-256$ but is not a whole verifier")]
    Verifier {
        /// The user's name.
        name: String,
    },
}

impl Users {
    /// Makes the list from `(name, secret)`, where a secret is a clear password, or the text of a
    /// verifier or an md5 hash (`pg_authid.rolpassword`). The salts of clear passwords come from `mock`, as those of
    /// unknown users do, so that neither shows by changing at a reload. A clear password costs about a millisecond.
    ///
    /// # Errors
    /// A name or secret is unusable, or a name occurs twice.
    pub fn new<N: Into<String>, S: Into<String>>(
        entries: impl IntoIterator<Item = (N, S)>,
        mock: MockSecret,
    ) -> Result<Self, UsersError> {
        let mut by_name = HashMap::new();
        for (name, secret) in entries {
            let name = name.into();
            if name.is_empty() || name.contains('\0') {
                return Err(UsersError::Name { name });
            }
            if by_name.contains_key(&name) {
                return Err(UsersError::Twice { name });
            }
            let user = User::new(&name, secret.into(), &mock)?;
            by_name.insert(name, user);
        }
        Ok(Self { by_name, mock })
    }

    /// The user of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&User> {
        self.by_name.get(name)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// What the salts of unknown users are made of.
    #[must_use]
    pub const fn mock(&self) -> &MockSecret {
        &self.mock
    }
}

impl User {
    fn new(user: &str, secret: String, mock: &MockSecret) -> Result<Self, UsersError> {
        let name = || user.to_owned();
        if secret.is_empty() || secret.contains('\0') {
            return Err(UsersError::Secret { name: name() });
        }
        if let Some(hash) = Md5Hash::parse(&secret) {
            return Ok(Self::from_stored(Stored::Md5(hash)));
        }
        if secret.starts_with(Verifier::PREFIX) {
            let verifier = Verifier::parse(&secret).map_err(|_| UsersError::Verifier { name: name() })?;
            return Ok(Self::from_stored(Stored::Scram(verifier)));
        }
        let verifier = Verifier::from_password(&secret, &mock.salt(user), Iterations::default());
        Ok(Self { stored: Stored::Scram(verifier), password: Some(secret) })
    }

    /// A user of whom a database has told what it stores.
    #[must_use]
    pub const fn from_stored(stored: Stored) -> Self {
        Self { stored, password: None }
    }

    /// What checks this user's logins.
    #[must_use]
    pub const fn stored(&self) -> &Stored {
        &self.stored
    }

    /// The clear password as a credential, if the configuration has it.
    #[must_use]
    pub fn password(&self) -> Option<Credential> {
        self.password.clone().map(Credential::Password)
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Users({})", self.by_name.len())
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("User(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(entries: &[(&str, &str)]) -> Result<Users, UsersError> {
        Users::new(entries.iter().copied(), MockSecret::new([7; 32]))
    }

    #[test]
    fn a_secret_is_a_password_or_a_verifier_or_a_hash() {
        let text = Verifier::from_password("b", b"salt", Iterations::default()).to_text();
        let md5 = "md5b52328d7451bfeace80c4b8c338106f9";
        let users = make(&[("anna", "a"), ("bert", &text), ("carl", "a"), ("dora", md5)]).unwrap();
        assert_eq!(users.len(), 4);
        let anna = users.get("anna").unwrap();
        assert_eq!(anna.password(), Some(Credential::Password("a".to_owned())));
        let bert = users.get("bert").unwrap();
        assert_eq!(bert.password(), None);
        assert_eq!(*bert.stored(), Stored::parse(Some(&text)));
        // Salts differ, so that equal passwords do not show.
        assert!(matches!(anna.stored(), Stored::Scram(_)));
        assert_ne!(anna.stored(), users.get("carl").unwrap().stored());
        let dora = users.get("dora").unwrap();
        assert_eq!(dora.password(), None);
        assert_eq!(*dora.stored(), Stored::Md5(Md5Hash::of("m", b"secret")));
        assert!(users.get("emil").is_none());
    }

    #[test]
    fn unusable_entries_are_named() {
        let text = Verifier::from_password("b", b"salt", Iterations::default()).to_text();
        let cut = &text[..text.len() - 1];
        let of = |name: &str| name.to_owned();
        for (entries, wanted) in [
            (vec![("", "a")], UsersError::Name { name: of("") }),
            (vec![("x\0", "a")], UsersError::Name { name: of("x\0") }),
            (vec![("x", "")], UsersError::Secret { name: of("x") }),
            (vec![("x", "a\0")], UsersError::Secret { name: of("x") }),
            (vec![("x", cut)], UsersError::Verifier { name: of("x") }),
            (vec![("x", "a"), ("x", "b")], UsersError::Twice { name: of("x") }),
        ] {
            assert_eq!(make(&entries).unwrap_err(), wanted);
        }
        assert!(make(&[("x", "md5")]).is_ok());
    }

    #[test]
    fn debug_and_errors_show_no_secret() {
        let users = make(&[("anna", "hush")]).unwrap();
        let shown = format!("{users:?} {:?} {:?}", users.get("anna"), users.mock);
        assert_eq!(shown, "Users(1) Some(User(..)) MockSecret(..)");
        let error = make(&[("anna", "SCRAM-SHA-256$hush")]).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hush"));
    }
}
