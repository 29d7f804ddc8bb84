//! A client that logs in by SCRAM message by message, to Tidegate or to PostgreSQL itself.

use std::io::{ErrorKind, Read};
use std::net::Shutdown;

use tidegate::auth::Nonce;
use tidegate::auth::scram::MECHANISM;
use tidegate::auth::scram::binding::Binding;
use tidegate::auth::scram::client::{Answer, Knowledge, start};
use tidegate::auth::scram::key::ScramKeys;
use tidegate::auth::scram::message::ServerFirst;

use super::peer::{Peer, Script};

/// Parameters of a startup packet: any bytes but zero.
pub(crate) type Parameters<'a> = &'a [(&'a [u8], &'a [u8])];

pub(crate) fn startup(parameters: Parameters<'_>) -> Vec<u8> {
    let mut body = 0x0003_0000_u32.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend_from_slice(&[*name, b"\0", *value, b"\0"].concat());
    }
    body.push(0);
    [&u32::try_from(body.len() + 4).unwrap().to_be_bytes()[..], &body].concat()
}

/// The startup packet of a role for the database `postgres`.
pub(crate) fn hello(user: &str) -> Vec<u8> {
    startup(&[(b"user", user.as_bytes()), (b"database", b"postgres")])
}

/// SASLInitialResponse.
pub(crate) fn initial(mechanism: &str, data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).unwrap().to_be_bytes();
    response(&[mechanism.as_bytes(), b"\0", &len, data].concat())
}

/// SASLResponse, or a password.
pub(crate) fn response(data: &[u8]) -> Vec<u8> {
    Script::default().message(b'p', data).0.to_vec()
}

/// Severity, SQLSTATE, message and detail of an ErrorResponse.
pub(crate) fn fields(body: &[u8]) -> String {
    let fields = body.split(|byte| *byte == 0).filter_map(<[u8]>::split_first);
    let shown = fields.filter(|(name, _)| b"SCMD".contains(name));
    shown.map(|(_, text)| String::from_utf8_lossy(text)).collect::<Vec<_>>().join(" | ")
}

/// The next Authentication message, of that kind; gives what follows the kind.
pub(crate) fn expect(peer: &mut Peer, kind: u8) -> Vec<u8> {
    let (tag, body) = peer.receive().unwrap_or_else(|| panic!("the connection ended before {kind}"));
    assert!(tag == b'R' && body[..4] == [0, 0, 0, kind], "{kind}: {} {}", char::from(tag), fields(&body));
    body[4..].to_vec()
}

/// Waits until the connection ends. The error that it ended with, if there was one; nobody may have been let in.
pub(crate) fn last_words(peer: &mut Peer) -> Option<String> {
    let mut words = None;
    while let Some((tag, body)) = peer.receive() {
        assert!(words.is_none(), "more after {words:?}");
        assert!(tag != b'R' || body[..4] != [0; 4], "a stranger is let in");
        words = (tag == b'E').then(|| fields(&body));
    }
    match peer.stream.read(&mut [0]) {
        Ok(0) => words,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => words,
        other => panic!("the connection stays open: {other:?}"),
    }
}

/// What somebody is told who sends this and then nothing more.
pub(crate) fn told(mut peer: Peer, bytes: &[u8]) -> Option<String> {
    peer.send(bytes);
    // It may have ended already.
    let _ = peer.stream.shutdown(Shutdown::Write);
    last_words(&mut peer)
}

/// A login that has been asked for its first SASL message.
pub(crate) fn asked(port: u16, user: &str) -> Peer {
    let mut peer = Peer::open(port);
    peer.send(&hello(user));
    expect(&mut peer, 10);
    peer
}

/// A login of which only the proof is missing.
pub(crate) struct Half {
    pub(crate) peer: Peer,
    pub(crate) client_first: Vec<u8>,
    pub(crate) server_first: Vec<u8>,
    /// The message with the proof, not sent yet.
    pub(crate) client_final: Vec<u8>,
}

impl Half {
    pub(crate) fn of(port: u16, user: &str, knowledge: Knowledge) -> Self {
        Self::on(asked(port, user), knowledge)
    }

    pub(crate) fn on(mut peer: Peer, knowledge: Knowledge) -> Self {
        let (client_first, exchange) = start(knowledge, Nonce::new(rand::random()), Binding::Unable);
        peer.send(&initial(MECHANISM, &client_first));
        let server_first = expect(&mut peer, 11);
        let client_final = match exchange.server_first(&server_first).unwrap() {
            Answer::Final(message, _) => message,
            Answer::Hash(job, next) => next.hashed(&job.run()).0,
        };
        Self { peer, client_first, server_first, client_final }
    }

    /// Sends the proof, and gives the error if there is one: whether the proof was taken all the same stands before it.
    pub(crate) fn finish(&mut self) -> Option<String> {
        self.peer.send(&response(&self.client_final));
        match self.peer.receive() {
            Some((b'R', _)) => {
                expect(&mut self.peer, 0);
                let after = self.peer.receive().unwrap();
                (after.0 == b'E').then(|| format!("proven | {}", fields(&after.1)))
            }
            Some((b'E', body)) => Some(fields(&body)),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn salt(&self) -> Vec<u8> {
        ServerFirst::read(&self.server_first).unwrap().salt
    }

    /// What a password turns into for this server: hashed once, good for many logins.
    pub(crate) fn keys(&self, password: &str) -> Knowledge {
        let first = ServerFirst::read(&self.server_first).unwrap();
        Knowledge::Keys(ScramKeys::from_password(password, &first.salt, first.iterations))
    }
}

pub(crate) fn password(text: &str) -> Knowledge {
    Knowledge::Password(text.to_owned())
}
