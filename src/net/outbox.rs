//! What a thread's tasks have to send: kept until some of them have had their turn, and then sent to all of their peers by one
//! call of the operating system. To enter it for each took a tenth of what a transaction costs (`docs/performance.md`).

use std::cell::{Cell, RefCell};
use std::hint::black_box;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::task::{Context, Poll};

use rustix::net::SendFlags;

use super::ring::{Ring, SENDS, Sent};
use super::source::{Direction, Source};

/// Longer texts are sent at once, rather than be copied.
pub(super) const LONGEST: usize = 4096;

/// Bytes of a usual room, which most of what is sent fits in: nine of them share a page, and their beginnings do not share
/// the few places that a processor's cache has for beginnings of pages.
const USUAL: usize = 448;

/// What is to be sent to one peer.
#[derive(Default)]
pub(super) struct Outgoing {
    bytes: RefCell<Vec<u8>>,
    state: Cell<State>,
    /// Why it could not be sent, which its writer has yet to hear.
    failure: Cell<Option<io::Error>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nothing is to be sent.
    #[default]
    Empty,
    /// On the list, once.
    Listed,
    /// The peer has not taken all of it. Nobody may write before it has.
    Held,
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        wipe(Some(self.bytes.get_mut()));
    }
}

impl Outgoing {
    /// Whether nothing is left of what was taken, nor to be told about it.
    pub(super) fn is_empty(&self) -> bool {
        let failure = self.failure.take();
        let well = failure.is_none();
        self.failure.set(failure);
        well && self.state.get() == State::Empty
    }

    /// Whether the peer has yet to take what it was sent.
    #[inline]
    pub(super) fn is_held(&self) -> bool {
        self.state.get() == State::Held
    }
}

/// What is to be sent to all of them.
pub(super) struct Outbox {
    /// Without one, everything is sent at once.
    ring: RefCell<Option<Ring>>,
    listed: RefCell<Vec<Rc<Source>>>,
    /// Rooms for bytes that have been sent.
    free: RefCell<Vec<Vec<u8>>>,
}

impl Outbox {
    /// One that sends at once, unless there is a ring.
    pub(super) fn new(ring: Option<Ring>) -> Self {
        Self { ring: ring.into(), listed: RefCell::default(), free: RefCell::default() }
    }

    /// Takes what is to be sent, or sends it.
    ///
    /// # Errors
    /// `WouldBlock` if the peer has to read first; what has become of bytes that were taken before; and as the operating
    /// system says.
    #[inline]
    pub(super) fn post(&self, source: &Rc<Source>, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        if !source.is_ready(Direction::Write) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let outgoing = &source.outgoing;
        let fits = outgoing.bytes.borrow().len() + bytes.len() <= LONGEST;
        if !fits || outgoing.is_held() || self.ring.borrow().is_none() {
            self.send_what_is_there(source)?;
            return send(source, bytes);
        }
        if let Some(error) = outgoing.failure.take() {
            return Err(error);
        }
        {
            let mut room = outgoing.bytes.borrow_mut();
            if room.capacity() == 0 {
                *room = self.free.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(USUAL));
            }
            if room.capacity() - room.len() < bytes.len() {
                self.enlarge(&mut room);
            }
            room.extend_from_slice(bytes);
        }
        if outgoing.state.replace(State::Listed) == State::Empty {
            self.list(source);
        }
        Ok(bytes.len())
    }

    /// Not left to the room itself, which would leave a copy behind that nobody wipes.
    #[cold]
    fn enlarge(&self, room: &mut Vec<u8>) {
        let mut large = Vec::with_capacity(LONGEST);
        large.extend_from_slice(room);
        self.keep_room(std::mem::replace(room, large));
    }

    /// The peer takes more than it did: what it has been kept from is to be sent.
    pub(super) fn resume(&self, source: &Rc<Source>) {
        source.outgoing.state.set(State::Listed);
        self.listed.borrow_mut().push(source.clone());
    }

    /// Waits until everything that was taken has been sent.
    ///
    /// # Errors
    /// As the operating system says.
    pub(super) fn poll_sent(&self, source: &Rc<Source>, cx: &Context<'_>) -> Poll<io::Result<()>> {
        match self.send_what_is_there(source) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                source.wait(Direction::Write, cx);
                Poll::Pending
            }
            result => Poll::Ready(result),
        }
    }

    /// Sends everything, as far as that goes without waiting.
    #[inline]
    pub(super) fn flush(&self) {
        if !self.listed.borrow().is_empty() {
            self.flush_listed();
        }
    }

    fn flush_listed(&self) {
        let mut listed = self.listed.take();
        listed.retain(|source| {
            let outgoing = &source.outgoing;
            // It may have been sent since, or be held since.
            let is_due = outgoing.state.get() == State::Listed;
            if is_due {
                outgoing.state.set(State::Empty);
            }
            is_due && !outgoing.bytes.borrow().is_empty()
        });
        while !listed.is_empty() {
            let due = listed.drain(..listed.len().min(SENDS));
            self.send_batch(due);
        }
        // Nothing was listed meanwhile: whom this wakes has yet to have a turn.
        self.listed.replace(listed);
    }

    fn send_batch(&self, due: impl ExactSizeIterator<Item = Rc<Source>>) {
        let mut ring = self.ring.borrow_mut();
        let taken = |source: Rc<Source>| {
            let bytes = source.outgoing.bytes.take();
            (source, bytes)
        };
        let failure = match &mut *ring {
            // One alone goes without detours.
            Some(ring) if due.len() > 1 => {
                ring.send(due.map(taken), |source, bytes, sent| self.note(&source, bytes, sent)).err()
            }
            _ => {
                due.for_each(|source| self.send_now(&source));
                None
            }
        };
        if let Some(error) = failure {
            tracing::error!(%error, "the operating system sends nothing by io_uring any more: it is not used from now on");
            *ring = None;
        }
    }

    /// Sends what was taken for a peer, as far as that goes without waiting.
    ///
    /// # Errors
    /// `WouldBlock` if that is not all of it, and as [`Self::post`].
    pub(super) fn send_what_is_there(&self, source: &Source) -> io::Result<()> {
        let outgoing = &source.outgoing;
        let held = outgoing.is_held();
        // For one that is held the operating system must have said that it takes more, or nothing any more.
        if !outgoing.bytes.borrow().is_empty() && (!held || source.is_ready(Direction::Write)) {
            self.send_now(source);
            if held && outgoing.is_held() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
        match outgoing.failure.take() {
            Some(error) => Err(error),
            None if outgoing.is_held() => Err(io::ErrorKind::WouldBlock.into()),
            None => Ok(()),
        }
    }

    fn send_now(&self, source: &Source) {
        let bytes = source.outgoing.bytes.take();
        let send = || rustix::net::send(source.as_fd(), &bytes, SendFlags::NOSIGNAL);
        let sent = rustix::io::retry_on_intr(send);
        self.note(source, bytes, sent.map_err(Into::into));
    }

    /// What has become of bytes that were taken.
    #[inline]
    pub(super) fn note(&self, source: &Source, mut bytes: Vec<u8>, sent: Sent) {
        let outgoing = &source.outgoing;
        let sent = match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                outgoing.bytes.replace(bytes);
                return self.send_now(source);
            }
            sent => sent,
        };
        match sent {
            Ok(n) if n < bytes.len() => {
                bytes.copy_within(n.., 0);
                let rest = bytes.len() - n;
                wipe(bytes.get_mut(rest..));
                bytes.truncate(rest);
                outgoing.bytes.replace(bytes);
                outgoing.state.set(State::Held);
                source.found_nothing(Direction::Write);
                return;
            }
            Ok(_) => {}
            Err(error) => {
                // What has been lost was taken for sent: nothing may follow it, and who waits for an answer is to see the end,
                // which the operating system reports then.
                let _ = rustix::net::shutdown(source.as_fd(), rustix::net::Shutdown::Both);
                outgoing.failure.set(Some(error));
            }
        }
        if outgoing.is_held() {
            outgoing.state.set(State::Empty);
        }
        source.found_room();
        self.keep_room(bytes);
    }

    fn keep_room(&self, mut bytes: Vec<u8>) {
        // There may have been a password in it.
        wipe(Some(&mut bytes));
        bytes.clear();
        let mut free = self.free.borrow_mut();
        if free.len() < SENDS {
            free.push(bytes);
        }
    }

    fn list(&self, source: &Rc<Source>) {
        let mut listed = self.listed.borrow_mut();
        listed.push(source.clone());
        if listed.len() >= SENDS {
            drop(listed);
            self.flush_listed();
        }
    }

    /// Lets go of room that is not needed now.
    pub(super) fn trim(&self) {
        self.free.take();
        self.listed.borrow_mut().shrink_to(SENDS);
    }
}

/// Sends as much as goes at once.
fn send(source: &Source, bytes: &[u8]) -> io::Result<usize> {
    let send = |fd: BorrowedFd<'_>| Ok(rustix::net::send(fd, bytes, SendFlags::NOSIGNAL)?);
    source.try_move(Direction::Write, bytes.len(), send)
}

fn wipe(bytes: Option<&mut [u8]>) {
    let bytes = bytes.unwrap_or_default();
    bytes.fill(0);
    // Else a compiler may see that nobody reads that.
    black_box(bytes);
}
