//! The runtime of a thread besides the workers: its tasks stay on it.

use std::io;

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

/// A runtime for this thread: `spawn_local` puts tasks straight into its queue. (A `LocalSet` on a runtime has a queue
/// of its own behind a lock, takes every wakeup by the socket driver for one from another thread, and wakes itself
/// through the runtime's queue.)
///
/// # Errors
/// The operating system has no room for one.
pub fn local_runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
}
