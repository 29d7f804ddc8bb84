//! Streams, their buffers, and listeners.

pub mod alarm;
pub mod buffers;
pub mod executor;
pub mod free;
pub mod listen;
mod outbox;
#[cfg(test)]
mod outbox_tests;
mod reactor;
#[cfg_attr(not(target_os = "linux"), path = "no_ring.rs")]
mod ring;
pub mod runtime;
pub mod socket;
mod source;
pub mod stream;
pub mod timers;
pub mod tls;
pub mod unblock;

pub use alarm::Alarm;
pub use buffers::Buffers;
pub use executor::{run, spawn, yield_now};
pub use ring::Ring;
pub use runtime::local_runtime;
pub use stream::{Released, Stream, invalid_data};
pub use timers::Timers;
pub use tls::connect::Way;
pub use tls::{Acceptor, Certificate, Connector, TlsError};

/// The way to each node, by its number.
pub type Connectors = std::sync::Arc<[Connector]>;
