//! Timers for threads that keep none.
//!
//! Who keeps timers looks at the clock and at them before and after every wait for events: with tokio's, a tenth of
//! what a worker runs for a message. A worker sets a timer only where it has to wait for something. So one thread keeps
//! the timers of all workers. It wakes up when one is over or would have been, and when one is set that is due before all
//! that it knows of.

use std::cell::OnceCell;
use std::future::pending;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::time::{Instant, Sleep, Timeout};

thread_local! {
    /// Who keeps this thread's timers, if its runtime does not.
    static KEEPER: OnceCell<Handle> = const { OnceCell::new() };
}

/// The thread that keeps timers. It never ends: a timer must not outlive it.
#[derive(Clone, Debug)]
pub struct Timers(Handle);

impl Timers {
    /// Starts it. Not to be called by a task: what cannot be started is dropped, which no runtime has a task do.
    ///
    /// # Errors
    /// The operating system has no room for it.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let keeper = runtime.handle().clone();
        thread::Builder::new().name("timers".to_owned()).spawn(move || runtime.block_on(pending::<()>()))?;
        Ok(Self(keeper))
    }

    /// From now on it keeps the timers of the calling thread.
    pub fn keep_this_threads(&self) {
        // A thread that has a keeper has a good one.
        KEEPER.with(|keeper| drop(keeper.set(self.0.clone())));
    }
}

/// Waits. Unlike [`tokio::time::sleep`], which needs a runtime with timers, this serves threads of either kind.
pub fn sleep(time: Duration) -> Sleep {
    kept(|| tokio::time::sleep(time))
}

/// Waits for what is to come, but not longer than `limit`; for threads of either kind.
pub fn timeout<F: Future>(limit: Duration, what: F) -> Timeout<F> {
    kept(|| tokio::time::timeout(limit, what))
}

/// A timer that is set anew and anew: done at the end of the time that it was last set to.
#[derive(Debug)]
pub(super) struct Kept(Pin<Box<Sleep>>);

/// Makes one.
pub(super) fn kept_alarm() -> Kept {
    Kept(Box::pin(sleep(Duration::ZERO)))
}

impl Kept {
    /// From now on. A timer that is put off stays where it is: its keeper finds that out when it would have been over.
    pub(super) fn set(&mut self, time: Duration) {
        /// As far as tokio puts off what has no end.
        const FAR: Duration = Duration::from_secs(86_400 * 365 * 30);
        self.0.as_mut().reset(Instant::now() + time.min(FAR));
    }
}

impl Future for Kept {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

/// Makes a timer, or something else that takes a runtime, which the thread's keeper keeps.
pub(super) fn kept<T>(make: impl FnOnce() -> T) -> T {
    KEEPER.with(|keeper| {
        let _within = keeper.get().map(Handle::enter);
        make()
    })
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::time::Instant;

    use super::*;
    use crate::net::{local_runtime, run, spawn};

    const SHORT: Duration = Duration::from_millis(5);

    async fn wait_in_all_ways() {
        let began = Instant::now();
        sleep(SHORT).await;
        assert!(timeout(SHORT, pending::<()>()).await.is_err());
        assert!(began.elapsed() >= 2 * SHORT);
        assert_eq!(timeout(Duration::from_secs(3600), ready(7)).await, Ok(7));
        // Two at once: the later one must not keep the keeper from the earlier one.
        spawn(sleep(Duration::from_secs(3600)));
        sleep(SHORT).await;
    }

    #[test]
    fn threads_of_both_kinds_can_wait() {
        local_runtime().unwrap().block_on(wait_in_all_ways());
        let timers = Timers::start().unwrap();
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let timers = timers.clone();
                thread::spawn(move || {
                    timers.keep_this_threads();
                    run(None, wait_in_all_ways()).unwrap();
                })
            })
            .collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    }
}
