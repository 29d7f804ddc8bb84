//! Polls the nodes and publishes the topology.
//!
//! [`polls`] is what workers and the monitor share, [`watch`] the loop per node, [`probe`] its SQL,
//! [`catalogs`] what is known of each database's names, [`published`] how others read all that.

pub mod catalogs;
pub mod clock;
pub mod login;
pub mod polls;
pub mod probe;
pub mod published;
pub mod watch;

pub use catalogs::{CatalogCell, Catalogs};
pub use clock::Clock;
pub use polls::{Polls, PollsHandle, Waiting};
pub use published::{Latest, Published, Snapshot};
pub use watch::Monitor;
