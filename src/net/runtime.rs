//! The runtime of a thread whose tasks stay on it.

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

/// After so many tasks a worker looks for events, and at what comes before tasks (polls, and whom they let go on). With tokio's
/// 61, answers to polls waited for twice that many tasks where hundreds of clients are ready; a look costs less than one task.
const TASKS: u32 = 16;

/// The same without timers of its own: those are kept by [`super::Timers`].
///
/// # Errors
/// As [`local_runtime`].
pub fn runtime_without_timers() -> io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_io().event_interval(TASKS).build_local(LocalOptions::default())
}
