//! What a decision is asked for.

use std::time::Duration;

use super::why::Why;
use crate::lsn::{Ticket, Token};
use crate::topology::{Heard, NodeId};

/// What a read must show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Level {
    /// Whatever a replica has.
    Eventual,
    /// Everything that the session has written.
    ReadYourWrites,
    /// Everything that the session has written or already read.
    #[default]
    Session,
}

impl Level {
    /// Reads a level's name, without regard to case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Eventual, Self::ReadYourWrites, Self::Session]
            .into_iter()
            .find(|l| l.label().eq_ignore_ascii_case(text))
    }

    /// Its name.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Eventual => "eventual",
            Self::ReadYourWrites => "read_your_writes",
            Self::Session => "session",
        }
    }
}

/// What a client may demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteHint {
    /// The primary, whatever the statement is.
    Primary,
    /// A replica, and nothing else.
    Replica,
}

/// What kind of node a unit wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// The primary, for that reason.
    Primary(Why),
    /// A replica that is fresh enough, else the primary. The reason is that for the replica.
    Read(Why),
    /// A replica that is fresh enough, and never the primary.
    Replica,
}

/// Something that the session has seen or written, whose position is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// Where.
    pub node: NodeId,
    /// The poll of that node that will tell.
    pub ticket: Ticket,
    /// The node's server epoch then: in another one its polls say nothing about what was seen.
    pub server_epoch: u32,
    /// The server was a standby then, as itself has said: what was seen there its primary had written before.
    pub of_standby: bool,
}

/// What a session must see.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The position that it must see at least.
    pub need: Token,
    /// What is not known as a position yet.
    pub open: &'a [Open],
    /// The replica that it read from last.
    pub last: Option<NodeId>,
    /// Where a session that has not read yet begins its round among the replicas that may serve it.
    pub round: usize,
    /// What replicas have said since they were polled.
    pub heard: &'a Heard,
}

/// One unit's question.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// What kind of node.
    pub want: Want,
    /// What it must show.
    pub level: Level,
    /// Replicas that may be older than this are not used.
    pub max_staleness: Option<Duration>,
    /// How long to wait for a replica before the primary serves a read.
    pub replica_wait: Duration,
    /// With the primary's budget spent: wait for a replica rather than fail.
    pub wait_over_budget: bool,
    /// How long to wait where there is no alternative.
    pub deadline: Duration,
    /// Since when the unit has been waiting; `None` before the first decision.
    pub waited_since: Option<Duration>,
    /// A replica may be asked in front of the unit whether it has what is needed, and nobody sees its answer unless it has. With no `replica_wait`, none is.
    pub may_prove: bool,
    /// Nodes that have failed this unit already.
    pub avoid: &'a [NodeId],
}
