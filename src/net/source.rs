//! What is known of one socket, or of something else that is read or written like one.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, Waker, ready};

use mio::Token;
use mio::event::Event;

use super::outbox::Outgoing;

/// There may be something to read: reported, or to be expected, and not yet found to be over.
pub(super) const READABLE: u8 = 1;
pub(super) const WRITABLE: u8 = 2;
/// The peer sends nothing more, and what it has sent may still be there. This stays.
const READ_CLOSED: u8 = 4;
/// Nothing can be written any more. This stays.
const WRITE_CLOSED: u8 = 8;

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Read,
    Write,
}

impl Direction {
    fn bits(self) -> u8 {
        match self {
            Self::Read => READABLE | READ_CLOSED,
            Self::Write => WRITABLE | WRITE_CLOSED,
        }
    }

    /// What a try that has found nothing takes back.
    fn passing(self) -> u8 {
        match self {
            Self::Read => READABLE,
            Self::Write => WRITABLE,
        }
    }
}

/// What is known of one socket.
pub(super) struct Source {
    fd: OwnedFd,
    pub(super) token: Token,
    ready: Cell<u8>,
    reader: Waiter,
    writer: Waiter,
    pub(super) outgoing: Outgoing,
}

/// Who waits, or has waited last.
#[derive(Default)]
struct Waiter {
    waits: Cell<bool>,
    /// Kept from one wait to the next, which mostly is the same task's.
    waker: Cell<Option<Waker>>,
}

impl Waiter {
    #[inline]
    fn wake(&self) {
        if self.waits.replace(false) {
            let waker = self.waker.take();
            waker.as_ref().inspect(|waker| waker.wake_by_ref());
            self.waker.set(waker);
        }
    }

    #[inline]
    fn wait(&self, cx: &Context<'_>) {
        self.waits.set(true);
        let mut waker = self.waker.take();
        match &mut waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        self.waker.set(waker);
    }
}

impl Source {
    pub(super) fn new(fd: OwnedFd, token: Token, ready: u8) -> Self {
        Self {
            fd,
            token,
            ready: ready.into(),
            reader: Waiter::default(),
            writer: Waiter::default(),
            outgoing: Outgoing::default(),
        }
    }

    /// The socket itself.
    pub(super) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Takes in what the operating system reports, and says whether what was kept from being sent is to be sent now: whoever
    /// writes comes behind that.
    #[inline]
    pub(super) fn report(&self, event: &Event) -> bool {
        let mut ready = self.ready.get();
        let resumes = event.is_writable() && self.outgoing.is_held();
        ready |= if event.is_readable() { READABLE } else { 0 };
        ready |= if event.is_writable() && !resumes { WRITABLE } else { 0 };
        ready |= if event.is_read_closed() { READ_CLOSED } else { 0 };
        ready |= if event.is_write_closed() { WRITE_CLOSED } else { 0 };
        self.ready.set(ready);
        if self.is_ready(Direction::Read) {
            self.reader.wake();
        }
        if self.is_ready(Direction::Write) {
            self.writer.wake();
        }
        resumes
    }

    /// Whether a try may find something, as far as the operating system has said.
    #[inline]
    pub(super) fn is_ready(&self, direction: Direction) -> bool {
        self.ready.get() & direction.bits() != 0
    }

    /// Something has been sent to its end, or will never be.
    #[inline]
    pub(super) fn found_room(&self) {
        self.ready.set(self.ready.get() | WRITABLE);
        self.writer.wake();
    }

    /// Waits until a try may find something.
    #[inline]
    pub(super) fn poll_ready(&self, direction: Direction, cx: &Context<'_>) -> Poll<()> {
        if self.is_ready(direction) {
            return Poll::Ready(());
        }
        self.wait(direction, cx);
        Poll::Pending
    }

    /// Has the task go on when a try may find something that does not now.
    #[inline]
    pub(super) fn wait(&self, direction: Direction, cx: &Context<'_>) {
        self.waiter(direction).wait(cx);
    }

    /// Tries something that does not block; not if it is known to find nothing.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is there, and what `work` says.
    #[inline]
    pub(super) fn try_io<R>(
        &self,
        direction: Direction,
        work: impl FnOnce(BorrowedFd<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        if !self.is_ready(direction) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let done = work(self.fd.as_fd());
        if done.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            self.found_nothing(direction);
        }
        done
    }

    /// Waits until a try finds something: one of [`Self::try_io`], or of what goes by it.
    ///
    /// # Errors
    /// What `work` says, but for `WouldBlock`.
    #[inline]
    pub(super) fn poll_io<R>(
        &self,
        direction: Direction,
        cx: &Context<'_>,
        mut work: impl FnMut() -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        loop {
            ready!(self.poll_ready(direction, cx));
            match work() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    /// Tries to move up to so many bytes. Where it was fewer, no more are there, or go.
    ///
    /// # Errors
    /// As [`Self::try_io`].
    #[inline]
    pub(super) fn try_move(
        &self,
        direction: Direction,
        most: usize,
        work: impl FnOnce(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let moved = self.try_io(direction, work);
        if matches!(moved, Ok(n) if (1..most).contains(&n)) {
            self.found_nothing(direction);
        }
        moved
    }

    /// Nothing more is there: the operating system reports what has come since. (No report can have been taken in since that
    /// was found out: this thread does that, between tasks.)
    #[inline]
    pub(super) fn found_nothing(&self, direction: Direction) {
        self.ready.set(self.ready.get() & !direction.passing());
    }

    fn waiter(&self, direction: Direction) -> &Waiter {
        match direction {
            Direction::Read => &self.reader,
            Direction::Write => &self.writer,
        }
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
