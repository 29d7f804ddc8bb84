//! All nodes at one moment.

use super::node::{Node, NodeId, Role};
use crate::lsn::{Epoch, Lsn, Timeline, WalGeometry};

/// What readers hold: never changed, only replaced.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    /// Begins anew with every lost or replaced primary.
    pub epoch: Epoch,
    /// The primary's timeline; `Timeline(0)` while it is not known.
    pub timeline: Timeline,
    /// The timeline has changed since the process started: a replica must tell its own to be believed.
    pub switched: bool,
    /// The one node that takes writes, if there is exactly one.
    pub primary: Option<NodeId>,
    /// Where WAL pages begin: on all nodes alike, as they are of one cluster.
    pub geometry: WalGeometry,
    /// Every configured node, at the index of its id.
    pub nodes: Vec<Node>,
}

impl Topology {
    /// Becomes what `other` is, in the room that it has.
    pub fn copy_from(&mut self, other: &Self) {
        let Self { epoch, timeline, switched, primary, geometry, nodes } = other;
        (self.epoch, self.timeline, self.switched) = (*epoch, *timeline, *switched);
        (self.primary, self.geometry) = (*primary, *geometry);
        self.nodes.clone_from(nodes);
    }

    /// The node of that id, if there is one.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(usize::from(id.0))
    }

    /// How far the replica is that is ahead of the others.
    #[must_use]
    pub fn reached(&self) -> Lsn {
        let positions = self.replicas().filter(|n| n.up).filter_map(|n| n.position);
        positions.map(|position| position.lsn).max().unwrap_or_default()
    }

    /// Every node found to be a replica, up or not.
    pub fn replicas(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|n| n.role == Role::Replica)
    }
}
