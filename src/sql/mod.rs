//! What a statement does, found out by one linear pass over its text.
//!
//! It may call a read a write; never a write a read. Nothing here recurses over the text, and
//! nothing allocates.

pub mod command;
pub mod names;

pub use command::{Access, Class, Command, Effects, Reason, Setting, Statement};
pub use names::{Names, Verdict};
