//! TLS on one connection: records in, plaintext out, and the other way round. Nothing here waits but the handshake.

use std::fmt;
use std::io::{self, BufRead as _, Read, Write};
use std::sync::Arc;

use bytes::BytesMut;
use rustls::{ClientConnection, Connection, ServerConnection};
use tokio::io::ReadBuf;

use super::accept::Shown;
use super::certificate::Certificate;
use crate::net::invalid_data;
use crate::net::socket::Socket;

/// TLS with one peer.
pub struct Session {
    tls: Connection,
    /// Plaintext may be waiting that nobody has asked for yet.
    plaintext: bool,
    /// On our side as a server: what clients may be shown.
    shown: Option<Arc<Shown>>,
}

/// A socket as TLS sees it: it never waits.
struct Now<'a>(&'a Socket);

impl Read for Now<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(bytes)
    }
}

impl Write for Now<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Session {
    /// With a client, who is shown one of these.
    pub(super) fn server(tls: ServerConnection, shown: Arc<Shown>) -> Self {
        Self { tls: tls.into(), plaintext: false, shown: Some(shown) }
    }

    /// With a server.
    pub(super) fn client(tls: ClientConnection) -> Self {
        Self { tls: tls.into(), plaintext: false, shown: None }
    }

    /// Agrees on keys. `received` are bytes of the peer's that have been read already.
    pub(in crate::net) async fn shake_hands(
        &mut self,
        socket: &Socket,
        received: BytesMut,
    ) -> io::Result<()> {
        let mut early = &received[..];
        while self.tls.is_handshaking() || self.tls.wants_write() {
            while !self.send(socket)? {
                socket.writable().await?;
            }
            if !self.tls.is_handshaking() {
                break;
            }
            let read = if early.is_empty() {
                socket.readable().await?;
                self.tls.read_tls(&mut Now(socket))
            } else {
                self.tls.read_tls(&mut early)
            };
            match read {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            }
            self.process(socket)?;
        }
        while !early.is_empty() {
            self.tls.read_tls(&mut early)?;
            self.process(socket)?;
        }
        Ok(())
    }

    /// The hash of the server's certificate, whichever side that is, for `tls-server-end-point` (RFC 5929); `None` if
    /// its kind has none.
    #[must_use]
    pub fn end_point(&self) -> Option<Vec<u8>> {
        match &self.shown {
            Some(shown) => shown.to(self.server_name())?.end_point.clone(),
            None => self.peer()?.end_point(),
        }
    }

    /// The peer's certificate, which has been verified as the configuration wants it.
    #[must_use]
    pub fn peer(&self) -> Option<Certificate> {
        Certificate::read(self.tls.peer_certificates()?.first()?)
    }

    /// The protocol that was agreed on by ALPN.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.tls.alpn_protocol()
    }

    /// The host that the client wanted (SNI).
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        match &self.tls {
            Connection::Server(server) => server.server_name(),
            Connection::Client(_) => None,
        }
    }

    pub(in crate::net) fn has_plaintext(&self) -> bool {
        self.plaintext
    }

    pub(in crate::net) fn has_unsent(&self) -> bool {
        self.tls.wants_write()
    }

    /// Reads into the room that the buffer has; `None` if nothing is there, 0 at the end.
    pub(in crate::net) fn try_read(
        &mut self,
        socket: &Socket,
        buffer: &mut BytesMut,
    ) -> io::Result<Option<usize>> {
        let room = buffer.capacity() - buffer.len();
        self.pull(socket, room, |bytes| buffer.extend_from_slice(bytes))
    }

    /// The same for tokio's buffers; `false` if nothing is there.
    pub(in crate::net) fn try_read_into(
        &mut self,
        socket: &Socket,
        buffer: &mut ReadBuf<'_>,
    ) -> io::Result<bool> {
        let room = buffer.remaining();
        Ok(self.pull(socket, room, |bytes| buffer.put_slice(bytes))?.is_some())
    }

    fn pull(
        &mut self,
        socket: &Socket,
        room: usize,
        mut take: impl FnMut(&[u8]),
    ) -> io::Result<Option<usize>> {
        if room == 0 {
            return Ok(Some(0));
        }
        loop {
            match self.tls.reader().fill_buf() {
                // The peer has said good-bye.
                Ok([]) => return Ok(Some(0)),
                Ok(chunk) => {
                    let n = chunk.len().min(room);
                    take(chunk.get(..n).unwrap_or_default());
                    let mut reader = self.tls.reader();
                    reader.consume(n);
                    self.plaintext = reader.fill_buf().is_ok_and(|rest| !rest.is_empty());
                    return Ok(Some(n));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // It has hung up without a word, as most clients do.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Some(0)),
                Err(error) => return Err(error),
            }
            self.plaintext = false;
            match self.tls.read_tls(&mut Now(socket)) {
                Ok(_) => self.process(socket)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes what has been read; answers of TLS itself, alerts too, are sent as far as that goes.
    fn process(&mut self, socket: &Socket) -> io::Result<()> {
        let result = self.tls.process_new_packets().map(|_| ()).map_err(invalid_data);
        let sent = self.send(socket);
        result.and(sent.map(|_| ()))
    }

    /// Sends what is waiting as far as that goes without waiting: whether that was all.
    pub(in crate::net) fn send(&mut self, socket: &Socket) -> io::Result<bool> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Now(socket)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Takes as much as it has room for once all before has gone out; 0 if that has to wait.
    pub(in crate::net) fn try_write(&mut self, socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
        if !self.send(socket)? || bytes.is_empty() {
            return Ok(0);
        }
        let n = self.tls.writer().write(bytes)?;
        self.send(socket)?;
        Ok(n)
    }

    pub(in crate::net) fn say_goodbye(&mut self) {
        self.tls.send_close_notify();
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({:?})", self.tls.protocol_version())
    }
}
