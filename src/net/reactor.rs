//! What the sockets of one thread are ready for, as the operating system reports it: once for each thing that comes.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll as Queue, Registry, Token};
use slab::Slab;

use super::executor::with_reactor;
use super::outbox::Outbox;
use super::source::{READABLE, Source, WRITABLE};

/// So many events are taken in by one look.
const EVENTS: usize = 1024;

const BELL: Token = Token(usize::MAX);

/// Half of a token is the place in the table, the other one counts who has had it.
const PLACE_BITS: u32 = usize::BITS / 2;

/// The sockets of one thread.
pub(super) struct Reactor {
    queue: RefCell<Queue>,
    events: RefCell<Events>,
    registry: Registry,
    sources: RefCell<Slab<Rc<Source>>>,
    outbox: Outbox,
    /// Tells one that has taken another one's place from that.
    generation: Cell<usize>,
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
    pub(super) fn new(outbox: Outbox) -> io::Result<Self> {
        let queue = Queue::new()?;
        let registry = queue.registry().try_clone()?;
        Ok(Self {
            queue: queue.into(),
            events: Events::with_capacity(EVENTS).into(),
            registry,
            sources: RefCell::default(),
            outbox,
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
            if let Some(source) = source
                && source.report(event)
            {
                self.outbox.resume(source);
            }
        }
        Ok(())
    }

    /// What is to be sent.
    #[inline]
    pub(super) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Lets go of room that a crowd has left behind.
    pub(super) fn trim(&self) {
        trim(&mut self.sources.borrow_mut());
        self.outbox.trim();
    }

    fn register(&self, fd: OwnedFd, ready: u8) -> io::Result<Rc<Source>> {
        let mut sources = self.sources.borrow_mut();
        let entry = sources.vacant_entry();
        let generation = self.generation.get().wrapping_add(1);
        self.generation.set(generation);
        // The bell's number has all bits set: no thread has so many sockets.
        let token = Token((generation << PLACE_BITS) | entry.key());
        let number = fd.as_raw_fd();
        self.registry.register(&mut SourceFd(&number), token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(entry.insert(Rc::new(Source::new(fd, token, ready))).clone())
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

/// A socket, or something else that is read or written like one, which this thread is told of. It must not block.
pub(super) struct Watched(pub(super) Rc<Source>);

impl Watched {
    /// One that may be both read and written, as far as is known: of a peer that speaks first.
    ///
    /// # Errors
    /// The operating system has no room for it, or the thread does not run tasks in this way.
    pub(super) fn new(fd: impl Into<OwnedFd>) -> io::Result<Self> {
        Self::watch(fd.into(), READABLE | WRITABLE)
    }

    /// One of which nothing is known before it is reported: that is only being connected, or never written to.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(super) fn silent(fd: impl Into<OwnedFd>) -> io::Result<Self> {
        Self::watch(fd.into(), 0)
    }

    fn watch(fd: OwnedFd, ready: u8) -> io::Result<Self> {
        let source = with_reactor(|reactor| reactor.register(fd, ready));
        source.unwrap_or_else(|| Err(io::Error::other("nobody watches sockets on this thread"))).map(Self)
    }

    /// Whether nothing that was taken is still to be sent, or could not be.
    pub(super) fn is_sent(&self) -> bool {
        self.0.outgoing.is_empty()
    }

    /// Gives up the socket for another thread to watch.
    ///
    /// # Errors
    /// As the operating system says; it is closed then.
    pub(super) fn release(self) -> io::Result<OwnedFd> {
        let source = self.0.clone();
        let number = source.as_fd().as_raw_fd();
        with_reactor(|reactor| reactor.registry.deregister(&mut SourceFd(&number))).unwrap_or_else(gone)?;
        // It is forgotten here.
        drop(self);
        match Rc::try_unwrap(source) {
            Ok(source) => Ok(source.into_fd()),
            // What has been sent is still on a list.
            Err(source) => source.as_fd().try_clone_to_owned(),
        }
    }

    /// Takes bytes that are to be sent, or sends them: see [`Outbox::post`].
    ///
    /// # Errors
    /// `WouldBlock` if the peer has to read first; and as the operating system says, perhaps of what was taken before.
    #[inline]
    pub(super) fn post(&self, bytes: &[u8]) -> io::Result<usize> {
        with_reactor(|reactor| reactor.outbox().post(&self.0, bytes)).unwrap_or_else(gone)
    }

    /// Sends what was taken, as far as that goes without waiting.
    pub(super) fn send_at_once(&self) {
        // Who is to hear of an error comes after.
        with_reactor(|reactor| reactor.outbox().send_what_is_there(&self.0).is_ok());
    }

    /// Waits until everything that was taken has been sent.
    ///
    /// # Errors
    /// As the operating system says.
    pub(super) fn poll_sent(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        with_reactor(|reactor| reactor.outbox().poll_sent(&self.0, cx)).unwrap_or_else(|| Poll::Ready(gone()))
    }
}

/// The thread does not run tasks any more.
fn gone<T>() -> io::Result<T> {
    Err(io::ErrorKind::BrokenPipe.into())
}

impl Deref for Watched {
    type Target = Source;

    fn deref(&self) -> &Source {
        &self.0
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // The operating system forgets it as it is closed: when what it has been given to send is sent.
        with_reactor(|reactor| reactor.forget(&self.0));
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watched").field(&self.as_fd()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::super::source::Direction;
    use super::*;
    use crate::net::{run, yield_now};

    fn pair() -> (UnixStream, Watched) {
        let (peer, own) = UnixStream::pair().unwrap();
        own.set_nonblocking(true).unwrap();
        (peer, Watched::silent(own).unwrap())
    }

    async fn read(own: &Watched, room: usize) -> usize {
        let mut bytes = vec![0; room];
        let read = poll_fn(|cx| {
            own.poll_io(Direction::Read, cx, || {
                own.try_io(Direction::Read, |s| Ok(rustix::io::read(s, &mut bytes)?))
            })
        });
        let n = read.await.unwrap();
        if n < room {
            own.found_nothing(Direction::Read);
        }
        n
    }

    #[test]
    fn what_comes_is_reported_once_and_the_end_for_good() {
        run(None, async {
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
        run(None, async {
            let (mut peer, own) = pair();
            let reader = thread::spawn(move || {
                let mut all = Vec::new();
                peer.read_to_end(&mut all).unwrap();
                all.len()
            });
            let mut left = 3_000_000;
            while left > 0 {
                poll_fn(|cx| own.poll_ready(Direction::Write, cx)).await;
                match own.try_io(Direction::Write, |s| Ok(rustix::io::write(s, &vec![1; left.min(100_000)])?))
                {
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
        run(None, async {
            for _ in 0..100 {
                let (peer, own) = pair();
                yield_now().await;
                // It ends, which the thread is told of when another one has its place.
                drop(peer);
                let kept = own.as_fd().try_clone_to_owned().unwrap();
                let number = place(own.0.token);
                drop(own);
                let (_peer, next) = pair();
                assert_eq!(place(next.0.token), number);
                yield_now().await;
                assert!(!next.0.is_ready(Direction::Read) && next.0.is_ready(Direction::Write));
                drop(kept);
            }
            let left = with_reactor(|reactor| reactor.sources.borrow().len());
            assert_eq!(left, Some(0));
        })
        .unwrap();
    }

    #[test]
    fn a_socket_at_rest_takes_little() {
        // With the two counts of an `Rc`: jemalloc has nothing between that and 160.
        assert!(size_of::<Source>() <= 112, "{}", size_of::<Source>());
    }

    #[test]
    fn one_of_a_reactor_that_is_gone_takes_nothing_from_the_next() {
        let (_peer, old) = run(None, async { pair() }).unwrap();
        run(None, async {
            let (mut peer, own) = pair();
            assert_eq!(place(own.0.token), place(old.0.token));
            drop(old);
            peer.write_all(b"x").unwrap();
            assert_eq!(read(&own, 10).await, 1);
        })
        .unwrap();
    }
}
