//! Listening sockets.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::socket::tune;

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
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
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
