//! SCRAM-SHA-256 (RFC 5802, RFC 7677) in PostgreSQL's profile (src/backend/libpq/auth-scram.c):
//! the user name comes from the startup packet, and a password that SASLprep refuses is used
//! as it is. Channel binding is not offered, as we have no TLS yet.
//!
//! Reading order: [`key`] (what a password turns into), [`message`] (the four messages), then
//! [`server`] (a client proves itself to us) and [`client`] (we prove ourselves to a node).

pub mod saslprep;
pub mod key;
pub mod message;
pub mod server;
pub mod client;

#[cfg(test)]
mod tests;

/// The mechanism's name in AuthenticationSASL and SASLInitialResponse.
pub const MECHANISM: &str = "SCRAM-SHA-256";
