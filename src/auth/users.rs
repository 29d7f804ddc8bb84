//! Who may log in, and with what.

use std::collections::HashMap;
use std::fmt;

use super::Credential;
use super::scram::key::{Iterations, SALT_LEN, Verifier};
use super::scram::message::Nonce;
use super::scram::server::{MockSecret, ServerExchange};

/// The configured users. Immutable: a reload makes a new one.
pub struct Users {
    by_name: HashMap<String, User>,
    mock: MockSecret,
}

/// One user's secret.
#[derive(Clone)]
pub struct User {
    verifier: Verifier,
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
    /// The secret is an md5 hash, which cannot answer for SCRAM.
    #[error("user {name:?}: the secret is an md5 hash; give the clear password or a SCRAM-SHA-256 verifier")]
    Md5 {
        /// The user's name.
        name: String,
    },
}

impl Users {
    /// Makes the list from `(name, secret)`, where a secret is a clear password or the text of a
    /// verifier (`pg_authid.rolpassword`). `random` fills its argument with random bytes: the salts
    /// of clear passwords, and the secret behind the salts of unknown users. A clear password costs
    /// about a millisecond.
    ///
    /// # Errors
    /// A name or secret is unusable, or a name occurs twice.
    pub fn new<N: Into<String>, S: Into<String>>(
        entries: impl IntoIterator<Item = (N, S)>,
        mut random: impl FnMut(&mut [u8]),
    ) -> Result<Self, UsersError> {
        let mut secret = [0; 32];
        random(&mut secret);
        let mut by_name = HashMap::new();
        for (name, secret) in entries {
            let name = name.into();
            if name.is_empty() || name.contains('\0') {
                return Err(UsersError::Name { name });
            }
            if by_name.contains_key(&name) {
                return Err(UsersError::Twice { name });
            }
            let user = User::new(&name, secret.into(), &mut random)?;
            by_name.insert(name, user);
        }
        Ok(Self { by_name, mock: MockSecret::new(secret) })
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

    /// Starts an exchange that proves who the client is; one that always fails if there is no such user.
    pub(super) fn exchange(&self, name: &str, nonce: Nonce) -> ServerExchange {
        match self.get(name) {
            Some(user) => ServerExchange::new(&user.verifier, nonce),
            None => ServerExchange::mock(&self.mock, name, nonce),
        }
    }
}

impl User {
    fn new(name: &str, secret: String, random: &mut impl FnMut(&mut [u8])) -> Result<Self, UsersError> {
        let name = || name.to_owned();
        if secret.is_empty() || secret.contains('\0') {
            return Err(UsersError::Secret { name: name() });
        }
        if is_md5(&secret) {
            return Err(UsersError::Md5 { name: name() });
        }
        if secret.starts_with(Verifier::PREFIX) {
            let verifier = Verifier::parse(&secret).map_err(|_| UsersError::Verifier { name: name() })?;
            return Ok(Self { verifier, password: None });
        }
        let mut salt = [0; SALT_LEN];
        random(&mut salt);
        Ok(Self {
            verifier: Verifier::from_password(&secret, &salt, Iterations::default()),
            password: Some(secret),
        })
    }

    /// What checks this user's logins.
    #[must_use]
    pub const fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// The clear password as a credential, if the configuration has it.
    #[must_use]
    pub fn password(&self) -> Option<Credential> {
        self.password.clone().map(Credential::Password)
    }
}

/// PostgreSQL's `get_password_type`: `md5` and 32 hexadecimal digits.
fn is_md5(secret: &str) -> bool {
    secret
        .strip_prefix("md5")
        .is_some_and(|hex| hex.len() == 32 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
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
        let mut next = 0;
        Users::new(entries.iter().copied(), |bytes: &mut [u8]| {
            for byte in bytes {
                *byte = next;
                next = next.wrapping_add(1);
            }
        })
    }

    #[test]
    fn a_secret_is_a_password_or_a_verifier() {
        let text = Verifier::from_password("b", b"salt", Iterations::default()).to_text();
        let users = make(&[("anna", "a"), ("bert", &text), ("carl", "a")]).unwrap();
        assert_eq!(users.len(), 3);
        let anna = users.get("anna").unwrap();
        assert_eq!(anna.password(), Some(Credential::Password("a".to_owned())));
        let bert = users.get("bert").unwrap();
        assert_eq!(bert.password(), None);
        assert_eq!(bert.verifier().to_text(), text);
        // Salts differ, so that equal passwords do not show.
        assert_ne!(anna.verifier(), users.get("carl").unwrap().verifier());
        assert!(users.get("dora").is_none());
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
            (vec![("x", "md5b52328d7451bfeace80c4b8c338106f9")], UsersError::Md5 { name: of("x") }),
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
