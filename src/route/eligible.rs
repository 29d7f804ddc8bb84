//! Which replicas may serve a read. What is not known is not fresh.

use std::time::Duration;

use super::ask::{Ask, Level, View};
use crate::lsn::Lsn;
use crate::topology::{Node, Role, Topology};

/// Whether a replica could serve reads at all: it is up, and what it replays is the primary's history.
#[must_use]
pub fn is_candidate(node: &Node, topology: &Topology, ask: &Ask<'_>) -> bool {
    let Some(position) = node.position else { return false };
    let same_history = if topology.switched {
        position.timeline == topology.timeline
    } else {
        // Without a switch there is one history only; a monitor without privileges cannot ask for the timeline.
        position.timeline.0 == 0 || topology.timeline.0 == 0 || position.timeline == topology.timeline
    };
    node.role == Role::Replica && node.up && same_history && !ask.avoid.contains(&node.id)
}

/// Whether a replica may serve this read of this session.
#[must_use]
pub fn may_use(node: &Node, topology: &Topology, ask: &Ask<'_>, view: &View<'_>, now: Duration) -> bool {
    is_candidate(node, topology, ask)
        && is_young(node, ask, now)
        && (ask.level == Level::Eventual || shows_what_is_needed(node, topology, view))
}

/// Whether a replica is likely to have replayed by now what this read must show, and can be asked for that.
#[must_use]
pub fn may_prove(node: &Node, topology: &Topology, ask: &Ask<'_>, view: &View<'_>, now: Duration) -> bool {
    // Of another epoch, the position would not be comparable.
    ask.may_prove
        && !ask.replica_wait.is_zero()
        && topology.primary.is_some()
        && view.need.epoch == topology.epoch
        && view.open.is_empty()
        && is_candidate(node, topology, ask)
        && is_young(node, ask, now)
        && node.is_promising(ask.replica_wait)
        && view.heard.may_ask(node)
}

fn is_young(node: &Node, ask: &Ask<'_>, now: Duration) -> bool {
    match ask.max_staleness {
        Some(bound) => node.staleness(now).is_some_and(|s| s <= bound),
        None => true,
    }
}

fn shows_what_is_needed(node: &Node, topology: &Topology, view: &View<'_>) -> bool {
    // Whatever the session saw on this very server, it will see there again.
    let settled = view.open.iter().all(|o| o.node == node.id && o.server_epoch == node.server_epoch);
    let reached = match node.position {
        _ if view.need.lsn == Lsn::ZERO => true,
        Some(position) => {
            let comparable = if topology.primary.is_some() {
                view.need.epoch == topology.epoch
            } else {
                // Nobody can begin anew; on one timeline positions stay comparable.
                position.timeline == view.need.timeline || !topology.switched
            };
            comparable && (position.lsn >= view.need.lsn || view.heard.of(node) >= view.need.lsn)
        }
        None => false,
    };
    settled && reached
}
