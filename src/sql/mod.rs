//! What a statement does, found out by one linear pass over its text.
//!
//! It may call a read a write; never a write a read. Nothing here recurses over the text, and
//! nothing allocates.

pub mod builtin;
pub mod catalog;
pub mod classify;
pub mod command;
mod cursor;
mod filter;
mod fold;
pub mod hint;
mod keyword;
pub mod learned;
pub mod names;
pub mod scan;
mod set;
mod special;
mod transaction;
mod walk;

#[cfg(test)]
mod tests;

pub use catalog::{CATALOG_QUERY, CHANGE_COUNTER_QUERY, Catalog, CatalogRows, Overrides};
pub use classify::{Dialect, Statements, classify, hides_ascii, statements};
pub use command::{Access, Class, Command, Effects, Reason, Setting, Statement};
pub use hint::{Hint, HintedConsistency, HintedRoute, fingerprint, hint};
pub use learned::Learned;
pub use names::{Names, Verdict};
