//! What the process's exit code means.

/// Exit codes, for scripts and service managers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCode {
    /// All went well; after SIGTERM: all clients have left.
    Ok,
    /// The demo has seen a stale read or an error; `check` has found a node that cannot be used.
    Failed,
    /// The command line or the configuration cannot be used.
    Usage,
    /// An address cannot be listened on.
    CannotListen,
    /// Transactions were still open when draining had to end.
    DrainTimeout,
    /// Something that should not happen.
    Internal,
}

impl ExitCode {
    /// The number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::CannotListen => 3,
            Self::DrainTimeout => 4,
            Self::Internal => 70,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.number())
    }
}
