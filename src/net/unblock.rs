//! Work that would keep a thread from its tasks.

use std::io;

use super::timers::kept;

/// Runs it on a thread of those that are kept for this: passwords are hashed and names of hosts looked up there.
///
/// # Errors
/// It has panicked.
pub async fn unblock<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    kept(|| tokio::task::spawn_blocking(work)).await.map_err(io::Error::other)
}
