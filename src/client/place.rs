//! Where a unit goes: a decision, and a wait for freshness if that is likely to help.

use std::time::Duration;

use super::cancel::Handle;
use super::waiters::Until;
use super::worker::Worker;
use crate::lsn::Proof;
use crate::metrics::WaitOutcome;
use crate::net::timers::timeout;
use crate::route::{Ask, Decision, Lack, Level, Open, View, Want, Why, decide};
use crate::session::Session;
use crate::topology::{NodeId, Role, Topology};
use crate::wire::build::Report;
use crate::wire::sqlstate;

/// Where a unit goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The node.
    pub node: NodeId,
    /// What it is.
    pub role: Role,
    /// Why it was chosen.
    pub why: Why,
    /// The node's server epoch by which it was chosen.
    pub server_epoch: u32,
    /// It has yet to show that it has replayed as much.
    pub proof: Option<Proof>,
}

/// What a look at the nodes says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The unit goes there.
    Go(Place),
    /// Nowhere yet: look again when the topology has changed, or at that time.
    Wait {
        /// Since the process started.
        until: Duration,
        /// What there is none of.
        lack: Lack,
    },
}

/// Decides where a unit of a session goes by what is known `now`.
///
/// # Errors
/// What the client is to be told.
#[inline]
pub fn look(
    worker: &Worker,
    topology: &Topology,
    session: &mut Session,
    ask: &Ask<'_>,
    now: Duration,
) -> Result<Look, Report> {
    if session.freshness.resolve(topology, |node| worker.polls.next(node)) {
        worker.metrics.rebased();
    }
    let heard = worker.heard.borrow();
    let pools = worker.pools.borrow();
    // The other workers will have as many for as much as they do.
    let busy = |node| pools.busy(node) * worker.alike.get();
    let decision =
        decide(ask, &session.freshness.view(&heard), topology, now, &mut worker.budget.borrow_mut(), busy);
    match decision {
        Decision::Go { node, why } => Ok(Look::Go(place(topology, node, why, None))),
        Decision::Prove { node, why, proof } => Ok(Look::Go(place(topology, node, why, Some(proof)))),
        Decision::Wait { until, lack } => Ok(Look::Wait { until, lack }),
        nowhere => Err(no_place(nowhere)),
    }
}

fn place(topology: &Topology, node: NodeId, why: Why, proof: Option<Proof>) -> Place {
    let (role, server_epoch) = topology.node(node).map_or((Role::Unknown, 0), |n| (n.role, n.server_epoch));
    Place { node, role, why, server_epoch, proof }
}

/// Waits until there is a place for a unit that [`look`] has found none for. `began` was the time of that look.
///
/// # Errors
/// What the client is to be told.
pub async fn wait(
    worker: &Worker,
    session: &mut Session,
    handle: &Handle,
    mut ask: Ask<'_>,
    began: Duration,
) -> Result<Place, Report> {
    ask.waited_since = Some(began);
    ask.may_prove = false;
    loop {
        let now = worker.now();
        let topology = worker.topology();
        match look(worker, &topology, session, &ask, now)? {
            Look::Go(place) => {
                let outcome =
                    if place.role == Role::Replica { WaitOutcome::Replica } else { WaitOutcome::Primary };
                worker.metrics.freshness_wait(now.saturating_sub(began), outcome);
                return Ok(place);
            }
            Look::Wait { until, lack } => {
                let left = until.saturating_sub(now);
                if left.is_zero() {
                    continue;
                }
                let until =
                    until_what(lack, &ask, &session.freshness.view(&worker.heard.borrow()), &topology);
                let waiting = worker.wait(until, &topology);
                drop(topology);
                tokio::select! {
                    woken = timeout(left, waiting) => {
                        // Running out of time is an answer, too: the next decision sees the clock.
                        if let Ok(Some(told)) = woken {
                            session.freshness.told(&told, &worker.topology());
                        }
                    }
                    () = handle.cancellation() => return Err(cancelled()),
                }
            }
        }
    }
}

/// What may end a wait.
fn until_what(lack: Lack, ask: &Ask<'_>, view: &View<'_>, topology: &Topology) -> Until {
    let known =
        |open: &Open| topology.node(open.node).filter(|n| n.up && n.server_epoch == open.server_epoch);
    match (ask.want, view.open) {
        (Want::Primary(_), _) => Until::Changed,
        // The budget fills as time passes.
        _ if lack == Lack::Budget => Until::Polled,
        // Its age is all that such a read goes by.
        _ if ask.level == Level::Eventual => Until::Polled,
        // What a node that is away would have to tell, nobody will before it is back.
        (_, open) if !open.is_empty() && !open.iter().any(|open| known(open).is_some()) => Until::Changed,
        (_, [open]) if known(open).is_some_and(|n| n.polled < open.ticket) => {
            Until::Told { node: open.node, ticket: open.ticket, least: view.need.lsn }
        }
        (_, [_, ..]) => Until::Polled,
        // One is far enough, and yet may not serve: too old, or of another history.
        _ if view.need.lsn <= topology.reached() => Until::Polled,
        _ if topology.nodes.iter().any(|node| view.need.lsn <= view.heard.of(node)) => Until::Polled,
        _ => Until::Replayed(view.need.lsn),
    }
}

#[cold]
fn no_place(decision: Decision) -> Report {
    match decision {
        Decision::NoReplica => Report::error(sqlstate::CANNOT_CONNECT_NOW, "no replica may serve this read")
            .hint("A route to a replica was demanded. SET tidegate.route = auto lets the primary serve it."),
        Decision::OverBudget => Report::error(
            sqlstate::LIMIT_EXCEEDED,
            "no replica is fresh enough, and the primary's budget for such reads is spent",
        )
        .hint("See freshness.fallback_per_second and freshness.over_budget."),
        Decision::NoPrimary | Decision::Go { .. } | Decision::Prove { .. } | Decision::Wait { .. } => {
            Report::error(sqlstate::CANNOT_CONNECT_NOW, "no primary is reachable")
                .hint("See /api/status for what is known of each node.")
        }
    }
}

pub(super) fn cancelled() -> Report {
    Report::error("57014", "canceling statement due to user request")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::{Lsn, Ticket, Timeline, WalGeometry};
    use crate::route::Budget;
    use crate::session::Freshness;
    use crate::topology::{Heard, Observation, Observer, Report as Polled};

    fn poll(observer: &mut Observer, node: u16, ticket: u64, lsn: u64) {
        let report = Polled {
            in_recovery: node > 0,
            lsn: Lsn(lsn),
            flushed: Lsn(lsn),
            timeline: Timeline(1),
            system: 7,
            geometry: WalGeometry::default(),
        };
        let (ticket, sent) = (Ticket(ticket), Duration::from_millis(ticket));
        observer.observe(NodeId(node), Observation::Polled { ticket, sent, received: sent, report });
    }

    #[test]
    fn a_read_behind_a_write_waits_for_what_brings_it_on() {
        let mut observer = Observer::new(&["p".into(), "r".into()]);
        (0..2).for_each(|node| poll(&mut observer, node, 1, 100));
        let mut freshness = Freshness::default();
        let ticket = Ticket(2);
        let open = Open { node: NodeId(0), ticket, server_epoch: 0, of_standby: false };
        freshness.wrote(open, observer.topology());
        let mut ask = Ask {
            want: Want::Read(Why::Read),
            level: Level::Session,
            max_staleness: None,
            replica_wait: Duration::from_millis(10),
            wait_over_budget: true,
            deadline: Duration::from_secs(10),
            waited_since: Some(Duration::from_millis(1)),
            may_prove: false,
            avoid: &[],
        };
        let heard = Heard::default();
        // None of the primary's budget is left, which must make no difference before the primary is asked for.
        let mut budget = Budget::new(Some(1), 1);
        assert!(budget.take(Duration::from_millis(1)));
        let mut until_heard = |ask: &Ask<'_>, observer: &Observer, heard: &Heard, now| {
            let topology = observer.topology();
            freshness.resolve(topology, |_| Ticket(9));
            let view = freshness.view(heard);
            match decide(ask, &view, topology, Duration::from_millis(now), &mut budget, |_| 0) {
                Decision::Wait { lack, .. } => Some(until_what(lack, ask, &view, topology)),
                _ => None,
            }
        };
        let mut until = |ask: &Ask<'_>, observer: &Observer, now| until_heard(ask, observer, &heard, now);
        let told = Until::Told { node: NodeId(0), ticket, least: Lsn::ZERO };
        assert_eq!(until(&ask, &observer, 1), Some(told));
        assert_eq!(until(&ask, &observer, 20), Some(Until::Polled), "for the budget");
        poll(&mut observer, 0, 2, 150);
        assert_eq!(until(&ask, &observer, 2), Some(Until::Replayed(Lsn(150))));
        ask.want = Want::Replica;
        assert_eq!(until(&ask, &observer, 20), Some(Until::Replayed(Lsn(150))));
        let mut told = Heard::default();
        told.note(NodeId(1), 0, Lsn(150), None);
        assert_eq!(until_heard(&ask, &observer, &told, 20), None);
        ask.max_staleness = Some(Duration::ZERO);
        assert_eq!(until_heard(&ask, &observer, &told, 20), Some(Until::Polled), "only polls tell its age");
        ask.max_staleness = None;
        poll(&mut observer, 1, 2, 150);
        assert_eq!(until_heard(&ask, &observer, &heard, 2), None);
        observer.observe(NodeId(0), Observation::Lost);
        ask.want = Want::Primary(Why::NotFresh);
        assert_eq!(until_heard(&ask, &observer, &heard, 3), Some(Until::Changed));
    }
}
