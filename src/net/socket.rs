//! A socket, TCP or Unix: what the operating system gives.

use std::io;
use std::mem::MaybeUninit;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use socket2::{SockRef, TcpKeepalive};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

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

/// A socket to a client or a server.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

impl Socket {
    /// Connects to a host and port, or to the socket of that port in the directory `host` if it starts with a slash.
    ///
    /// # Errors
    /// As the operating system says.
    pub async fn connect(host: &str, port: u16) -> io::Result<Self> {
        if host.starts_with('/') {
            let path = Path::new(host).join(format!(".s.PGSQL.{port}"));
            return UnixStream::connect(path).await.map(Self::Unix);
        }
        let stream = TcpStream::connect((host, port)).await?;
        tune(&SockRef::from(&stream));
        Ok(Self::Tcp(stream))
    }

    /// Waits until there is something to read, or the end.
    ///
    /// # Errors
    /// As the operating system says.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(s) => s.readable().await,
            Self::Unix(s) => s.readable().await,
        }
    }

    /// Like [`Self::readable`], for use in a hand-written future.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(s) => s.poll_read_ready(cx),
            Self::Unix(s) => s.poll_read_ready(cx),
        }
    }

    /// Like [`Self::writable`], for use in a hand-written future.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(s) => s.poll_write_ready(cx),
            Self::Unix(s) => s.poll_write_ready(cx),
        }
    }

    /// Waits until it can be written to.
    ///
    /// # Errors
    /// As the operating system says.
    pub async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(s) => s.ready(Interest::WRITABLE).await.map(|_| ()),
            Self::Unix(s) => s.ready(Interest::WRITABLE).await.map(|_| ()),
        }
    }

    /// Reads what is there into the room that `buffer` has, without waiting; 0 is the end, or a buffer without room.
    ///
    /// # Errors
    /// As the operating system says; `WouldBlock` if nothing is there.
    pub fn try_read_into(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        let room = buffer.capacity() - buffer.len();
        let read = match self {
            Self::Tcp(s) => s.try_read_buf(buffer),
            Self::Unix(s) => s.try_read_buf(buffer),
        };
        if matches!(read, Ok(n) if (1..room).contains(&n)) {
            self.drained();
        }
        read
    }

    /// Nothing was left to read: the operating system reports what has come since. (As tokio's own reads have it. No report
    /// can have been taken in since that read: this thread's runtime does that, between tasks.)
    fn drained(&self) {
        let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        let _ = match self {
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
            Self::Tcp(s) => s.try_read(bytes),
            Self::Unix(s) => s.try_read(bytes),
        }
    }

    /// Writes as much as goes without waiting.
    ///
    /// # Errors
    /// As the operating system says; `WouldBlock` if nothing goes.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.try_write(bytes),
            Self::Unix(s) => s.try_write(bytes),
        }
    }

    /// Whether an idle connection is still open and has nothing to say: the operating system is not
    /// asked unless it has reported something.
    pub fn is_quiet(&self) -> bool {
        let mut room = [MaybeUninit::uninit()];
        let seen = match self {
            Self::Tcp(s) => s.try_io(Interest::READABLE, || SockRef::from(s).peek(&mut room)),
            Self::Unix(s) => s.try_io(Interest::READABLE, || SockRef::from(s).peek(&mut room)),
        };
        seen.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_read(cx, buffer),
            Self::Unix(s) => Pin::new(s).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_write(cx, bytes),
            Self::Unix(s) => Pin::new(s).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Sockets hold nothing back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Self::Unix(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}
