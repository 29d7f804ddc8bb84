//! Polls the nodes and publishes the topology.
//!
//! [`polls`] is what workers and the monitor share, [`watch`] the loop per node, `pace` its pauses, [`probe`] its connection
//! and its SQL, [`answer`] what comes back on that, [`catalogs`] what is known of each database's names, [`published`]
//! how others read all that. [`verifiers`] answers logins that ask for a role: `lookup` keeps a connection for that,
//! `role_query` has its SQL; [`login`] is for all that is no poll.

pub mod answer;
pub mod catalogs;
pub mod clock;
pub mod login;
mod lookup;
mod pace;
pub mod polls;
pub mod probe;
pub mod published;
mod role_query;
pub mod verifiers;
pub mod watch;

pub use catalogs::{CatalogCell, Catalogs};
pub use clock::Clock;
pub use polls::{Polls, PollsHandle};
pub use published::{Latest, Published, Snapshot};
pub use verifiers::{LookupError, Verifiers};
pub use watch::{Monitor, Watch};
