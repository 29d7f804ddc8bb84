//! Login as state machines over messages: SCRAM-SHA-256 on both sides, md5, users.
//!
//! Two logins meet here. A client logs in to us ([`client_login`]) against the configured
//! [`users`]; what that leaves behind is a [`Credential`], with which we log in to the nodes
//! on the client's behalf ([`server_login`]). Below both lies [`scram`], and [`md5`] for old
//! nodes. Nothing here does I/O or makes random bytes: messages, nonces and salts come in,
//! messages and verdicts go out, and each step consumes the state that it starts from, so that
//! a message cannot be replayed into it.
//!
//! Reading order: [`credential`], [`scram`], [`users`], [`client_login`], [`server_login`].
//!
//! Who stands in no configuration is asked for in the database: [`role_secret`] is what it says, [`verifier_cache`]
//! how long that is believed, [`query_line`] how often it is asked.
//!
//! No secret appears in any `Debug` or error. Secrets are not wiped from memory when dropped.

pub mod credential;
pub mod scram;
pub mod md5;
pub mod users;
pub mod client_login;
pub mod server_login;
pub mod role_secret;
pub mod verifier_cache;
pub mod query_line;

#[cfg(test)]
mod tests;

pub use client_login::{AuthError, ClientLogin, ClientStep, LoggedIn, Method, Start};
pub use credential::Credential;
pub use query_line::QueryLine;
pub use role_secret::RoleSecret;
pub use scram::message::Nonce;
pub use server_login::{BackendKey, LoginError, ServerLogin, ServerReady, Step};
pub use users::{Users, UsersError};
pub use verifier_cache::VerifierCache;
