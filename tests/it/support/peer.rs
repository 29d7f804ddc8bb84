//! A client that speaks the protocol byte by byte.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::BytesMut;
use tidegate::wire::build;

pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
}

impl Peer {
    pub(crate) fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { stream }
    }

    /// Logs in as `postgres`; everything up to ReadyForQuery is passed over.
    pub(crate) fn log_in(port: u16) -> Self {
        let mut peer = Self::open(port);
        let mut packet = BytesMut::new();
        build::startup(&mut packet, &[("user", "postgres"), ("database", "postgres")]);
        peer.send(&packet);
        peer.until(b'Z');
        peer
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next message; `None` at the end.
    pub(crate) fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head).ok()?;
        let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let mut body = vec![0; len - 4];
        self.stream.read_exact(&mut body).unwrap();
        Some((head[0], body))
    }

    /// All messages up to the first of that type.
    pub(crate) fn until(&mut self, tag: u8) -> Vec<(u8, Vec<u8>)> {
        let mut all = Vec::new();
        loop {
            let message = self.receive().unwrap_or_else(|| panic!("the connection ended: {all:?}"));
            let last = message.0 == tag;
            all.push(message);
            if last {
                return all;
            }
        }
    }

    /// The types of all messages up to ReadyForQuery, and its status.
    pub(crate) fn tags(&mut self) -> String {
        let all = self.until(b'Z');
        let status = char::from(all.last().unwrap().1[0]);
        let tags: String = all.iter().map(|(tag, _)| char::from(*tag)).collect();
        format!("{tags}{status}")
    }
}

/// Messages of the extended protocol, one after the other.
#[derive(Default)]
pub(crate) struct Script(pub(crate) BytesMut);

impl Script {
    pub(crate) fn parse(mut self, name: &str, sql: &str) -> Self {
        build::parse(&mut self.0, name.as_bytes(), sql.as_bytes(), b"\0\0");
        self
    }

    pub(crate) fn bind(mut self, statement: &str) -> Self {
        build::bind(&mut self.0, b"", statement.as_bytes(), b"\0\0\0\0\0\0");
        self
    }

    pub(crate) fn execute(mut self) -> Self {
        build::message(&mut self.0, b'E', |b| b.extend_from_slice(b"\0\0\0\0\0"));
        self
    }

    pub(crate) fn describe(mut self, statement: &str) -> Self {
        build::describe_statement(&mut self.0, statement.as_bytes());
        self
    }

    pub(crate) fn close(mut self, statement: &str) -> Self {
        build::close_statement(&mut self.0, statement.as_bytes());
        self
    }

    /// A portal of its own name, with text parameters.
    pub(crate) fn bind_portal(mut self, portal: &str, statement: &str, parameters: &[&str]) -> Self {
        let mut rest = vec![0, 0];
        rest.extend_from_slice(&u16::try_from(parameters.len()).unwrap().to_be_bytes());
        for value in parameters {
            rest.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
            rest.extend_from_slice(value.as_bytes());
        }
        rest.extend_from_slice(&[0, 0]);
        build::bind(&mut self.0, portal.as_bytes(), statement.as_bytes(), &rest);
        self
    }

    /// At most so many rows; 0 for all.
    pub(crate) fn execute_portal(self, portal: &str, rows: u32) -> Self {
        self.message(b'E', &[portal.as_bytes(), b"\0", &rows.to_be_bytes()].concat())
    }

    pub(crate) fn describe_portal(self, portal: &str) -> Self {
        self.message(b'D', &[b"P", portal.as_bytes(), b"\0"].concat())
    }

    pub(crate) fn close_portal(self, portal: &str) -> Self {
        self.message(b'C', &[b"P", portal.as_bytes(), b"\0"].concat())
    }

    /// A fast-path call with text arguments.
    pub(crate) fn call(self, oid: u32, arguments: &[&str]) -> Self {
        let mut body = oid.to_be_bytes().to_vec();
        body.extend_from_slice(&[0, 0]);
        body.extend_from_slice(&u16::try_from(arguments.len()).unwrap().to_be_bytes());
        for value in arguments {
            body.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
            body.extend_from_slice(value.as_bytes());
        }
        body.extend_from_slice(&[0, 0]);
        self.message(b'F', &body)
    }

    pub(crate) fn message(mut self, tag: u8, body: &[u8]) -> Self {
        build::message(&mut self.0, tag, |out| out.extend_from_slice(body));
        self
    }

    pub(crate) fn data(self, rows: &str) -> Self {
        self.message(b'd', rows.as_bytes())
    }

    pub(crate) fn bare(mut self, tag: u8) -> Self {
        build::bare(&mut self.0, tag);
        self
    }

    pub(crate) fn sync(self) -> Self {
        self.bare(b'S')
    }

    pub(crate) fn query(mut self, sql: &str) -> Self {
        build::query(&mut self.0, sql.as_bytes());
        self
    }
}
