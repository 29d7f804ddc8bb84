//! The decision: one node, or a wait.

use std::time::Duration;

use super::ask::{Ask, View, Want};
use super::budget::Budget;
use super::eligible::{is_candidate, may_prove, may_use};
use super::why::Why;
use crate::lsn::Proof;
use crate::topology::{Node, NodeId, Topology};

/// What a unit waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// A node that may serve it.
    Node,
    /// A token of the primary's budget; which a node that may serve it would do without.
    Budget,
}

/// What to do with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Run it there.
    Go {
        /// The node.
        node: NodeId,
        /// Why there.
        why: Why,
    },
    /// Run it there, and ask in front of it whether the node has replayed that much: unless it has, nobody is to see the
    /// answer.
    Prove {
        /// The node.
        node: NodeId,
        /// Why there.
        why: Why,
        /// What it must have replayed.
        proof: Proof,
    },
    /// Ask again when there may be what is missing, or at that time.
    Wait {
        /// Since the process started.
        until: Duration,
        /// What there is none of.
        lack: Lack,
    },
    /// There is no primary, and there was none for as long as may be waited.
    NoPrimary,
    /// A replica was demanded, and none may serve.
    NoReplica,
    /// The primary has no budget left for reads of this kind.
    OverBudget,
}

/// Decides where a unit goes. Nothing here is remembered: each read is judged by what is known at `now`.
pub fn decide(
    ask: &Ask<'_>,
    view: &View<'_>,
    topology: &Topology,
    now: Duration,
    budget: &mut Budget,
) -> Decision {
    let since = ask.waited_since.unwrap_or(now);
    let last_call = since + ask.deadline;
    let why = match ask.want {
        Want::Primary(why) => return primary(topology, why, now, last_call),
        Want::Read(why) => why,
        Want::Replica => Why::Hint,
    };
    if let Some(node) = next_in_round(topology, view, |n| may_use(n, topology, ask, view, now)) {
        return Decision::Go { node: node.id, why };
    }
    if let Some(proof) = Proof::of(view.need.lsn)
        && let Some(node) = next_in_round(topology, view, |n| may_prove(n, topology, ask, view, now))
    {
        return Decision::Prove { node: node.id, why, proof };
    }
    let candidates = || topology.nodes.iter().filter(|n| is_candidate(n, topology, ask));
    let any = candidates().next().is_some();
    if ask.want == Want::Replica {
        return if any && now < last_call {
            Decision::Wait { until: last_call, lack: Lack::Node }
        } else {
            Decision::NoReplica
        };
    }
    let until = since + ask.replica_wait;
    if now < until && candidates().any(|n| n.is_promising(ask.replica_wait)) {
        return Decision::Wait { until, lack: Lack::Node };
    }
    if !any {
        return primary(topology, Why::NoReplica, now, last_call);
    }
    if topology.primary.is_some() && !budget.take(now) {
        return if ask.wait_over_budget && now < last_call {
            Decision::Wait { until: last_call, lack: Lack::Budget }
        } else {
            Decision::OverBudget
        };
    }
    primary(topology, Why::NotFresh, now, last_call)
}

fn primary(topology: &Topology, why: Why, now: Duration, last_call: Duration) -> Decision {
    match topology.primary {
        Some(node) => Decision::Go { node, why },
        None if now < last_call => Decision::Wait { until: last_call, lack: Lack::Node },
        None => Decision::NoPrimary,
    }
}

/// Of the nodes that `filter` lets through, the first one behind the session's last. A session that has none yet
/// takes the one of its number: were it the first one behind some node, then the one behind the primary would get the
/// primary's share, too.
fn next_in_round<'a>(
    topology: &'a Topology,
    view: &View<'_>,
    filter: impl Fn(&Node) -> bool,
) -> Option<&'a Node> {
    let Some(last) = view.last else {
        let usable = || topology.nodes.iter().filter(|n| filter(n));
        return usable().nth(view.round.checked_rem(usable().count())?);
    };
    let start = (usize::from(last.0) + 1).min(topology.nodes.len());
    let (before, behind) = topology.nodes.split_at(start);
    behind.iter().chain(before).find(|n| filter(n))
}
