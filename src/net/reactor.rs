//! What the sockets of one thread are ready for, as the operating system reports it: once for each thing that comes.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll as Queue, Registry, Token};
use slab::Slab;

use super::executor::with_reactor;

/// So many events are taken in by one look.
const EVENTS: usize = 1024;

const BELL: Token = Token(usize::MAX);

/// Half of a token is the place in the table, the other one counts who has had it.
const PLACE_BITS: u32 = usize::BITS / 2;

/// There may be something to read: reported, and not yet found to be over.
const READABLE: u8 = 1;
const WRITABLE: u8 = 2;
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

/// The sockets of one thread.
pub(super) struct Reactor {
    queue: RefCell<Queue>,
    events: RefCell<Events>,
    registry: Registry,
    sources: RefCell<Slab<Rc<Source>>>,
    /// Tells one that has taken another one's place from that.
    generation: Cell<usize>,
}

/// What is known of one socket.
struct Source {
    token: Token,
    ready: Cell<u8>,
    reader: Waiter,
    writer: Waiter,
}

/// Who waits, or has waited last.
#[derive(Default)]
struct Waiter {
    waits: Cell<bool>,
    /// Kept from one wait to the next, which mostly is the same task's.
    waker: RefCell<Option<Waker>>,
}

/// Wakes a thread that waits for events.
pub(super) struct Bell(mio::Waker);

impl Bell {
    pub(super) fn ring(&self) {
        if let Err(error) = self.0.wake() {
            tracing::error!(%error, "a thread cannot be woken");
        }
    }
}

impl Reactor {
    pub(super) fn new() -> io::Result<Self> {
        let queue = Queue::new()?;
        let registry = queue.registry().try_clone()?;
        Ok(Self {
            queue: queue.into(),
            events: Events::with_capacity(EVENTS).into(),
            registry,
            sources: RefCell::default(),
            generation: Cell::default(),
        })
    }

    pub(super) fn bell(&self) -> io::Result<Bell> {
        mio::Waker::new(&self.registry, BELL).map(Bell)
    }

    /// Takes in what has come, and waits for it if there is nothing else to do.
    #[inline]
    pub(super) fn look(&self, waits: bool) -> io::Result<()> {
        let mut events = self.events.borrow_mut();
        match self.queue.borrow_mut().poll(&mut events, (!waits).then_some(Duration::ZERO)) {
            // The next look is not far.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        let sources = self.sources.borrow();
        for event in &*events {
            // One that is gone may have left a report behind.
            let source = sources.get(place(event.token())).filter(|source| source.token == event.token());
            if let Some(source) = source {
                source.report(event);
            }
        }
        Ok(())
    }

    /// Lets go of room that a crowd has left behind.
    pub(super) fn trim(&self) {
        trim(&mut self.sources.borrow_mut());
    }

    fn register(&self, fd: &impl AsFd, ready: u8) -> io::Result<Rc<Source>> {
        let mut sources = self.sources.borrow_mut();
        let entry = sources.vacant_entry();
        let generation = self.generation.get().wrapping_add(1);
        self.generation.set(generation);
        // The bell's number has all bits set: no thread has so many sockets.
        let token = Token((generation << PLACE_BITS) | entry.key());
        let fd = fd.as_fd().as_raw_fd();
        self.registry.register(&mut SourceFd(&fd), token, Interest::READABLE | Interest::WRITABLE)?;
        let source =
            Source { token, ready: ready.into(), reader: Waiter::default(), writer: Waiter::default() };
        Ok(entry.insert(Rc::new(source)).clone())
    }

    fn forget(&self, source: &Rc<Source>) {
        let mut sources = self.sources.borrow_mut();
        let number = place(source.token);
        // It may be one of a reactor that is gone.
        if sources.get(number).is_some_and(|known| Rc::ptr_eq(known, source)) {
            sources.remove(number);
        }
    }
}

/// Shrinks a table of which most is unused: as far as its last entry, which may be at its end by chance.
pub(super) fn trim<T>(table: &mut Slab<T>) {
    const SMALL: usize = 1024;
    if table.capacity() > SMALL && table.capacity() / 4 > table.len() {
        table.shrink_to_fit();
    }
}

/// Where in the table.
fn place(token: Token) -> usize {
    token.0 & ((1 << PLACE_BITS) - 1)
}

impl Source {
    #[inline]
    fn report(&self, event: &Event) {
        let mut ready = self.ready.get();
        ready |= if event.is_readable() { READABLE } else { 0 };
        ready |= if event.is_writable() { WRITABLE } else { 0 };
        ready |= if event.is_read_closed() { READ_CLOSED } else { 0 };
        ready |= if event.is_write_closed() { WRITE_CLOSED } else { 0 };
        self.ready.set(ready);
        if ready & Direction::Read.bits() != 0 {
            self.reader.wake();
        }
        if ready & Direction::Write.bits() != 0 {
            self.writer.wake();
        }
    }

    fn waiter(&self, direction: Direction) -> &Waiter {
        match direction {
            Direction::Read => &self.reader,
            Direction::Write => &self.writer,
        }
    }
}

impl Waiter {
    #[inline]
    fn wake(&self) {
        if self.waits.replace(false)
            && let Some(waker) = &*self.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }

    #[inline]
    fn wait(&self, cx: &Context<'_>) {
        self.waits.set(true);
        let mut waker = self.waker.borrow_mut();
        match &mut *waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }
}

/// A socket, or something else that is read or written like one, which this thread is told of. It must not block.
pub(super) struct Watched<T: AsFd> {
    io: T,
    source: Rc<Source>,
}

impl<T: AsFd> Watched<T> {
    /// One that can be written to, as far as is known.
    ///
    /// # Errors
    /// The operating system has no room for it, or the thread does not run tasks in this way.
    pub(super) fn new(io: T) -> io::Result<Self> {
        Self::watch(io, WRITABLE)
    }

    /// One of which nothing is known before it is reported: that is only being connected, or never written to.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(super) fn silent(io: T) -> io::Result<Self> {
        Self::watch(io, 0)
    }

    fn watch(io: T, ready: u8) -> io::Result<Self> {
        let source = with_reactor(|reactor| reactor.register(&io, ready));
        let source =
            source.unwrap_or_else(|| Err(io::Error::other("nobody watches sockets on this thread")))?;
        Ok(Self { io, source })
    }

    pub(super) fn io(&self) -> &T {
        &self.io
    }

    /// Waits until a try may find something.
    #[inline]
    pub(super) fn poll_ready(&self, direction: Direction, cx: &Context<'_>) -> Poll<()> {
        if self.source.ready.get() & direction.bits() != 0 {
            return Poll::Ready(());
        }
        self.source.waiter(direction).wait(cx);
        Poll::Pending
    }

    /// Tries something that does not block; not if it is known to find nothing.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is there, and what `work` says.
    #[inline]
    pub(super) fn try_io<R>(
        &self,
        direction: Direction,
        work: impl FnOnce(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        if self.source.ready.get() & direction.bits() == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let done = work(&self.io);
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

    /// Nothing more is there: the operating system reports what has come since. (No report can have been taken in since that
    /// was found out: this thread does that, between tasks.)
    #[inline]
    pub(super) fn found_nothing(&self, direction: Direction) {
        self.source.ready.set(self.source.ready.get() & !direction.passing());
    }
}

impl<T: AsFd> Drop for Watched<T> {
    fn drop(&mut self) {
        // The operating system forgets it as it is closed.
        with_reactor(|reactor| reactor.forget(&self.source));
    }
}

impl<T: AsFd + fmt::Debug> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("io", &self.io).field("ready", &self.source.ready.get()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::*;
    use crate::net::{run, yield_now};

    fn pair() -> (UnixStream, Watched<UnixStream>) {
        let (peer, own) = UnixStream::pair().unwrap();
        own.set_nonblocking(true).unwrap();
        (peer, Watched::new(own).unwrap())
    }

    async fn read(own: &Watched<UnixStream>, room: usize) -> usize {
        let mut bytes = vec![0; room];
        let read = poll_fn(|cx| {
            own.poll_io(Direction::Read, cx, || own.try_io(Direction::Read, |mut s| s.read(&mut bytes)))
        });
        let n = read.await.unwrap();
        if n < room {
            own.found_nothing(Direction::Read);
        }
        n
    }

    #[test]
    fn what_comes_is_reported_once_and_the_end_for_good() {
        run(async {
            let (mut peer, own) = pair();
            for _ in 0..100 {
                peer.write_all(b"abcde").unwrap();
                assert_eq!(read(&own, 3).await, 3);
                assert_eq!(read(&own, 3).await, 2);
            }
            // It has come and gone by the time that the thread looks.
            peer.write_all(b"last words").unwrap();
            drop(peer);
            assert_eq!(read(&own, 100).await, 10);
            for _ in 0..3 {
                assert_eq!(read(&own, 100).await, 0);
            }
        })
        .unwrap();
    }

    #[test]
    fn who_cannot_write_waits_until_the_peer_has_read() {
        run(async {
            let (mut peer, own) = pair();
            let reader = thread::spawn(move || {
                let mut all = Vec::new();
                peer.read_to_end(&mut all).unwrap();
                all.len()
            });
            let mut left = 3_000_000;
            while left > 0 {
                poll_fn(|cx| own.poll_ready(Direction::Write, cx)).await;
                match own.try_io(Direction::Write, |mut s| s.write(&vec![1; left.min(100_000)])) {
                    Ok(n) => left -= n,
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            }
            drop(own);
            assert_eq!(reader.join().unwrap(), 3_000_000);
        })
        .unwrap();
    }

    #[test]
    fn what_was_reported_of_one_that_is_gone_is_not_its_successors() {
        run(async {
            for _ in 0..100 {
                let (peer, own) = pair();
                yield_now().await;
                // It ends, which the thread is told of when another one has its place.
                drop(peer);
                let kept = own.io().try_clone().unwrap();
                let number = place(own.source.token);
                drop(own);
                let (_peer, next) = pair();
                assert_eq!(place(next.source.token), number);
                yield_now().await;
                assert_eq!(next.source.ready.get(), WRITABLE);
                drop(kept);
            }
            let left = with_reactor(|reactor| reactor.sources.borrow().len());
            assert_eq!(left, Some(0));
        })
        .unwrap();
    }

    #[test]
    fn one_of_a_reactor_that_is_gone_takes_nothing_from_the_next() {
        let (_peer, old) = run(async { pair() }).unwrap();
        run(async {
            let (mut peer, own) = pair();
            assert_eq!(place(own.source.token), place(old.source.token));
            drop(old);
            peer.write_all(b"x").unwrap();
            assert_eq!(read(&own, 10).await, 1);
        })
        .unwrap();
    }
}
