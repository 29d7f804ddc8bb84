//! What we log in to a node with.

use std::fmt;

use super::scram::key::ScramKeys;

/// A secret that opens a PostgreSQL server for one user.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// The clear password: good for every method.
    Password(String),
    /// Keys recovered from a client's own SCRAM login: good for SCRAM only, and only where the
    /// server holds the same verifier (salt and iterations included) as our configuration.
    ScramKeys(ScramKeys),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Password(..)",
            Self::ScramKeys(_) => "ScramKeys(..)",
        })
    }
}
