//! Why a client's login fails, in PostgreSQL's words.

use super::scram::message::ScramError;
use crate::wire::build::Report;
use crate::wire::sqlstate;

/// Why a login fails. Its texts are PostgreSQL's own, and hold no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The startup packet names no user.
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUser,
    /// Wrong password, or no such user: the client cannot tell which.
    #[error("password authentication failed for user \"{user}\"")]
    Password {
        /// The name from the startup packet.
        user: String,
    },
    /// A message of another type than the login needs.
    #[error("expected {expected} response, got message type {tag}")]
    UnexpectedMessage {
        /// `SASL` or `password`.
        expected: &'static str,
        /// Its type byte.
        tag: u8,
    },
    /// The client picked a mechanism that was not offered.
    #[error("client selected an invalid SASL authentication mechanism")]
    Mechanism,
    /// The message's body is not of the protocol's form, or is longer than the login's limit.
    #[error("invalid message format")]
    Format,
    /// A password does not end where its message does, or is longer than the login's limit.
    #[error("invalid password packet size")]
    PasswordSize,
    /// The client sent no password: it could open nothing, but servers behind us might think otherwise.
    #[error("empty password returned by client")]
    EmptyPassword,
    /// SCRAM's own errors, other than a wrong proof.
    #[error(transparent)]
    Scram(ScramError),
    /// The login is over, well or not; nothing more is taken.
    #[error("the login is over")]
    Over,
}

impl AuthError {
    /// The SQLSTATE that PostgreSQL would send.
    #[must_use]
    pub const fn sqlstate(&self) -> &'static str {
        match self {
            Self::NoUser | Self::Scram(ScramError::Downgrade | ScramError::BindingCheck) => {
                sqlstate::INVALID_AUTHORIZATION
            }
            Self::Password { .. } | Self::EmptyPassword => sqlstate::INVALID_PASSWORD,
            Self::Scram(ScramError::Unsupported(_)) => sqlstate::FEATURE_NOT_SUPPORTED,
            Self::UnexpectedMessage { .. }
            | Self::Mechanism
            | Self::Format
            | Self::PasswordSize
            | Self::Scram(_)
            | Self::Over => sqlstate::PROTOCOL_VIOLATION,
        }
    }

    /// The FATAL ErrorResponse to end the connection with.
    #[must_use]
    pub fn report(&self) -> Report {
        let (message, detail) = match self {
            Self::Scram(error) => error.told(),
            other => (other.to_string(), None),
        };
        let report = Report::fatal(self.sqlstate(), message);
        match detail {
            Some(detail) => report.detail(detail),
            None => report,
        }
    }
}
