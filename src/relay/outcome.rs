//! How a unit ended on its server.

use std::io;

use super::heal::Refusal;
use crate::wire::server::Status;

/// What a client has heard of the end of its server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Farewell {
    /// Nothing.
    #[default]
    None,
    /// The server's own reason, as an error after which the session goes on.
    Reason,
    /// The server's own words, after which PostgreSQL closes the connection.
    Fatal,
}

/// How far a unit has come on a server whose connection broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// Nothing of it was sent: it has not run, whatever it is.
    Nobody,
    /// It was sent, and may have run, but the client has seen nothing of the answer.
    Server,
    /// The client has seen some of the answer, or has handed over what it would take to run the unit again.
    Client,
}

/// How a unit ended.
#[derive(Debug)]
pub enum Outcome {
    /// The server is ready for the next one.
    Done(Status),
    /// A replica refused it, and the client has seen nothing: it can run elsewhere.
    Refused(Refusal),
    /// Asked in front of a read, a replica has said that it has not replayed what the read must show: nobody is to see its
    /// answer. If that is not over, so many bytes of its current message are still to come.
    InVain {
        /// The bytes.
        pass: usize,
    },
    /// The server connection broke.
    ServerLost {
        /// What the operating system says.
        error: io::Error,
        /// How far the unit has come.
        reached: Reached,
        /// Whether the client has seen a message only in part, so that no other can follow.
        torn: bool,
        /// What the client has heard of it.
        farewell: Farewell,
    },
    /// The server does not keep to the protocol, or did not take our own settings.
    ServerFailed {
        /// What happened.
        message: String,
        /// Whether the client has seen a message only in part.
        torn: bool,
    },
    /// The client went away, or does not keep to the protocol.
    ClientGone,
    /// The client has too many prepared statements: nothing was sent.
    TooManyStatements,
    /// A prepared statement would give other columns than its client was told: nothing was run.
    PlanChanged,
    /// It was cancelled before the server was told anything for it.
    Cancelled,
}

/// Why a unit cannot go on.
#[derive(Debug)]
pub enum Broken {
    /// The client went away.
    Client,
    /// The server's connection broke.
    Server(io::Error),
    /// The server does not keep to the protocol, or did not take our own settings.
    Protocol(String),
    /// The client has too many prepared statements.
    TooManyStatements,
}
