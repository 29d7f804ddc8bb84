//! SCRAM-SHA-256 (RFC 5802, RFC 7677) in PostgreSQL's profile (src/backend/libpq/auth-scram.c):
//! the user name comes from the startup packet, and a password that SASLprep refuses is used
//! as it is. With TLS there is channel binding: SCRAM-SHA-256-PLUS.
//!
//! Reading order: [`key`] (what a password turns into), [`mod@hash`] (the work of it), [`binding`] (what
//! ties a login to its TLS connection), [`message`] (the four messages), then
//! [`server`] (a client proves itself to us) and [`client`] (we prove ourselves to a node).

pub mod saslprep;
pub mod key;
pub mod hash;
pub mod binding;
pub mod message;
pub mod server;
pub mod client;

#[cfg(test)]
mod tests;

/// The mechanism's name in AuthenticationSASL and SASLInitialResponse.
pub const MECHANISM: &str = "SCRAM-SHA-256";

/// The same with channel binding.
pub const MECHANISM_PLUS: &str = "SCRAM-SHA-256-PLUS";
