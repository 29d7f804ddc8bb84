//! Time limits that are set anew all the time.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use super::executor::yield_now;
use super::timers::{Kept, kept_alarm};

/// Ends a wait. Made once, and set for one wait after the other.
#[derive(Debug)]
pub struct Alarm(Clockwork);

#[derive(Debug)]
enum Clockwork {
    /// The operating system rings: for what comes true most times. It takes two system calls to set it and to hear it, and
    /// wakes no other thread.
    #[cfg(target_os = "linux")]
    Own(timer::Timer),
    /// Who keeps the thread's timers rings: for what hardly ever comes true. To put it off costs next to nothing.
    Kept(Kept),
}

impl Alarm {
    /// One that may ring at every turn. To be called by a task.
    #[must_use]
    pub fn that_rings() -> Self {
        #[cfg(target_os = "linux")]
        match timer::Timer::new() {
            Ok(timer) => return Self(Clockwork::Own(timer)),
            // Out of open files, most likely: the other kind does the same.
            Err(error) => tracing::warn!(%error, "no timer of its own"),
        }
        Self::for_failures()
    }

    /// One that rings only where something has failed.
    #[must_use]
    pub fn for_failures() -> Self {
        Self(Clockwork::Kept(kept_alarm()))
    }

    /// Runs something for that long at most; `None` if it takes longer.
    pub async fn within<T>(&mut self, time: Duration, work: impl Future<Output = T>) -> Option<T> {
        self.set(time);
        let mut work = pin!(work);
        let done = poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => self.poll_rung(cx).map(|()| None),
        })
        .await;
        if done.is_some() || !matches!(self.0, Clockwork::Kept(_)) {
            return done;
        }
        // A thread that stood still may be woken by its keeper before it has looked at its sockets: what was waited for may
        // be there.
        yield_now().await;
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    /// Waits that long.
    pub async fn after(&mut self, time: Duration) {
        self.set(time);
        poll_fn(|cx| self.poll_rung(cx)).await;
    }

    fn set(&mut self, time: Duration) {
        match &mut self.0 {
            #[cfg(target_os = "linux")]
            Clockwork::Own(timer) => {
                if let Err(error) = timer.set(time) {
                    tracing::warn!(%error, "a timer of its own cannot be set");
                    *self = Self::for_failures();
                    self.set(time);
                }
            }
            Clockwork::Kept(kept) => kept.set(time),
        }
    }

    fn poll_rung(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            #[cfg(target_os = "linux")]
            Clockwork::Own(timer) => timer.poll_rung(cx),
            Clockwork::Kept(kept) => Pin::new(kept).poll(cx),
        }
    }
}

#[cfg(target_os = "linux")]
mod timer {
    //! A timer that is a file: `timerfd_create(2)`.

    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll, ready};
    use std::time::Duration;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use std::os::fd::{AsFd, BorrowedFd};

    use tokio::io::{AsyncRead, ReadBuf};
    use tokio::net::unix::pipe::Receiver;

    use super::super::executor::runs_here;
    use super::super::reactor::Watched;
    use super::super::source::Direction;

    /// Longer than anybody waits, and short enough for every clock.
    const LONGEST: Duration = Duration::from_secs(86_400 * 365);

    /// Read like a pipe, from which a number of eight bytes comes when it has rung.
    #[derive(Debug)]
    pub(super) enum Timer {
        /// Of a thread that [`crate::net::run`]s.
        Own(Watched),
        /// Of a tokio runtime.
        Tokio(Receiver),
    }

    impl Timer {
        pub(super) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let file = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            match runs_here() {
                true => Watched::silent(file).map(Self::Own),
                false => Receiver::from_owned_fd_unchecked(file).map(Self::Tokio),
            }
        }

        fn file(&self) -> BorrowedFd<'_> {
            match self {
                Self::Own(watched) => watched.as_fd(),
                Self::Tokio(receiver) => receiver.as_fd(),
            }
        }

        /// From now on; what it was set to before is forgotten, also if it has rung already.
        pub(super) fn set(&self, time: Duration) -> io::Result<()> {
            // Zero would stop it.
            let time = time.clamp(Duration::from_nanos(1), LONGEST);
            let value = Timespec::try_from(time).map_err(|_| io::ErrorKind::InvalidInput)?;
            let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
            timerfd_settime(self.file(), TimerfdTimerFlags::empty(), &once)?;
            Ok(())
        }

        pub(super) fn poll_rung(&mut self, cx: &mut Context<'_>) -> Poll<()> {
            match self {
                Self::Own(watched) => {
                    let mut times = [0; 8];
                    let read =
                        || watched.try_io(Direction::Read, |file| Ok(rustix::io::read(file, &mut times)?));
                    let _ = ready!(watched.poll_io(Direction::Read, cx, read));
                    watched.found_nothing(Direction::Read);
                    Poll::Ready(())
                }
                Self::Tokio(receiver) => {
                    // With more room than there are bytes, tokio knows that there is nothing more to come.
                    let mut times = [0; 16];
                    match ready!(Pin::new(receiver).poll_read(cx, &mut ReadBuf::new(&mut times))) {
                        Ok(()) => Poll::Ready(()),
                        // There is no runtime any more, and soon no task.
                        Err(_) => Poll::Pending,
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Instant;

    use super::*;
    use crate::net::timers::sleep;
    use crate::net::{Timers, local_runtime, run};

    const SHORT: Duration = Duration::from_millis(5);
    const LONG: Duration = Duration::from_secs(3600);

    async fn ring(mut alarm: Alarm) {
        for _ in 0..3 {
            let began = Instant::now();
            alarm.after(SHORT).await;
            assert!(began.elapsed() >= SHORT);
            assert_eq!(alarm.within(SHORT, pending::<()>()).await, None);
            assert!(began.elapsed() >= 2 * SHORT);
            assert_eq!(alarm.within(LONG, ready(7)).await, Some(7));
            alarm.after(Duration::ZERO).await;
            // One that has rung since it was left, which the thread has been told of.
            assert_eq!(alarm.within(SHORT / 5, yield_now()).await, Some(()));
            sleep(SHORT).await;
            let late = Instant::now();
            alarm.after(3 * SHORT).await;
            assert!(late.elapsed() >= 3 * SHORT);
            // One that was left, and has rung since, or would have.
            assert_eq!(alarm.within(Duration::ZERO, ready(8)).await, Some(8));
            assert_eq!(alarm.within(SHORT, ready(9)).await, Some(9));
            let again = Instant::now();
            alarm.after(3 * SHORT).await;
            assert!(again.elapsed() >= 3 * SHORT);
        }
        assert_eq!(alarm.within(Duration::MAX, ready(10)).await, Some(10));
    }

    async fn ring_in_both_ways() {
        ring(Alarm::that_rings()).await;
        ring(Alarm::for_failures()).await;
    }

    #[test]
    fn alarms_ring_on_threads_of_both_kinds_and_not_before_their_time() {
        local_runtime().unwrap().block_on(ring_in_both_ways());
        let timers = Timers::start().unwrap();
        timers.keep_this_threads();
        run(None, ring_in_both_ways()).unwrap();
    }
}
