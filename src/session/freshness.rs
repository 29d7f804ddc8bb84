//! What a session has written and read, as positions that its next read must have reached.

use crate::lsn::{Epoch, Lsn, Ticket, Timeline, Token};
use crate::route::{Level, Open, View};
use crate::topology::{Heard, Node, NodeId, Topology};

/// A session's demands on freshness.
#[derive(Clone, Debug, Default)]
pub struct Freshness {
    need: Token,
    /// At most one entry per node.
    open: Vec<Open>,
    last: Option<NodeId>,
    round: u16,
    /// How many writes have come since the last read, as far as is counted.
    unread: u8,
}

/// A session that has written so many times in a row may never read.
const WRITES_UNREAD: u8 = 8;

impl Freshness {
    /// A session that has neither written nor read; its first read goes to the `round`-th of the replicas that may
    /// serve it, counted around.
    #[must_use]
    pub fn new(round: u16) -> Self {
        Self { round, ..Self::default() }
    }

    /// The position that the session must see at least, as far as it is known.
    #[must_use]
    pub fn need(&self) -> Token {
        self.need
    }

    /// What a decision needs to know, with what replicas have said since they were polled.
    #[must_use]
    pub fn view<'a>(&'a self, heard: &'a Heard) -> View<'a> {
        View { need: self.need, open: &self.open, last: self.last, round: self.round.into(), heard }
    }

    /// Whether the session reads what it has written, so that it is worth its cost to ask for a position behind a write.
    #[must_use]
    pub fn expects_reads(&self) -> bool {
        self.unread < WRITES_UNREAD
    }

    /// A transaction that may have written has ended where `open` says, on the primary. The ticket is for the primary's
    /// next poll, asked for after the end was seen.
    ///
    /// The server epoch is the one that the server connection was begun in. That of the topology will not do: if the
    /// server has crashed since, its next poll may be of older data than the transaction saw.
    pub fn wrote(&mut self, open: Open, topology: &Topology) {
        self.unread = self.unread.saturating_add(1);
        self.add(open, topology);
    }

    /// The same, where the primary itself has told behind that end how far its WAL went: nothing is open then.
    pub fn wrote_up_to(&mut self, lsn: Lsn, open: Open, topology: &Topology) {
        let same_server = topology.node(open.node).is_some_and(|n| n.server_epoch == open.server_epoch);
        let comparable = self.need.lsn == Lsn::ZERO || self.need.epoch == topology.epoch;
        if topology.primary != Some(open.node) || !same_server || !comparable || open.of_standby {
            return self.wrote(open, topology);
        }
        let lsn = self.need.lsn.max(lsn.before_page_header(topology.geometry));
        self.unread = self.unread.saturating_add(1);
        self.need = Token { epoch: topology.epoch, timeline: topology.timeline, lsn };
        self.open.retain(|old| {
            !old.of_standby && (old.node != open.node || old.server_epoch != open.server_epoch)
        });
    }

    /// A read has ended where `open` says, with a ticket and a server epoch as for [`Self::wrote`].
    pub fn read_on(&mut self, open: Open, topology: &Topology, level: Level) {
        self.unread = 0;
        if topology.primary != Some(open.node) {
            self.last = Some(open.node);
        }
        if level == Level::Session {
            self.add(open, topology);
        }
    }

    /// A poll of the primary bounds what was seen on standbys before it was sent, too: they show nothing that their
    /// primary had not written by then. So there is one poll to wait for, not one of each.
    fn add(&mut self, new: Open, topology: &Topology) {
        if topology.primary == Some(new.node) {
            self.open.retain(|open| !open.of_standby);
        }
        match self.open.iter_mut().find(|o| o.node == new.node && o.server_epoch == new.server_epoch) {
            Some(open) => {
                open.ticket = open.ticket.max(new.ticket);
                open.of_standby &= new.of_standby;
            }
            None => {
                // Most have one at a time: no room for more before they come.
                if self.open.capacity() == 0 {
                    self.open.reserve_exact(1);
                }
                self.open.push(new);
            }
        }
    }

    /// Takes a position that a poll has told while the session waited for it: the node may have been polled again since,
    /// and would now tell one that is further on than need be.
    pub fn told(&mut self, told: &Told, topology: &Topology) {
        let same_server = topology.node(told.node).is_some_and(|n| n.server_epoch == told.server_epoch);
        let comparable = self.need.lsn == Lsn::ZERO || self.need.epoch == told.epoch;
        if !same_server || !comparable || topology.epoch != told.epoch {
            return;
        }
        let before = self.open.len();
        self.open.retain(|open| {
            open.node != told.node || open.server_epoch != told.server_epoch || open.ticket > told.polled
        });
        if self.open.len() < before {
            let lsn = self.need.lsn.max(told.lsn);
            self.need = Token { epoch: told.epoch, timeline: told.timeline, lsn };
        }
    }

    /// Turns what can be turned into positions. `next` tells a node's next poll. Returns whether the session's
    /// position was of an epoch that is over, so that what it had written may be lost.
    pub fn resolve(&mut self, topology: &Topology, next: impl Fn(NodeId) -> Ticket) -> bool {
        if self.open.is_empty() && (self.need.lsn == Lsn::ZERO || self.need.epoch == topology.epoch) {
            return false;
        }
        let mut need = self.need;
        let mut begin_anew = false;
        self.open.retain(|open| {
            let Some(node) = topology.node(open.node).filter(|n| n.server_epoch == open.server_epoch) else {
                // What was seen there, only a poll of the primary can bound: a server that crashed may come back
                // with older data.
                begin_anew = true;
                return topology.primary.is_none();
            };
            match position_at(node, open.ticket) {
                // On another timeline than the primary's: a replica would never have to get that far. What of it has
                // survived, a poll of the primary bounds.
                Some((_, timeline))
                    if topology.primary.is_some() && timeline.0 != 0 && timeline != topology.timeline =>
                {
                    begin_anew = true;
                    false
                }
                Some((lsn, timeline)) => {
                    let timeline = if timeline.0 == 0 { topology.timeline } else { timeline };
                    need = Token { epoch: topology.epoch, timeline, lsn: need.lsn.max(lsn) };
                    false
                }
                None => true,
            }
        });
        let old = self.need.lsn != Lsn::ZERO && self.need.epoch != topology.epoch;
        if let Some(primary) = topology.primary {
            if old {
                // Positions of an older epoch mean nothing any more; what has survived lies below the first
                // one that is polled from now on.
                need = Token { epoch: topology.epoch, timeline: topology.timeline, lsn: Lsn::ZERO };
            }
            if old || begin_anew {
                let server_epoch = topology.node(primary).map_or(0, |n| n.server_epoch);
                let ticket = next(primary);
                self.add(Open { node: primary, ticket, server_epoch, of_standby: false }, topology);
            }
        }
        self.need = need;
        old && topology.primary.is_some()
    }
}

/// What a poll has told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    node: NodeId,
    polled: Ticket,
    server_epoch: u32,
    epoch: Epoch,
    timeline: Timeline,
    lsn: Lsn,
}

impl Told {
    /// What the last poll of a node has told; `None` if that is nothing, or nothing that can be compared: on another
    /// timeline than the primary's.
    #[must_use]
    pub fn by(node: &Node, topology: &Topology) -> Option<Self> {
        let position = node.position.filter(|p| p.timeline.0 == 0 || p.timeline == topology.timeline)?;
        topology.primary?;
        Some(Self {
            node: node.id,
            polled: node.polled,
            server_epoch: node.server_epoch,
            epoch: topology.epoch,
            timeline: topology.timeline,
            lsn: position.lsn,
        })
    }

    /// The position.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }
}

/// The node's position, if it was polled by that ticket or later.
fn position_at(node: &Node, ticket: Ticket) -> Option<(Lsn, Timeline)> {
    let position = node.position.filter(|_| node.polled >= ticket)?;
    Some((position.lsn, position.timeline))
}
