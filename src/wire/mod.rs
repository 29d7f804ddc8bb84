//! Bytes to frames and back: framing without copying, views of messages, and the frames we originate.
//!
//! Message formats: PostgreSQL manual, "Frontend/Backend Protocol", "Message Formats".

pub mod build;
pub mod client;
pub mod frame;
pub mod server;
pub mod sqlstate;
pub mod startup;

pub use frame::{Frame, FrameError};
