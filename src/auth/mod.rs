//! Login: which rule a client falls under, and both logins as state machines over messages.
//!
//! Two logins meet here. The [`rules`] say how a client has to log in to us, and [`client_login`] does
//! it against what is [`stored`] of its user, in the configuration ([`users`]) or in the database; what
//! that leaves behind is a [`Credential`], with which we log in to the nodes on the client's behalf
//! ([`server_login`]). Below both lies [`scram`], and [`mod@md5`] for old passwords. Nothing here does I/O
//! or makes random bytes: messages, nonces and salts come in, messages, verdicts and passwords to be
//! hashed go out, and each step consumes the state that it starts from, so that a message cannot be
//! replayed into it.
//!
//! Reading order: [`credential`], [`scram`], [`stored`], [`users`], [`rules`], [`ident`],
//! [`client_login`], [`server_login`].
//!
//! Who stands in no configuration is asked for in the database: [`role_secret`] is what it says, [`verifier_cache`]
//! how long that is believed, [`query_line`] how often it is asked.
//!
//! No secret appears in any `Debug` or error. Secrets are not wiped from memory when dropped.

pub mod credential;
pub mod scram;
pub mod md5;
pub mod stored;
pub mod users;
pub mod rules;
pub mod ident;
pub mod error;
pub mod client_login;
pub mod server_login;
pub mod role_secret;
pub mod verifier_cache;
pub mod query_line;

#[cfg(test)]
mod method_tests;
#[cfg(test)]
mod tests;

pub use client_login::{Claimant, ClientLogin, ClientStep, LoggedIn, Method, Random, Start};
pub use credential::Credential;
pub use error::AuthError;
pub use ident::IdentMaps;
pub use query_line::QueryLine;
pub use role_secret::RoleSecret;
pub use rules::{Applicant, ClientCert, Denial, LineError, Rule, RuleMethod, Rules, Transport};
pub use scram::binding::{Channel, EndPoint};
pub use scram::hash::{HashJob, Hashed};
pub use scram::message::Nonce;
pub use scram::server::MockSecret;
pub use server_login::{BackendKey, LoginError, ServerLogin, ServerReady, Step};
pub use stored::Stored;
pub use users::{User, Users, UsersError};
pub use verifier_cache::VerifierCache;
