//! What makes a topology another one, apart from how far its nodes are.

use super::node::{NodeId, Role};
use super::snapshot::Topology;
use crate::lsn::Epoch;

/// What the nodes of a topology were when it was last looked at.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Makeup {
    epoch: Epoch,
    primary: Option<NodeId>,
    nodes: Vec<(Role, bool, u32)>,
}

impl Makeup {
    /// Takes in a topology; whether it is another one: a node has come, gone, been polled over a new connection, or become
    /// something else.
    pub fn take(&mut self, topology: &Topology) -> bool {
        let nodes = || topology.nodes.iter().map(|n| (n.role, n.up, n.server_epoch));
        let same = self.epoch == topology.epoch
            && self.primary == topology.primary
            && self.nodes.iter().copied().eq(nodes());
        if !same {
            (self.epoch, self.primary) = (topology.epoch, topology.primary);
            self.nodes.clear();
            self.nodes.extend(nodes());
        }
        !same
    }
}
