//! Configuration: as written, validated, and what changed.
//!
//! [`raw`] is the file as it stands, [`mod@env`] lays variables over it, [`validate`] makes
//! [`Settings`] of it, [`change`] compares two of them.

pub mod auth;
pub mod change;
pub mod env;
pub mod error;
pub mod raw;
pub mod settings;
pub mod tls;
pub mod units;
pub mod url;
pub mod validate;

pub use error::ConfigError;
pub use raw::Raw;
pub use settings::Settings;
