//! What a thread's tasks have to send: kept until some of them have had their turn, and then sent to all of their peers by one
//! call of the operating system. To enter it for each took a tenth of what a transaction costs (`docs/performance.md`).

use std::cell::{Cell, RefCell};
use std::hint::black_box;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::task::{Context, Poll};

use rustix::net::SendFlags;

use super::ring::{Ring, SENDS, Sent};
use super::source::{Direction, Source};

/// Longer texts are sent at once, rather than be copied.
const LONGEST: usize = 4096;

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
    batches: Cell<bool>,
    listed: RefCell<Vec<Rc<Source>>>,
    /// Rooms for bytes that have been sent.
    free: RefCell<Vec<Vec<u8>>>,
}

impl Outbox {
    /// One that sends at once, unless there is a ring.
    pub(super) fn new(ring: Option<Ring>) -> Self {
        let batches = ring.is_some().into();
        Self { ring: ring.into(), batches, listed: RefCell::default(), free: RefCell::default() }
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
        if !fits || outgoing.is_held() || !self.batches.get() {
            self.send_what_is_there(source)?;
            return send(source, bytes);
        }
        if let Some(error) = outgoing.failure.take() {
            return Err(error);
        }
        {
            let mut room = outgoing.bytes.borrow_mut();
            if room.capacity() == 0 {
                *room = self.free.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(LONGEST));
            }
            room.extend_from_slice(bytes);
        }
        if outgoing.state.replace(State::Listed) == State::Empty {
            self.list(source);
        }
        Ok(bytes.len())
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

    fn send_batch(&self, mut due: impl ExactSizeIterator<Item = Rc<Source>>) {
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
                due.by_ref().for_each(|source| self.send_now(&source));
                None
            }
        };
        if let Some(error) = failure {
            tracing::error!(%error, "the operating system sends nothing by io_uring any more: it is not used from now on");
            *ring = None;
            self.batches.set(false);
        }
    }

    /// Sends what was taken for a peer, as far as that goes without waiting.
    ///
    /// # Errors
    /// `WouldBlock` if that is not all of it, and as [`Self::post`].
    pub(super) fn send_what_is_there(&self, source: &Source) -> io::Result<()> {
        let outgoing = &source.outgoing;
        if !outgoing.bytes.borrow().is_empty() {
            // For one that is held the operating system must have said that it takes more, or nothing any more.
            let tries = !outgoing.is_held() || source.is_ready(Direction::Write);
            if tries {
                let held = outgoing.is_held();
                self.send_now(source);
                if held && outgoing.is_held() {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
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
    fn note(&self, source: &Source, mut bytes: Vec<u8>, sent: Sent) {
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
    let sent = source.try_io(Direction::Write, |fd| Ok(rustix::net::send(fd, bytes, SendFlags::NOSIGNAL)?));
    if matches!(sent, Ok(n) if (1..bytes.len()).contains(&n)) {
        source.found_nothing(Direction::Write);
    }
    sent
}

fn wipe(bytes: Option<&mut [u8]>) {
    let bytes = bytes.unwrap_or_default();
    bytes.fill(0);
    // Else a compiler may see that nobody reads that.
    black_box(bytes);
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;
    use std::thread;

    use proptest::prelude::*;
    use socket2::SockRef;

    use super::super::executor::{run, spawn, with_reactor, yield_now};
    use super::super::reactor::Watched;
    use super::*;

    fn pair() -> (UnixStream, Watched) {
        let (peer, own) = UnixStream::pair().unwrap();
        own.set_nonblocking(true).unwrap();
        (peer, Watched::new(own).unwrap())
    }

    /// In both ways, where there are two.
    fn in_both_ways<F: Future<Output = ()>>(test: impl Fn() -> F) {
        for ring in [None, Ring::new().ok()] {
            run(ring, test()).unwrap();
        }
    }

    /// By a ring, where there is one.
    fn where_bytes_are_kept<F: Future<Output = ()>>(test: impl Fn() -> F) {
        if let Ok(ring) = Ring::new() {
            run(Some(ring), test()).unwrap();
        }
    }

    async fn write(own: &Watched, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let n = poll_fn(|cx| own.poll_io(Direction::Write, cx, || own.post(bytes))).await?;
            bytes = &bytes[n..];
        }
        Ok(())
    }

    /// Before long, whoever writes is told that nobody reads any more.
    async fn is_told(own: &Watched) {
        let mut tries = 0;
        while write(own, b"y").await.is_ok() {
            yield_now().await;
            tries += 1;
            assert!(tries < 3, "nobody says so");
        }
    }

    fn pattern(from: usize, n: usize) -> Vec<u8> {
        (from..from + n).map(|at| u8::try_from(at % 251).unwrap()).collect()
    }

    #[test]
    fn everyone_gets_what_was_written_in_its_order() {
        in_both_ways(async || {
            // More than go by one call.
            let mut pairs: Vec<_> = (0..3 * SENDS).map(|_| pair()).collect();
            for turn in 0..3 {
                for (_, own) in &pairs {
                    write(own, &pattern(turn * 10, 4)).await.unwrap();
                    write(own, &pattern(turn * 10 + 4, 6)).await.unwrap();
                }
            }
            yield_now().await;
            for (peer, _) in &mut pairs {
                let mut seen = [0; 30];
                peer.read_exact(&mut seen).unwrap();
                assert_eq!(seen, *pattern(0, 30));
            }
        });
    }

    #[test]
    fn who_is_gone_has_sent_what_it_wrote() {
        in_both_ways(async || {
            let mut pairs: Vec<_> = (0..3).map(|_| pair()).collect();
            for (_, own) in &pairs {
                write(own, b"last words").await.unwrap();
            }
            let peers: Vec<_> = pairs.drain(..).map(|(peer, _)| peer).collect();
            yield_now().await;
            for mut peer in peers {
                let mut seen = String::new();
                peer.read_to_string(&mut seen).unwrap();
                assert_eq!(seen, "last words");
            }
        });
        // Also when the thread runs no task any more.
        for ring in [None, Ring::new().ok()] {
            let peers = run(ring, async {
                let pairs: Vec<_> = (0..3).map(|_| pair()).collect();
                for (_, own) in &pairs {
                    write(own, b"last words").await.unwrap();
                }
                pairs.into_iter().map(|(peer, _)| peer).collect::<Vec<_>>()
            });
            for mut peer in peers.unwrap() {
                let mut seen = String::new();
                peer.read_to_string(&mut seen).unwrap();
                assert_eq!(seen, "last words");
            }
        }
    }

    #[test]
    fn who_waits_until_it_is_sent_can_go() {
        where_bytes_are_kept(async || {
            let (mut peer, own) = pair();
            let (mut other, second) = pair();
            // Its room is all but full, of which only a try finds out.
            let mut written = 0;
            while let Ok(n) = rustix::net::send(&own, &pattern(written, 1000), SendFlags::NOSIGNAL) {
                written += n;
            }
            write(&own, &pattern(written, 4000)).await.unwrap();
            write(&second, b"x").await.unwrap();
            written += 4000;
            let reader = thread::spawn(move || {
                let mut seen = Vec::new();
                peer.read_to_end(&mut seen).unwrap();
                seen
            });
            poll_fn(|cx| own.poll_sent(cx)).await.unwrap();
            drop(own);
            yield_now().await;
            assert!(reader.join().unwrap() == pattern(0, written));
            other.read_exact(&mut [0]).unwrap();
        });
    }

    #[test]
    fn who_writes_to_nobody_is_told() {
        in_both_ways(async || {
            let pairs: Vec<_> = (0..3).map(|_| pair()).collect();
            for (_, own) in &pairs {
                write(own, b"x").await.unwrap();
            }
            let owns: Vec<_> = pairs.into_iter().map(|(_, own)| own).collect();
            yield_now().await;
            for own in &owns {
                is_told(own).await;
                // And it stays so, also for what is not kept, and who waits for it to be sent.
                assert!(write(own, &[0; 2 * LONGEST]).await.is_err());
                assert!(write(own, b"z").await.is_err() || poll_fn(|cx| own.poll_sent(cx)).await.is_err());
            }
        });
    }

    #[test]
    fn who_waits_for_an_answer_to_what_was_lost_sees_the_end() {
        in_both_ways(async || {
            let (mut peer, own) = pair();
            write(&own, b"kept").await.unwrap();
            yield_now().await;
            peer.read_exact(&mut [0; 4]).unwrap();
            // A send that fails for want of memory says nothing of the connection, which is still open.
            with_reactor(|reactor| {
                reactor.outbox().note(&own.0, b"lost".to_vec(), Err(io::ErrorKind::OutOfMemory.into()));
            });
            let read = poll_fn(|cx| {
                own.poll_io(Direction::Read, cx, || {
                    own.try_io(Direction::Read, |fd| Ok(rustix::io::read(fd, &mut [0; 8])?))
                })
            });
            assert_eq!(read.await.unwrap(), 0);
            assert_eq!(write(&own, b"behind it").await.unwrap_err().kind(), io::ErrorKind::OutOfMemory);
            is_told(&own).await;
            assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
        });
    }

    #[test]
    fn who_waits_for_room_goes_on_when_it_is_there() {
        where_bytes_are_kept(async || {
            let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let own = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            own.set_nonblocking(true).unwrap();
            let own = Watched::new(own).unwrap();
            let (mut peer, _) = listener.accept().unwrap();
            let (_other, second) = pair();
            let mut written = 0;
            while let Ok(n) = rustix::net::send(&own, &pattern(written, 10_000), SendFlags::NOSIGNAL) {
                written += n;
            }
            // What can be kept until there is room. The operating system says so once, and nothing else wakes the thread.
            write(&own, &pattern(written, 4000)).await.unwrap();
            write(&second, b"x").await.unwrap();
            written += 4000;
            yield_now().await;
            assert!(own.0.outgoing.is_held());
            let (said, told) = std::sync::mpsc::channel();
            let reader = thread::spawn(move || {
                let mut seen = vec![0; written];
                peer.read_exact(&mut seen).unwrap();
                assert!(seen == pattern(0, written));
                peer.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
                let heard = peer.read_exact(&mut [0]).is_ok();
                said.send(heard).unwrap();
                // Whoever sleeps is woken, to be told so.
                let _ = peer.write_all(b"x");
            });
            write(&own, b"y").await.unwrap();
            yield_now().await;
            assert!(told.recv().unwrap(), "it slept");
            reader.join().unwrap();
        });
    }

    /// What the tests of a ring would not find out: that there is none, where there should be.
    #[test]
    fn there_is_a_ring_where_the_operating_system_has_one_for_us() {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let release = read("/proc/sys/kernel/osrelease");
        let numbers: Vec<u32> = release.split(['.', '-']).map_while(|n| n.parse().ok()).collect();
        let forbidden = !matches!(read("/proc/sys/kernel/io_uring_disabled").trim(), "" | "0");
        let filtered =
            !read("/proc/self/status").lines().any(|line| line.split_whitespace().eq(["Seccomp:", "0"]));
        if numbers >= vec![5, 13] && !forbidden && !filtered {
            assert!(Ring::new().is_ok(), "{:?}", Ring::new().err());
        }
    }

    #[test]
    fn who_held_bytes_back_and_goes_leaves_an_error() {
        where_bytes_are_kept(async || {
            let (peer, own) = pair();
            let (_other, second) = pair();
            while rustix::net::send(&own, &[0; 1000], SendFlags::NOSIGNAL).is_ok() {}
            write(&own, &[0; 4000]).await.unwrap();
            write(&second, b"x").await.unwrap();
            yield_now().await;
            spawn(async move {
                yield_now().await;
                drop(peer);
            });
            is_told(&own).await;
        });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Whatever is written, and however slowly it is read.
        #[test]
        fn nothing_is_lost_or_changes_its_place(
            lengths in proptest::collection::vec((0..3usize, prop_oneof![1..200usize, 1..6000usize]), 1..120),
            room in 2_000..20_000usize,
            reads in 100..5_000usize,
        ) {
            in_both_ways(async || {
                let pairs: Vec<_> = (0..3).map(|_| pair()).collect();
                let (mut owns, mut readers) = (Vec::new(), Vec::new());
                for (mut peer, own) in pairs {
                    SockRef::from(&own).set_send_buffer_size(room).unwrap();
                    owns.push((own, 0));
                    readers.push(thread::spawn(move || {
                        let (mut seen, mut bytes) = (Vec::new(), vec![0; reads]);
                        while let n @ 1.. = peer.read(&mut bytes).unwrap() {
                            seen.extend_from_slice(&bytes[..n]);
                            thread::yield_now();
                        }
                        seen
                    }));
                }
                for (to, length) in &lengths {
                    let (own, written) = &mut owns[*to];
                    write(own, &pattern(*written, *length)).await.unwrap();
                    *written += length;
                }
                let mut all = Vec::new();
                for (own, written) in owns {
                    poll_fn(|cx| own.poll_sent(cx)).await.unwrap();
                    all.push(written);
                }
                // They are closed in the next turn.
                yield_now().await;
                for (reader, written) in readers.into_iter().zip(all) {
                    assert!(reader.join().unwrap() == pattern(0, written));
                }
            });
        }
    }
}
