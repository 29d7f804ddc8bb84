//! What a session has written and read, as positions that its next read must have reached.

use crate::lsn::{Lsn, Ticket, Timeline, Token};
use crate::route::{Level, Open, View};
use crate::topology::{Node, NodeId, Role, Topology};

/// A session's demands on freshness.
#[derive(Clone, Debug, Default)]
pub struct Freshness {
    need: Token,
    /// At most one entry per node.
    open: Vec<Open>,
    last: Option<NodeId>,
    round: usize,
}

impl Freshness {
    /// A session that has neither written nor read; its first read goes to the `round`-th of the replicas that may
    /// serve it, counted around.
    #[must_use]
    pub fn new(round: usize) -> Self {
        Self { round, ..Self::default() }
    }

    /// The position that the session must see at least, as far as it is known.
    #[must_use]
    pub fn need(&self) -> Token {
        self.need
    }

    /// What a decision needs to know.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        View { need: self.need, open: &self.open, last: self.last, round: self.round }
    }

    /// A transaction that may have written has ended on the primary. `next` is the primary's next poll, asked for
    /// after the end was seen.
    ///
    /// `server_epoch` is the one that the server connection was begun in. That of the topology will not do: if the
    /// server has crashed since, its next poll may be of older data than the transaction saw.
    ///
    /// That poll bounds what the session has read from replicas before, too: a replica shows nothing that its primary
    /// had not written by then. So there is one poll to wait for, not one of each.
    pub fn wrote(&mut self, primary: NodeId, next: Ticket, server_epoch: u32, topology: &Topology) {
        if topology.primary == Some(primary) {
            let is_replica = |id| topology.node(id).is_some_and(|node| node.role == Role::Replica);
            self.open.retain(|open| !is_replica(open.node));
        }
        self.add(primary, next, server_epoch);
    }

    /// A read has ended on `node`, on a server connection begun in `server_epoch`. `next` is that node's next poll,
    /// asked for after the end was seen.
    pub fn read_on(
        &mut self,
        node: NodeId,
        next: Ticket,
        server_epoch: u32,
        topology: &Topology,
        level: Level,
    ) {
        if topology.primary != Some(node) {
            self.last = Some(node);
        }
        if level == Level::Session {
            self.add(node, next, server_epoch);
        }
    }

    fn add(&mut self, node: NodeId, ticket: Ticket, server_epoch: u32) {
        match self.open.iter_mut().find(|o| o.node == node && o.server_epoch == server_epoch) {
            Some(open) => open.ticket = open.ticket.max(ticket),
            None => self.open.push(Open { node, ticket, server_epoch }),
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
                self.add(primary, next(primary), server_epoch);
            }
        }
        self.need = need;
        old && topology.primary.is_some()
    }
}

/// The node's position, if it was polled by that ticket or later.
fn position_at(node: &Node, ticket: Ticket) -> Option<(Lsn, Timeline)> {
    let position = node.position.filter(|_| node.polled >= ticket)?;
    Some((position.lsn, position.timeline))
}
