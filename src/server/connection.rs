//! A server connection that has logged in, and what is known of its state.

use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;

use super::Parameters;
use crate::lsn::Lsn;
use crate::net::Stream;
use crate::net::timers::timeout;
use crate::session::{Replies, ServerStatements, SettingsMap};
use crate::topology::NodeId;
use crate::wire::Frame;
use crate::wire::client::TERMINATE_MESSAGE;
use crate::wire::server::Status;

/// A server connection that has logged in.
#[derive(Debug)]
pub struct Connection {
    /// Its socket.
    pub stream: Stream,
    /// The node at its other end.
    pub node: NodeId,
    /// The node's server epoch when the connection was begun: it ends with that epoch.
    pub epoch: u32,
    /// When it was begun, since the process started.
    pub born: Duration,
    /// When it was last given back, since the process started.
    pub idle_since: Duration,
    /// The process id at the other end, for cancel requests.
    pub pid: u32,
    /// The key for cancel requests.
    pub key: Rc<[u8]>,
    /// Its reported parameters.
    pub parameters: Parameters,
    /// The settings in force on it.
    pub settings: Rc<SettingsMap>,
    /// The prepared statements that it knows.
    pub statements: ServerStatements,
    /// The answers still to come.
    pub replies: Replies,
    /// Its transaction status.
    pub status: Status,
    /// What has come from it and is not passed on yet.
    pub input: BytesMut,
    /// Code that this client ran may have changed settings: before anybody else has it, all are reset.
    pub unsure: Option<u32>,
    /// How far its node has said it is: with its WAL behind the last unit, or with replaying in front of it.
    pub told: Option<Lsn>,
    /// Since the process started, shortly before it was last asked for that.
    pub asked_at: Duration,
    /// It has just refused to say how far its node is, to this role.
    pub mute: bool,
    /// It may hold state of its user, or something is still on its way: not to be used again.
    pub tainted: bool,
}

impl Connection {
    /// Whether another client may have it: nothing is under way, and nothing is left behind.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        !self.tainted
            && self.status == Status::Idle
            && self.replies.ready_to_come() == 0
            && !self.replies.are_ours()
            && self.input.is_empty()
    }

    /// Whether it is clean, and still open, and the server has said nothing since.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.is_clean() && self.stream.is_quiet()
    }

    /// Whether the server is a standby, as far as it has said (`in_hot_standby`, since PostgreSQL 14, which it says again
    /// in the first answer behind a promotion).
    #[must_use]
    pub fn is_standby(&self) -> bool {
        self.parameters.of_standby()
    }

    /// Whether a whole message has come that is not passed on yet.
    #[must_use]
    pub fn has_message(&self) -> bool {
        matches!(Frame::peek(&self.input), Ok(Some(frame)) if self.input.len() >= frame.len)
    }

    /// Says good-bye, if that goes without waiting, and closes the socket. The server is told before another connection is
    /// begun in its place.
    pub fn close(mut self) {
        let _ = self.stream.try_write(&TERMINATE_MESSAGE);
        self.stream.send_at_once();
    }

    /// Says good-bye, and waits until the server has let go: its process is gone then, and does not count any more.
    pub async fn end(mut self, patience: Duration) {
        let _ = self.stream.try_write(&TERMINATE_MESSAGE);
        let mut rest = BytesMut::with_capacity(256);
        let gone = async {
            while matches!(self.stream.read(&mut rest).await, Ok(n) if n > 0) {
                rest.clear();
            }
        };
        // Whoever is silent for so long will hardly answer.
        let _ = timeout(patience, gone).await;
    }
}
