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

/// Decides where a unit goes. Nothing here is remembered: each read is judged by what is known at `now`, such as how many
/// server connections to each node are `busy`, or waited for.
pub fn decide(
    ask: &Ask<'_>,
    view: &View<'_>,
    topology: &Topology,
    now: Duration,
    budget: &mut Budget,
    busy: impl Fn(NodeId) -> usize,
) -> Decision {
    let since = ask.waited_since.unwrap_or(now);
    let last_call = since + ask.deadline;
    let why = match ask.want {
        Want::Primary(why) => return primary(topology, why, now, last_call),
        Want::Read(why) => why,
        Want::Replica => Why::Hint,
    };
    if let Some(node) = next(topology, view, |n| may_use(n, topology, ask, view, now), &busy) {
        return Decision::Go { node: node.id, why };
    }
    if let Some(proof) = Proof::of(view.need.lsn)
        && let Some(node) = next(topology, view, |n| may_prove(n, topology, ask, view, now), &busy)
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

/// A node may have so many more connections busy than another one before the round passes it by.
const AHEAD: usize = 4;

/// Of the nodes that `filter` lets through, the next in the round. Whoever reads waits for what it has asked before it asks
/// again, so that a slow node would soon have all of them waiting there: one that is far busier than another has
/// its turn when it has caught up.
fn next<'a>(
    topology: &'a Topology,
    view: &View<'_>,
    filter: impl Fn(&Node) -> bool,
    busy: &impl Fn(NodeId) -> usize,
) -> Option<&'a Node> {
    let next = next_in_round(topology, view, &filter)?;
    let Some(few) = busy(next.id).checked_sub(AHEAD) else { return Some(next) };
    let idler = topology.nodes.iter().filter(|n| busy(n.id) < few && filter(n));
    let Some(least) = idler.map(|n| busy(n.id)).min() else { return Some(next) };
    // Not simply to that one: in a round, the others share what they get.
    next_in_round(topology, view, |n| busy(n.id) <= least + AHEAD && filter(n))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::{Lsn, Ticket, Timeline, WalGeometry};
    use crate::session::Freshness;
    use crate::topology::{Heard, Observation, Observer, Report};

    /// A primary and three replicas, all caught up.
    fn observer() -> Observer {
        let mut observer = Observer::new(&["p".into(), "a".into(), "b".into(), "c".into()]);
        for node in 0..4 {
            let report = Report {
                in_recovery: node > 0,
                lsn: Lsn(100),
                flushed: Lsn(100),
                timeline: Timeline(1),
                system: 7,
                geometry: WalGeometry::default(),
            };
            let (ticket, at) = (Ticket(1), Duration::ZERO);
            observer.observe(NodeId(node), Observation::Polled { ticket, sent: at, received: at, report });
        }
        observer
    }

    fn ask(avoid: &[NodeId]) -> Ask<'_> {
        Ask {
            want: Want::Read(Why::Read),
            level: crate::route::Level::Session,
            max_staleness: None,
            replica_wait: Duration::from_millis(10),
            wait_over_budget: true,
            deadline: Duration::from_secs(10),
            waited_since: None,
            may_prove: true,
            avoid,
        }
    }

    #[test]
    fn the_round_passes_by_who_is_far_busier_than_another() {
        let observer = observer();
        let heard = Heard::default();
        let go = |round, busy: [usize; 4], avoid: &[NodeId]| {
            let freshness = Freshness::new(round);
            let (view, topology) = (freshness.view(&heard), observer.topology());
            let busy = |node: NodeId| busy[usize::from(node.0)];
            match decide(&ask(avoid), &view, topology, Duration::ZERO, &mut Budget::new(None, 1), busy) {
                Decision::Go { node, why: Why::Read } => node.0,
                other => panic!("{other:?}"),
            }
        };
        for busy in [[0; 4], [0, 4, 0, 0], [0, 9, 5, 5], [90, 70, 69, 66]] {
            assert_eq!([0, 1, 2].map(|round| go(round, busy, &[])), [1, 2, 3], "{busy:?}");
        }
        assert_eq!([0, 1, 2].map(|round| go(round, [0, 5, 0, 0], &[])), [2, 2, 3]);
        assert_eq!([0, 1, 2].map(|round| go(round, [0, 30, 20, 10], &[])), [3, 3, 3]);
        // Never to one that may not serve, however little it has to do.
        assert_eq!([0, 1].map(|round| go(round, [0, 30, 20, 10], &[NodeId(3)])), [2, 2]);
        assert_eq!(go(0, [0, 30, 0, 0], &[NodeId(2), NodeId(3)]), 1);
    }
}
