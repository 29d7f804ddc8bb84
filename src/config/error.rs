//! What is wrong with a configuration: the key, the value, and what to write instead.

/// A configuration that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file is no TOML, or has a key that does not exist. The text shows the line.
    #[error("{file}: {message}")]
    Syntax {
        /// The file's name.
        file: String,
        /// What and where.
        message: String,
    },
    /// The file cannot be read.
    #[error("{file} cannot be read: {message}")]
    Unreadable {
        /// The file's name.
        file: String,
        /// Why.
        message: String,
    },
    /// A value cannot be used.
    #[error("{key} = {value:?}: {remedy}")]
    Value {
        /// The key, with its section.
        key: String,
        /// The value, without secrets.
        value: String,
        /// What to write instead.
        remedy: String,
    },
    /// Something is missing.
    #[error("{key} is missing: {remedy}")]
    Missing {
        /// The key.
        key: String,
        /// What to do.
        remedy: String,
    },
    /// A `TIDEGATE_` variable that stands for no key.
    #[error("the variable {name} stands for no setting: see tidegate.example.toml for those that exist")]
    UnknownVariable {
        /// Its name.
        name: String,
    },
}

impl ConfigError {
    /// A value that cannot be used.
    pub fn value(key: impl Into<String>, value: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Value { key: key.into(), value: value.into(), remedy: remedy.into() }
    }
}
