//! Streams, their buffers, and listeners.

pub mod buffers;
pub mod listen;
pub mod stream;

pub use buffers::Buffers;
pub use stream::{Stream, invalid_data};
