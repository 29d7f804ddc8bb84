//! What we log in to a node with.

use std::fmt;

use super::md5::Md5Hash;
use super::scram::key::ScramKeys;

/// A secret that opens a PostgreSQL server for one user.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// The clear password: good for every method.
    Password(String),
    /// Keys recovered from a client's own login: good for SCRAM only, and only where the
    /// server holds the same verifier (salt and iterations included) as the login was checked by.
    ScramKeys(ScramKeys),
    /// The hash that a server stores of the password: good for md5 only.
    Md5(Md5Hash),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Password(..)",
            Self::ScramKeys(_) => "ScramKeys(..)",
            Self::Md5(_) => "Md5(..)",
        })
    }
}
