//! One connection to PostgreSQL: dial, log in, cancel.

pub mod cancel;
pub mod connection;
pub mod dial;
pub mod login;
pub mod parameters;

pub use connection::Connection;
pub use dial::{DialError, dial};
pub use parameters::Parameters;
