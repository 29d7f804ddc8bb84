//! One client's state: freshness, settings, prepared statements, transaction.
//!
//! Reading order: [`collect`] finds the units in what the client sends, [`judge`] folds their
//! texts into one verdict ([`known`] remembers those that come often), [`translate`] turns a unit into what one server must get, and
//! [`replies`] says what of the server's answer the client may see.

pub mod collect;
mod date_style;
pub mod freshness;
#[cfg(test)]
mod freshness_tests;
#[cfg(test)]
mod freshness_world;
pub mod judge;
pub mod known;
pub mod local;
#[cfg(test)]
mod local_tests;
pub mod notes;
pub mod packed;
pub mod pins;
pub mod prepared;
pub mod replies;
pub mod reported;
pub mod server_statements;
pub mod settings;
mod shape;
pub mod state;
#[cfg(test)]
mod stream_tests;
pub mod transaction;
pub mod translate;
pub mod undo;

pub use collect::{Collected, Collector, Unit};
pub use freshness::{Freshness, Told};
pub use judge::Verdict;
pub use known::KnownTexts;
pub use notes::{Note, notes};
pub use packed::PackedSession;
pub use pins::Pins;
pub use prepared::{ClientStatements, Shared, SharedStatement, Statements};
pub use replies::{Before, Event, Expect, Replies, Stands, Undone};
pub use server_statements::ServerStatements;
pub use settings::SettingsMap;
pub use state::Session;
pub use transaction::{Change, Changes};
