//! A socket, TCP or Unix: what the operating system gives.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Shutdown, SocketAddr, ToSocketAddrs as _};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustix::buffer::{Buffer, spare_capacity};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use socket2::{Domain, SockAddr, SockRef, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::buffers::USUAL;
use super::executor::runs_here;
use super::reactor::Watched;
use super::source::Direction;
use super::unblock::unblock;

/// Without Nagle's delay, and with keepalive, so that a peer which vanished is noticed.
pub(super) fn tune(socket: &socket2::Socket) {
    // No TCP_USER_TIMEOUT: it also ends connections to a peer that is alive and does not read for a while.
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    // A connection that cannot be tuned still works.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&keepalive);
}

thread_local! {
    /// Where bytes are read to whose room has none yet: what the operating system is given must be initialized, and a buffer
    /// does not say how much of its room is. What was read does not stay: there may be a password in it.
    static LANDING: RefCell<[u8; USUAL]> = const { RefCell::new([0; USUAL]) };
}

/// A socket to a client or a server, watched by the thread that it is on: as [`super::run`] does it, or by a tokio runtime.
#[derive(Debug)]
pub enum Socket {
    /// Of a thread that [`super::run`]s.
    Own(OwnSocket),
    /// TCP, of a tokio runtime. Boxed, as the other two are, for the many that are not of one.
    Tcp(Box<TcpStream>),
    /// A Unix socket, of a tokio runtime.
    Unix(Box<UnixStream>),
}

/// TCP or Unix, of a thread that [`super::run`]s.
#[derive(Debug)]
pub struct OwnSocket(Watched);

impl Socket {
    /// Takes a TCP connection that does not block, and is tuned.
    ///
    /// # Errors
    /// The operating system has no room for it.
    pub fn tcp(stream: std::net::TcpStream) -> io::Result<Self> {
        if !runs_here() {
            return TcpStream::from_std(stream).map(|stream| Self::Tcp(stream.into()));
        }
        Watched::new(stream).map(|watched| Self::Own(OwnSocket(watched)))
    }

    /// Connects to a host and port, or to the socket of that port in the directory `host` if it starts with a slash.
    ///
    /// # Errors
    /// As the operating system says.
    pub async fn connect(host: &str, port: u16) -> io::Result<Self> {
        let path = host.starts_with('/').then(|| Path::new(host).join(format!(".s.PGSQL.{port}")));
        if runs_here() {
            let socket = match path {
                Some(path) => OwnSocket::connect(&SockAddr::unix(path)?).await?,
                None => OwnSocket::connect_to(host, port).await?,
            };
            return Ok(Self::Own(socket));
        }
        if let Some(path) = path {
            return UnixStream::connect(path).await.map(|stream| Self::Unix(stream.into()));
        }
        let stream = TcpStream::connect((host, port)).await?;
        tune(&SockRef::from(&stream));
        Ok(Self::Tcp(stream.into()))
    }

    /// Whether it can be given up for another thread: nothing that it was given is still to be sent.
    pub(super) fn may_move(&self) -> bool {
        matches!(self, Self::Own(s) if s.0.is_sent())
    }

    /// Gives it up for another thread, which makes it its own by [`Self::settle`].
    ///
    /// # Errors
    /// As the operating system says, or [`Self::may_move`] is not so; it is closed then.
    pub(super) fn release(self) -> io::Result<OwnedFd> {
        match self {
            Self::Own(s) => s.0.release(),
            Self::Tcp(_) | Self::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Takes one that another thread has given up.
    ///
    /// # Errors
    /// The operating system has no room for it, or this thread does not [`super::run`].
    pub(super) fn settle(fd: OwnedFd) -> io::Result<Self> {
        // What has come meanwhile has been reported to nobody: it is looked for at once.
        Watched::new(fd).map(|watched| Self::Own(OwnSocket(watched)))
    }

    /// Waits until there is something to read, or the end.
    ///
    /// # Errors
    /// As the operating system says.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_readable(cx)).await
    }

    /// Like [`Self::readable`], for use in a hand-written future.
    #[inline]
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Own(s) => s.0.poll_ready(Direction::Read, cx).map(Ok),
            Self::Tcp(s) => s.poll_read_ready(cx),
            Self::Unix(s) => s.poll_read_ready(cx),
        }
    }

    /// Like [`Self::writable`], for use in a hand-written future.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Own(s) => s.0.poll_ready(Direction::Write, cx).map(Ok),
            Self::Tcp(s) => s.poll_write_ready(cx),
            Self::Unix(s) => s.poll_write_ready(cx),
        }
    }

    /// Waits until it can be written to.
    ///
    /// # Errors
    /// As the operating system says.
    pub async fn writable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_writable(cx)).await
    }

    /// Reads what is there into the room that `buffer` has, without waiting; 0 is the end, or a buffer without room.
    ///
    /// # Errors
    /// As the operating system says; `WouldBlock` if nothing is there.
    #[inline]
    pub fn try_read_into(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        let room = buffer.capacity() - buffer.len();
        let read = match self {
            Self::Own(s) => return s.try_read_into(buffer, room),
            Self::Tcp(s) => s.try_read_buf(buffer),
            Self::Unix(s) => s.try_read_buf(buffer),
        };
        if matches!(read, Ok(n) if (1..room).contains(&n)) {
            self.drained();
        }
        read
    }

    /// Nothing was left to read: the operating system reports what has come since. (As tokio's own reads have it. No report
    /// can have been taken in since that read: this thread does that, between tasks.)
    fn drained(&self) {
        let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        let _ = match self {
            // It sees to that itself.
            Self::Own(_) => return,
            Self::Tcp(s) => s.try_io(Interest::READABLE, nothing),
            Self::Unix(s) => s.try_io(Interest::READABLE, nothing),
        };
    }

    /// Reads what is there, without waiting.
    ///
    /// # Errors
    /// As the operating system says; `WouldBlock` if nothing is there.
    pub fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Own(s) => s.try_read(bytes),
            Self::Tcp(s) => s.try_read(bytes),
            Self::Unix(s) => s.try_read(bytes),
        }
    }

    /// Writes as much as goes without waiting.
    ///
    /// # Errors
    /// As the operating system says; `WouldBlock` if nothing goes.
    #[inline]
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Own(s) => s.0.post(bytes),
            Self::Tcp(s) => s.try_write(bytes),
            Self::Unix(s) => s.try_write(bytes),
        }
    }

    /// Sends what was taken, as far as that goes without waiting.
    pub(super) fn send_at_once(&self) {
        if let Self::Own(s) = self {
            s.0.send_at_once();
        }
    }

    /// Whether an idle connection is still open and has nothing to say: the operating system is not
    /// asked if it is known to have reported nothing.
    pub fn is_quiet(&self) -> bool {
        let mut room = [MaybeUninit::uninit()];
        let seen = match self {
            Self::Own(s) => s.0.try_io(Direction::Read, |s| SockRef::from(&s).peek(&mut room)),
            Self::Tcp(s) => s.try_io(Interest::READABLE, || SockRef::from(s).peek(&mut room)),
            Self::Unix(s) => s.try_io(Interest::READABLE, || SockRef::from(s).peek(&mut room)),
        };
        seen.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl OwnSocket {
    async fn connect_to(host: &str, port: u16) -> io::Result<Self> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Self::connect_tcp(SocketAddr::new(address, port)).await;
        }
        let host = host.to_owned();
        let addresses = unblock(move || (host, port).to_socket_addrs()).await??;
        let mut failure = io::Error::new(io::ErrorKind::InvalidInput, "the host has no address");
        for address in addresses {
            match Self::connect_tcp(address).await {
                Ok(socket) => return Ok(socket),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn connect_tcp(address: SocketAddr) -> io::Result<Self> {
        let connected = Self::connect(&address.into()).await?;
        tune(&SockRef::from(&*connected.0));
        Ok(connected)
    }

    async fn connect(address: &SockAddr) -> io::Result<Self> {
        let socket = socket2::Socket::new(Domain::from(i32::from(address.family())), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        match socket.connect(address) {
            // Of TCP; where a Unix socket has no room for one more, that is an error of another kind.
            Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
            result => result?,
        }
        let watched = Watched::silent(socket)?;
        poll_fn(|cx| watched.poll_ready(Direction::Write, cx)).await;
        match SockRef::from(&*watched).take_error()? {
            Some(error) => Err(error),
            None => Ok(Self(watched)),
        }
    }

    fn try_read_into(&self, buffer: &mut BytesMut, room: usize) -> io::Result<usize> {
        if room > USUAL {
            return self.try_read_much(buffer);
        }
        LANDING.with_borrow_mut(|landing| {
            let n = self.try_read(&mut landing[..room])?;
            buffer.extend_from_slice(&landing[..n]);
            landing[..n].fill(0);
            Ok(n)
        })
    }

    /// Reads to where the bytes stay: only a `Vec` can be told without `unsafe` how much of its room the operating system has
    /// initialized. That takes an allocation, so little is rather copied.
    ///
    /// Less than there was room for does not mean that nothing more is there: while this is passed on, more comes.
    fn try_read_much(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        if !self.0.is_ready(Direction::Read) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut bytes = Vec::from(std::mem::take(buffer));
        // Nothing would be taken for the end.
        debug_assert!(bytes.capacity() > bytes.len());
        let read = self.0.try_io(Direction::Read, |s| receive(s, spare_capacity(&mut bytes)));
        // Nobody shares it, so that nothing is copied.
        *buffer = BytesMut::from(Bytes::from(bytes));
        read
    }

    #[inline]
    fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.try_move(Direction::Read, bytes.len(), |s| receive(s, bytes))
    }
}

/// Reads, as only sockets can be read: `read` costs the kernel a twentieth more, as it may be of any file.
#[inline]
fn receive(socket: BorrowedFd<'_>, room: impl Buffer<u8>) -> io::Result<usize> {
    let (_, n) = rustix::net::recv(socket, room, RecvFlags::empty())?;
    Ok(n)
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Own(s) => {
                let read = s.0.poll_io(Direction::Read, cx, || s.try_read(buffer.initialize_unfilled()));
                read.map_ok(|n| buffer.advance(n))
            }
            Self::Tcp(s) => Pin::new(s).poll_read(cx, buffer),
            Self::Unix(s) => Pin::new(s).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Own(s) => s.0.poll_io(Direction::Write, cx, || s.0.post(bytes)),
            Self::Tcp(s) => Pin::new(s).poll_write(cx, bytes),
            Self::Unix(s) => Pin::new(s).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Own(s) => s.0.poll_sent(cx),
            // These hold nothing back.
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Own(s) => {
                ready!(s.0.poll_sent(cx))?;
                Poll::Ready(match SockRef::from(&*s.0).shutdown(Shutdown::Write) {
                    // The peer was faster.
                    Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
                    result => result,
                })
            }
            Self::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Self::Unix(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}
