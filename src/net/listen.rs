//! Listening sockets.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::task::{Context, Poll, ready};

use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::reactor::Watched;
use super::socket::tune;
use super::source::Direction;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Listens on an address for clients, to be accepted by a worker.
///
/// # Errors
/// As the operating system says.
pub fn listen_for_clients(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = bind(address)?;
    // Linux hands these options on to every connection that is accepted (`inet_csk_clone_lock` copies the socket).
    tune(&socket);
    defer(&socket);
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Clients are accepted when they have said something, as all do at once: there is one thing to wake up for, not two. Who is
/// silent is accepted after the second, which is as little as Linux knows.
#[cfg(target_os = "linux")]
fn defer(socket: &Socket) {
    use nix::{libc, setsockopt_impl, sockopt_impl};
    sockopt_impl!(DeferAccept, SetOnly, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, u32);
    // Without it, they are accepted before that.
    let _ = nix::sys::socket::setsockopt(socket, DeferAccept, &1);
}

#[cfg(not(target_os = "linux"))]
fn defer(_: &Socket) {}

/// Where clients come in, on a thread that [`super::run`]s.
#[derive(Debug)]
pub struct Listener(Watched);

impl Listener {
    /// Takes one that does not block.
    ///
    /// # Errors
    /// The operating system has no room for it, or the thread does not run tasks in that way.
    pub fn new(listener: std::net::TcpListener) -> io::Result<Self> {
        Watched::silent(listener).map(Self)
    }

    /// Waits for a client. Its socket does not block, and nobody watches it yet.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let accept = || self.0.try_io(Direction::Read, |listener| Ok(acceptfrom_with(listener, flags)?));
        let (socket, address) = ready!(self.0.poll_io(Direction::Read, cx, accept))?;
        let address = address.and_then(|address| SocketAddr::try_from(address).ok());
        let address = address.ok_or(io::ErrorKind::ConnectionAborted)?;
        Poll::Ready(Ok((socket.into(), address)))
    }
}

/// Listens on an address. To be called within a runtime.
///
/// # Errors
/// As the operating system says.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bind(address)?;
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn who_has_said_nothing_yet_is_not_accepted_yet() {
        // Not if a second passes meanwhile, as may be where much else runs.
        let deferred = (0..5).any(|_| {
            let listener = listen_for_clients(([127, 0, 0, 1], 0).into()).unwrap();
            let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let early = listener.accept();
            peer.write_all(b"x").unwrap();
            matches!(early, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
                && listener.accept().is_ok()
        });
        assert!(deferred);
    }
}
