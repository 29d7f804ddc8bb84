//! Configuration: as written, validated, and what changed.

pub mod settings;

pub use settings::Settings;
