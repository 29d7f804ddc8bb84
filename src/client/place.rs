//! Where a unit goes: a decision, and a wait for freshness if that is likely to help.

use std::time::Duration;

use tokio::time::timeout;

use super::cancel::Handle;
use super::worker::Worker;
use crate::metrics::WaitOutcome;
use crate::route::{Ask, Decision, Why, decide};
use crate::session::Session;
use crate::topology::{NodeId, Role};
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
}

/// Decides where a unit goes, and waits for a replica to be fresh enough where that is likely to help. `began` is the
/// time now.
///
/// # Errors
/// What the client is to be told.
pub async fn decide_place(
    worker: &Worker,
    session: &mut Session,
    handle: &Handle,
    mut ask: Ask<'_>,
    began: Duration,
) -> Result<Place, Report> {
    let mut waiting = None;
    let mut changed = None;
    loop {
        let topology = worker.topology();
        // Until it has waited, no time has passed.
        let now = if waiting.is_some() { worker.now() } else { began };
        let rebased = session.freshness.resolve(&topology, |node| worker.polls.next(node));
        if rebased {
            worker.metrics.rebased();
        }
        let decision =
            decide(&ask, &session.freshness.view(), &topology, now, &mut worker.budget.borrow_mut());
        match decision {
            Decision::Go { node, why } => {
                let (role, server_epoch) =
                    topology.node(node).map_or((Role::Unknown, 0), |n| (n.role, n.server_epoch));
                if waiting.is_some() {
                    let outcome =
                        if role == Role::Replica { WaitOutcome::Replica } else { WaitOutcome::Primary };
                    worker.metrics.freshness_wait(now.saturating_sub(began), outcome);
                }
                return Ok(Place { node, role, why, server_epoch });
            }
            Decision::Wait { until } => {
                if waiting.is_none() {
                    ask.waited_since = Some(began);
                    waiting = Some(worker.polls.wait());
                    changed = Some(worker.shared.changed.clone());
                }
                let Some(changed) = changed.as_mut() else { continue };
                drop(topology);
                let left = until.saturating_sub(now);
                if left.is_zero() {
                    continue;
                }
                tokio::select! {
                    // Running out of time is an answer, too: the next decision sees the clock.
                    _ = timeout(left, changed.changed()) => {}
                    () = handle.cancellation() => return Err(cancelled()),
                }
            }
            Decision::NoPrimary => {
                return Err(Report::error(sqlstate::CANNOT_CONNECT_NOW, "no primary is reachable")
                    .hint("See /api/status for what is known of each node."));
            }
            Decision::NoReplica => {
                return Err(Report::error(sqlstate::CANNOT_CONNECT_NOW, "no replica may serve this read")
                    .hint("A route to a replica was demanded. SET tidegate.route = auto lets the primary serve it."));
            }
            Decision::OverBudget => {
                return Err(Report::error(
                    sqlstate::LIMIT_EXCEEDED,
                    "no replica is fresh enough, and the primary's budget for such reads is spent",
                )
                .hint("See freshness.fallback_per_second and freshness.over_budget."));
            }
        }
    }
}

pub(super) fn cancelled() -> Report {
    Report::error("57014", "canceling statement due to user request")
}
