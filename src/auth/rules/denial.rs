//! How a client is told that no rule lets it in: PostgreSQL's words (`ClientAuthentication` and
//! `auth_failed` in src/backend/libpq/auth.c).

use super::rule::{Applicant, RuleMethod};
use crate::wire::build::Report;
use crate::wire::sqlstate;

/// Why an applicant does not come in, whatever its password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// No rule fits.
    NoEntry,
    /// The rule that fits says `reject`.
    Rejected,
    /// The rule asks for a client certificate, and there is none.
    NoCertificate,
    /// The certificate does not name the user; the method of the rule that asks for it.
    Certificate(RuleMethod),
}

impl Denial {
    /// The FATAL ErrorResponse to end the connection with.
    #[must_use]
    pub fn report(self, applicant: &Applicant<'_>) -> Report {
        let user = applicant.user;
        let (sqlstate, message) = match self {
            Self::NoEntry if applicant.replication => (
                sqlstate::INVALID_AUTHORIZATION,
                format!("no pg_hba.conf entry for replication connection from {}", whence(applicant)),
            ),
            Self::NoEntry => {
                (sqlstate::INVALID_AUTHORIZATION, format!("no pg_hba.conf entry for {}", whence(applicant)))
            }
            Self::Rejected if applicant.replication => (
                sqlstate::INVALID_AUTHORIZATION,
                format!("pg_hba.conf rejects replication connection for {}", whence(applicant)),
            ),
            Self::Rejected => (
                sqlstate::INVALID_AUTHORIZATION,
                format!("pg_hba.conf rejects connection for {}", whence(applicant)),
            ),
            Self::NoCertificate => {
                (sqlstate::INVALID_AUTHORIZATION, "connection requires a valid client certificate".to_owned())
            }
            Self::Certificate(method) => failed(method, user),
        };
        Report::fatal(sqlstate, message)
    }
}

/// `host "...", user "...", database "...", no encryption`; without the database for replication.
fn whence(applicant: &Applicant<'_>) -> String {
    let Applicant { user, database, .. } = applicant;
    let host = applicant.address.to_canonical();
    let encryption = if applicant.tls { "SSL encryption" } else { "no encryption" };
    if applicant.replication {
        format!("host \"{host}\", user \"{user}\", {encryption}")
    } else {
        format!("host \"{host}\", user \"{user}\", database \"{database}\", {encryption}")
    }
}

/// PostgreSQL goes by the method, even where it is the certificate beside it that is wrong.
fn failed(method: RuleMethod, user: &str) -> (&'static str, String) {
    let (sqlstate, what) = match method {
        RuleMethod::Cert => (sqlstate::INVALID_AUTHORIZATION, "certificate"),
        RuleMethod::Trust => (sqlstate::INVALID_AUTHORIZATION, "\"trust\""),
        RuleMethod::Scram | RuleMethod::Md5 | RuleMethod::Password => {
            (sqlstate::INVALID_PASSWORD, "password")
        }
        RuleMethod::Reject => {
            let message = format!("authentication failed for user \"{user}\": host rejected");
            return (sqlstate::INVALID_AUTHORIZATION, message);
        }
    };
    (sqlstate, format!("{what} authentication failed for user \"{user}\""))
}
