//! Server connections of one worker, who waits for them, and the limits that all workers share.
//!
//! [`limits`] counts connections per node over all workers; [`pools`] holds one worker's idle ones and
//! its queue; [`lease`] is what a client gets; [`refusals`] knows which standbys have just given
//! whom no connection.

pub mod lease;
pub mod limits;
pub mod pools;
pub mod refusals;

pub use lease::{Lease, Seat};
pub use limits::{Limits, Permit};
pub use pools::{Identity, Member, PoolKey, Pools};
pub use refusals::{Refusals, Refused};
