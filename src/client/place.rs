//! How a unit gets its server connection: a decision, a wait for freshness, a place in the pool.

use std::time::Duration;

use tokio::time::timeout;

use super::cancel::Handle;
use super::worker::Worker;
use crate::metrics::WaitOutcome;
use crate::pool::pools::Step;
use crate::pool::{Identity, Lease, PoolKey, Seat};
use crate::route::{Ask, Decision, Why, decide};
use crate::server::dial::{Target, dial};
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

/// Decides where a unit goes, and waits for a replica to be fresh enough where that is likely to help.
///
/// # Errors
/// What the client is to be told.
pub async fn decide_place(
    worker: &Worker,
    session: &mut Session,
    handle: &Handle,
    mut ask: Ask<'_>,
) -> Result<Place, Report> {
    let began = worker.now();
    let mut waiting = None;
    let mut changed = None;
    loop {
        let topology = worker.shared.topology.load();
        let now = worker.now();
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

fn cancelled() -> Report {
    Report::error("57014", "canceling statement due to user request")
}

/// Why there is no server connection.
#[derive(Debug)]
pub enum NoLease {
    /// The node does not take connections: another one may.
    Unreachable(String),
    /// The client is to be told.
    Refused(Report),
}

/// Gets a connection to a node, and waits in line for it if need be.
///
/// # Errors
/// See [`NoLease`].
pub async fn lease(
    worker: &Worker,
    node: NodeId,
    key: PoolKey,
    identity: &Identity,
    handle: &Handle,
) -> Result<Lease, NoLease> {
    let step = worker.pools.borrow_mut().take(node, key, &worker.shared.topology.load());
    let permit = match step {
        Some(Step::Lease(lease)) => return Ok(*lease),
        Some(Step::Dial(permit)) => permit,
        Some(Step::Wait(wait)) => {
            let settings = worker.settings();
            let began = worker.now();
            let seat = tokio::select! {
                seat = timeout(settings.pool_timeout, wait) => seat,
                () = handle.cancellation() => return Err(NoLease::Refused(cancelled())),
            };
            worker.metrics.pool_wait(worker.now().saturating_sub(began));
            match seat {
                Ok(Ok(Seat::Lease(lease))) => return Ok(*lease),
                Ok(Ok(Seat::Permit(permit))) => permit,
                Ok(Err(_)) => return Err(NoLease::Unreachable("the pool is closing".to_owned())),
                Err(_) => return Err(NoLease::Refused(pool_full(settings.pool_timeout, settings.pool_size))),
            }
        }
        None => return Err(NoLease::Unreachable("the node is not configured".to_owned())),
    };
    let settings = worker.settings();
    let Some(target) = settings.nodes.get(usize::from(node.0)) else {
        return Err(NoLease::Unreachable("the node is not configured".to_owned()));
    };
    let epoch = worker.shared.topology.load().node(node).map_or(0, |n| n.server_epoch);
    let own = target.password.clone().filter(|_| *target.user == *identity.user);
    let dialled = dial(Target {
        node,
        settings: target,
        epoch,
        user: &identity.user,
        database: &identity.database,
        credential: identity.credential.clone().or_else(|| own.map(crate::auth::Credential::Password)),
        limit: settings.connect_timeout,
        now: worker.now(),
    })
    .await;
    match dialled {
        Ok(connection) => Ok(Lease { connection, key, permit }),
        Err(error) => {
            worker.pools.borrow_mut().seat(node, permit);
            match error {
                crate::server::DialError::Login(crate::auth::LoginError::Refused(refusal))
                    if !is_unavailable(&refusal.sqlstate) =>
                {
                    Err(NoLease::Refused(Report::fatal(refusal.sqlstate, refusal.message)))
                }
                other => Err(NoLease::Unreachable(other.to_string())),
            }
        }
    }
}

/// Whether a refused login tells of the node rather than of the client: starting, stopping, full.
fn is_unavailable(sqlstate: &str) -> bool {
    sqlstate.starts_with("57P") || sqlstate.starts_with("53")
}

fn pool_full(waited: Duration, size: usize) -> Report {
    Report::error(
        sqlstate::TOO_MANY_CONNECTIONS,
        format!("no server connection became free within {} ms", waited.as_millis()),
    )
    .detail(format!("pool.size allows {size} connections per node, and all are in use."))
    .hint("Raise pool.size or pool.timeout, or end transactions sooner.")
}
