//! A connection: a socket, and TLS on it if that was agreed on.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::executor::{defer, poll_step, step};
use super::socket::Socket;
use super::tls::Session;

/// A connection to a client or a server.
#[derive(Debug)]
pub struct Stream {
    socket: Socket,
    tls: Option<Box<Session>>,
    /// How often something was there to read since there last was nothing.
    reads: Cell<u8>,
}

/// A connection on its way from one thread to another.
#[derive(Debug)]
pub struct Released {
    socket: OwnedFd,
    tls: Option<Box<Session>>,
}

impl Released {
    /// Makes it this thread's own.
    ///
    /// # Errors
    /// The operating system has no room for it, or this thread does not [`super::run`].
    pub fn settle(self) -> io::Result<Stream> {
        Ok(Stream { tls: self.tls, ..Stream::on(Socket::settle(self.socket)?) })
    }
}

/// A peer that always has more must not keep the thread for one client: after so many reads in a row others have a turn.
const IN_A_ROW: u8 = 32;

impl Stream {
    /// Takes a TCP connection that does not block.
    ///
    /// # Errors
    /// The operating system has no room for it.
    pub fn tcp(stream: std::net::TcpStream) -> io::Result<Self> {
        Socket::tcp(stream).map(Self::on)
    }

    fn on(socket: Socket) -> Self {
        Self { socket, tls: None, reads: Cell::default() }
    }

    /// Whether it can go to another thread now: nothing that was taken is still to be sent, and nothing has been read that
    /// nobody has asked for yet.
    #[must_use]
    pub fn may_move(&self) -> bool {
        let plain = self.tls.as_ref().is_none_or(|tls| !tls.has_plaintext() && !tls.has_unsent());
        plain && self.socket.may_move()
    }

    /// Gives it up for another thread.
    ///
    /// # Errors
    /// As the operating system says, or [`Self::may_move`] is not so; it is closed then.
    pub fn release(self) -> io::Result<Released> {
        Ok(Released { socket: self.socket.release()?, tls: self.tls })
    }

    /// Connects to a host and port, or to the socket of that port in the directory `host` if it starts with a slash.
    ///
    /// # Errors
    /// As the operating system says.
    pub async fn connect(host: &str, port: u16) -> io::Result<Self> {
        Socket::connect(host, port).await.map(Self::on)
    }

    /// Goes over to TLS. `received` are bytes of the peer's that have been read already.
    ///
    /// # Errors
    /// The connection broke, or the peers did not agree; the peer has been told then.
    pub async fn secure(&mut self, mut session: Session, received: BytesMut) -> io::Result<()> {
        session.shake_hands(&self.socket, received).await?;
        self.tls = Some(Box::new(session));
        Ok(())
    }

    /// What is known of the encryption; `None` if there is none.
    #[must_use]
    pub fn tls(&self) -> Option<&Session> {
        self.tls.as_deref()
    }

    /// Waits until there may be something to read, or the end.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.tls.as_ref().is_some_and(|tls| tls.has_plaintext()) {
            return Poll::Ready(Ok(()));
        }
        let ready = self.socket.poll_readable(cx);
        if ready.is_pending() {
            self.reads.set(0);
        }
        ready
    }

    /// Waits until it can be written to.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_writable(cx)
    }

    /// Reads what is there into the room that `buffer` has; 0 is the end, or a buffer without room.
    ///
    /// # Errors
    /// As the operating system says, or what came is not TLS.
    pub async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read_into(cx, buffer)).await
    }

    /// Like [`Self::read`], for use in a hand-written future. After it was pending, and the task was woken, it is
    /// cheaper to call it again than to ask [`Self::poll_readable`] first.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn poll_read_into(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        // Not by the budget of a turn, which others may have spent.
        while self.reads.get() < IN_A_ROW {
            if let Some(n) = self.try_read(buffer)? {
                self.reads.set(self.reads.get() + 1);
                return Poll::Ready(Ok(n));
            }
            ready!(self.poll_readable(cx))?;
        }
        self.reads.set(0);
        // Not just to the end of the line of tasks: first the thread looks at what else has come.
        defer(cx);
        Poll::Pending
    }

    /// Reads what is there, without waiting; `None` if nothing is there after all: readiness may be stale.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn try_read(&mut self, buffer: &mut BytesMut) -> io::Result<Option<usize>> {
        let read = match &mut self.tls {
            None => self.socket.try_read_into(buffer),
            Some(tls) => return tls.try_read(&self.socket, buffer),
        };
        match read {
            Ok(n) => Ok(Some(n)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes as much as goes without waiting; 0 if nothing goes. What is taken may still be [`Self::has_unsent`], or be sent
    /// at the end of the thread's turn.
    ///
    /// # Errors
    /// As the operating system says, apart from `WouldBlock`.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = match &mut self.tls {
            None => self.socket.try_write(bytes),
            Some(tls) => return tls.try_write(&self.socket, bytes),
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    }

    /// Whether something that was taken does not go by itself: [`Self::try_write`] of nothing sends more of it.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.has_unsent())
    }

    /// Writes all.
    ///
    /// # Errors
    /// As the operating system says.
    #[inline]
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let n = self.try_write(bytes)?;
        if n == bytes.len() && !self.has_unsent() {
            // What goes without waiting counts as a step, too: a client with a buffer full of messages that need no
            // server would else have the thread for itself.
            step().await;
            return Ok(());
        }
        let mut written = n;
        poll_fn(|cx| self.poll_write_rest(cx, bytes, &mut written)).await
    }

    /// Writes all that there will be, and waits until it is sent: the stream can be closed then.
    ///
    /// # Errors
    /// As the operating system says.
    pub async fn write_last(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes).await?;
        self.sent().await
    }

    /// Waits until everything that was taken is sent. It goes by itself, but not all of it if the peer does not read and the
    /// stream is closed.
    ///
    /// # Errors
    /// As the operating system says.
    pub async fn sent(&mut self) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut *self).poll_flush(cx)).await
    }

    /// Sends what was taken, as far as that goes without waiting, rather than at the end of the thread's turn.
    pub fn send_at_once(&self) {
        self.socket.send_at_once();
    }

    /// Writes all but the first `written` bytes, and counts there what has been taken; for use in a hand-written future.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn poll_write_rest(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        written: &mut usize,
    ) -> Poll<io::Result<()>> {
        while let Some(rest) = bytes.get(*written..)
            && !rest.is_empty()
        {
            let n = ready!(self.poll_write_some(cx, rest))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *written += n;
        }
        self.poll_send(cx)
    }

    fn poll_write_some(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.tls {
            None => Pin::new(&mut self.socket).poll_write(cx, bytes),
            Some(tls) => loop {
                let n = tls.try_write(&self.socket, bytes)?;
                if n > 0 {
                    return Poll::Ready(Ok(n));
                }
                ready!(self.socket.poll_writable(cx))?;
            },
        }
    }

    /// Sends what TLS holds back.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(tls) = &mut self.tls {
            while !tls.send(&self.socket)? {
                ready!(self.socket.poll_writable(cx))?;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether an idle connection is still open and has nothing to say: the operating system is not
    /// asked if it is known to have reported nothing.
    pub fn is_quiet(&self) -> bool {
        self.tls.as_ref().is_none_or(|tls| !tls.has_plaintext()) && self.socket.is_quiet()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Whoever passes on what never ends leaves others a turn.
        ready!(poll_step(cx));
        let this = self.get_mut();
        match &mut this.tls {
            None => Pin::new(&mut this.socket).poll_read(cx, buffer),
            Some(tls) => loop {
                if tls.try_read_into(&this.socket, buffer)? {
                    return Poll::Ready(Ok(()));
                }
                ready!(this.socket.poll_readable(cx))?;
            },
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(poll_step(cx));
        self.get_mut().poll_write_some(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(tls) = &mut this.tls {
            tls.say_goodbye();
        }
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}

/// An error for a peer that says what cannot be.
pub fn invalid_data(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use std::net::TcpListener;

    use tokio::io::AsyncReadExt as _;

    use bytes::Buf as _;

    use super::*;
    use crate::net::buffers::LARGE;
    use crate::net::{Ring, local_runtime, run, spawn, yield_now};

    async fn pair() -> (Stream, Stream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let peer = Stream::connect("127.0.0.1", listener.local_addr().unwrap().port()).await.unwrap();
        let accepted = listener.accept().unwrap().0;
        accepted.set_nonblocking(true).unwrap();
        (peer, Stream::tcp(accepted).unwrap())
    }

    /// On threads of both kinds.
    fn on_both<F: Future<Output = ()>>(test: impl Fn() -> F) {
        local_runtime().unwrap().block_on(test());
        for ring in [None, Ring::new().ok()] {
            run(ring, test()).unwrap();
        }
    }

    #[test]
    fn a_stream_goes_from_thread_to_thread_and_loses_nothing() {
        const ROUNDS: u8 = 200;
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = listener.accept().unwrap().0;
        accepted.set_nonblocking(true).unwrap();
        // The peer speaks whenever it likes, and waits for each answer.
        let speaker = std::thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            for n in 0..ROUNDS {
                peer.write_all(&[n]).unwrap();
                let mut answer = [0];
                peer.read_exact(&mut answer).unwrap();
                assert_eq!(answer[0], n);
            }
        });
        let (there, coming) = std::sync::mpsc::channel::<Released>();
        let (back, returning) = std::sync::mpsc::channel::<Released>();
        let other = std::thread::spawn(move || {
            for _ in 0..ROUNDS / 2 {
                let released = coming.recv().unwrap();
                back.send(run(Ring::new().ok(), serve_one(async { released.settle().unwrap() })).unwrap())
                    .unwrap();
            }
        });
        let mut stream =
            Some(run(None, async { Stream::tcp(accepted).unwrap().release().unwrap() }).unwrap());
        for _ in 0..ROUNDS / 2 {
            let released = stream.take().unwrap();
            let released = run(None, serve_one(async { released.settle().unwrap() })).unwrap();
            there.send(released).unwrap();
            stream = Some(returning.recv().unwrap());
        }
        other.join().unwrap();
        speaker.join().unwrap();
    }

    /// Echoes one byte, and gives the stream up when that has been sent.
    async fn serve_one(stream: impl Future<Output = Stream>) -> Released {
        let mut stream = stream.await;
        let mut room = BytesMut::with_capacity(8);
        assert_eq!(stream.read(&mut room).await.unwrap(), 1);
        assert_eq!(stream.try_write(&room).unwrap(), 1);
        while !stream.may_move() {
            yield_now().await;
        }
        stream.release().unwrap()
    }

    /// How many turns another task has while `work` is done.
    async fn turns_of_others(work: impl Future<Output = ()>) -> usize {
        let turns = Rc::new(Cell::new(0));
        let counted = turns.clone();
        spawn(async move {
            while Rc::strong_count(&counted) > 1 {
                counted.set(counted.get() + 1);
                yield_now().await;
            }
        });
        work.await;
        turns.get()
    }

    #[test]
    fn who_writes_without_waiting_leaves_turns_to_others() {
        on_both(async || {
            let (_peer, mut stream) = pair().await;
            stream.write_all(b"the first write finds out that it can be written").await.unwrap();
            let turns = turns_of_others(async {
                for _ in 0..10_000 {
                    stream.write_all(b"x").await.unwrap();
                }
            });
            let turns = turns.await;
            assert!(turns >= 50, "{turns} turns");
        });
    }

    #[test]
    fn who_copies_what_is_always_there_leaves_turns_to_others() {
        on_both(async || {
            let (mut peer, mut stream) = pair().await;
            peer.write_all(&[1; 10_000]).await.unwrap();
            let turns = turns_of_others(async {
                for _ in 0..10_000 {
                    stream.read_u8().await.unwrap();
                }
            });
            let turns = turns.await;
            assert!(turns >= 50, "{turns} turns");
        });
    }

    #[test]
    fn much_is_read_to_where_it_stays() {
        on_both(async || {
            let (mut peer, mut stream) = pair().await;
            let sent: Vec<u8> = (0..=u8::MAX).cycle().take(LARGE).collect();
            let mut buffer = BytesMut::with_capacity(LARGE);
            let place = buffer.as_ptr();
            assert!(stream.try_read(&mut buffer).unwrap().is_none());
            // All of it at once, and in pieces.
            for pieces in [1, 7] {
                for part in sent.chunks(LARGE / pieces + 1) {
                    peer.write_all(part).await.unwrap();
                    stream.read(&mut buffer).await.unwrap();
                }
                while buffer.len() < LARGE {
                    stream.read(&mut buffer).await.unwrap();
                }
                assert_eq!((&buffer[..], buffer.as_ptr(), buffer.capacity()), (&sent[..], place, LARGE));
                buffer.clear();
            }
            // Behind what is left of it when some was consumed in front.
            buffer.extend_from_slice(b"consumed, left");
            buffer.advance(10);
            assert!(buffer.try_reclaim(LARGE - 4));
            peer.write_all(b" over").await.unwrap();
            stream.read(&mut buffer).await.unwrap();
            assert_eq!((&buffer[..], buffer.as_ptr(), buffer.capacity()), (&b"left over"[..], place, LARGE));
        });
    }

    #[test]
    fn who_reads_what_is_always_there_leaves_turns_to_others() {
        on_both(async || {
            let (mut peer, mut stream) = pair().await;
            peer.write_all(&[1; 10_000]).await.unwrap();
            let turns = turns_of_others(async {
                let mut buffer = BytesMut::with_capacity(1);
                for _ in 0..10_000 {
                    buffer.clear();
                    assert_eq!(stream.read(&mut buffer).await.unwrap(), 1);
                }
            });
            let turns = turns.await;
            assert!(turns >= 200, "{turns} turns");
        });
    }
}
