//! One node, as the last poll showed it.

use std::sync::Arc;
use std::time::Duration;

use crate::lsn::{Lsn, Ticket, Timeline};

/// The index of a node in [`super::Topology::nodes`]; stable while the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u16);

/// What a node was found to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Role {
    /// Not reached yet, or contradictory: takes neither reads nor writes.
    #[default]
    Unknown,
    /// Takes writes: `pg_is_in_recovery()` is false and no node of a higher timeline says the same.
    Primary,
    /// A standby that replays the primary's WAL.
    Replica,
}

impl Role {
    /// As metrics, logs and `SHOW` have it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Unknown => "unknown",
        }
    }
}

/// Where a node stood when a poll returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Primary: the insert position, page header taken off. Replica: the replay position.
    pub lsn: Lsn,
    /// Primary: the flush position. Replica: the same as `lsn`.
    pub flushed: Lsn,
    /// The timeline; `Timeline(0)` if the node could not tell.
    pub timeline: Timeline,
    /// When the poll was sent, since the process started.
    pub sent: Duration,
    /// When its answer came, since the process started.
    pub received: Duration,
}

/// One node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its index.
    pub id: NodeId,
    /// `host:port`, without any secret; the label in metrics and logs.
    pub name: Arc<str>,
    /// What it was found to be.
    pub role: Role,
    /// Whether the poll connection stands and the last poll answered in time.
    pub up: bool,
    /// Counts the times that the poll connection broke: a position, and a pooled connection,
    /// is valid only in the server epoch in which it was made.
    pub server_epoch: u32,
    /// The number of the last poll that returned; 0 for none.
    pub polled: Ticket,
    /// What that poll said; `None` after the poll connection broke.
    pub position: Option<Position>,
    /// Replica: when the newest primary poll was sent that its position covers; it shows every write
    /// acknowledged before. `None` if not known.
    pub covered: Option<Duration>,
    /// Replica: since when the oldest primary position that it has not reached is known;
    /// `None` if it has reached all that is known of the primary.
    pub behind_since: Option<Duration>,
    /// Replica: bytes between the primary's last position and its own; `None` if not known.
    pub lag_bytes: Option<u64>,
}

impl Node {
    /// An upper bound of how old this replica's data may be; `None` if not known.
    #[must_use]
    pub fn staleness(&self, now: Duration) -> Option<Duration> {
        self.covered.map(|covered| now.saturating_sub(covered))
    }

    /// Whether waiting for this replica is likely to help: at its last poll it was not further behind than `wait`.
    #[must_use]
    pub fn is_promising(&self, wait: Duration) -> bool {
        match (self.position, self.behind_since) {
            (Some(position), Some(since)) => position.sent.saturating_sub(since) <= wait,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    /// How far this replica is behind, for people to look at: zero if it has reached the primary's last known
    /// position, else [`Self::staleness`]. `None` if not known.
    #[must_use]
    pub fn lag(&self, now: Duration) -> Option<Duration> {
        match (self.position, self.behind_since) {
            (None, _) => None,
            (Some(_), None) => self.covered.map(|_| Duration::ZERO),
            (Some(_), Some(_)) => self.staleness(now),
        }
    }
}
