//! The time since the process started.

use std::time::{Duration, Instant};

/// A monotonic clock that all threads share.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Starts at zero.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since the start.
    #[must_use]
    pub fn now(self) -> Duration {
        self.0.elapsed()
    }

    /// The moment at which [`Self::now`] is `at`; years from now where that is too far away.
    pub(super) fn moment(self, at: Duration) -> tokio::time::Instant {
        const FAR: Duration = Duration::from_secs(86_400 * 365);
        self.0.checked_add(at).or_else(|| self.0.checked_add(FAR)).unwrap_or(self.0).into()
    }
}
