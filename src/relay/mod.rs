//! Moves frames between a client and its lease, as the session says.
//!
//! [`exchange`] runs one unit; [`downstream`] goes through what the server says, [`upstream`] through
//! what the client adds to a unit that is under way.

pub mod downstream;
mod drain;
pub mod exchange;
pub mod heal;
mod intake;
pub mod outcome;
pub mod plan;
pub mod settle;
pub mod upstream;

pub use downstream::own_notification;
pub use drain::drain;
pub use exchange::Exchange;
pub use outcome::{Broken, Farewell, Outcome, Reached};
pub use plan::{Asks, Plan};
pub use settle::{SettleError, begin, describe, fail_transaction, forget, owns, reveal, settle, what_binds};
