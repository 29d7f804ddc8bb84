//! How a unit gets its server connection: an idle one, a place in line, or a new one.

use std::io;
use std::time::Duration;

use super::cancel::Handle;
use super::place::cancelled;
use super::waiters::Until;
use super::worker::Worker;
use crate::auth::{Credential, LoginError};
use crate::net::timers::timeout;
use crate::pool::pools::Step;
use crate::pool::{Identity, Lease, PoolKey, Seat};
use crate::server::Connection;
use crate::server::dial::{DialError, Target, dial};
use crate::topology::{NodeId, Role};
use crate::wire::build::Report;
use crate::wire::sqlstate;

/// Why there is no server connection.
#[derive(Debug)]
pub enum NoLease {
    /// The node does not take connections: another one may.
    Unreachable(String),
    /// The node is well, but does not let this role into this database: what it says. A standby that is behind may not know
    /// them yet.
    NotLetIn(Report),
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
    let step = worker.pools.borrow_mut().take(node, key, &worker.topology());
    match step {
        Some(Step::Lease(lease)) => Ok(lease),
        step => Box::pin(obtain(worker, step, node, key, identity, handle)).await,
    }
}

/// Goes on from a [`Step`] that was no lease: waits in line, makes a new connection.
///
/// # Errors
/// See [`NoLease`].
pub(super) async fn obtain(
    worker: &Worker,
    step: Option<Step>,
    node: NodeId,
    key: PoolKey,
    identity: &Identity,
    handle: &Handle,
) -> Result<Lease, NoLease> {
    let permit = match await_seat(worker, step, handle).await? {
        Seat::Lease(lease) => return Ok(lease),
        Seat::Permit(permit) => permit,
    };
    let (epoch, role) = {
        let topology = worker.topology();
        topology.node(node).map_or((0, Role::Unknown), |n| (n.server_epoch, n.role))
    };
    let dialled = connect(worker, node, epoch, identity, &[]).await;
    match dialled {
        Ok(connection) => {
            let why = match role {
                Role::Replica => {
                    let same = is_still_that_server(worker, node, epoch);
                    tokio::select! {
                        same = timeout(worker.settings().connect_timeout, same) => {
                            (same != Ok(true)).then_some("it did not answer the monitor")
                        }
                        () = handle.cancellation() => {
                            connection.close();
                            worker.pools.borrow_mut().seat(node, permit);
                            return Err(NoLease::Refused(cancelled()));
                        }
                    }
                }
                // Its transactions count by the connection's own epoch; but a server that was demoted meanwhile must
                // not serve what was to be read from the primary.
                _ => connection.is_standby().then_some("it has become a standby"),
            };
            let Some(why) = why else {
                worker.refusals.borrow_mut().clear(node, key);
                return Ok(Lease { connection: Box::new(connection), key, permit });
            };
            connection.close();
            worker.pools.borrow_mut().seat(node, permit);
            Err(NoLease::Unreachable(why.to_owned()))
        }
        Err(error) => {
            worker.pools.borrow_mut().seat(node, permit);
            match error {
                DialError::Login(LoginError::Refused(refusal)) if !is_unavailable(&refusal.sqlstate) => {
                    Err(NoLease::NotLetIn(Report::fatal(refusal.sqlstate, refusal.message)))
                }
                // The node is well; what the client has proven does not open it.
                DialError::Login(
                    error @ (LoginError::NoCredential(_)
                    | LoginError::NeedsPassword(_)
                    | LoginError::UnsupportedMethod(_)),
                ) => {
                    Err(NoLease::NotLetIn(Report::fatal(sqlstate::INVALID_AUTHORIZATION, error.to_string())))
                }
                other => Err(NoLease::Unreachable(other.to_string())),
            }
        }
    }
}

/// Gets an idle connection to a node, or the right to make one, and waits in line for it if need be.
///
/// # Errors
/// See [`NoLease`].
pub(super) async fn seat(
    worker: &Worker,
    node: NodeId,
    key: PoolKey,
    handle: &Handle,
) -> Result<Seat, NoLease> {
    let step = worker.pools.borrow_mut().take(node, key, &worker.topology());
    await_seat(worker, step, handle).await
}

async fn await_seat(worker: &Worker, step: Option<Step>, handle: &Handle) -> Result<Seat, NoLease> {
    match step {
        Some(Step::Lease(lease)) => Ok(Seat::Lease(lease)),
        Some(Step::Dial(permit)) => Ok(Seat::Permit(permit)),
        Some(Step::Wait(wait)) => {
            let settings = worker.settings();
            let began = worker.now();
            let seat = tokio::select! {
                seat = timeout(settings.pool_timeout, wait) => seat,
                () = handle.cancellation() => return Err(NoLease::Refused(cancelled())),
            };
            worker.metrics.pool_wait(worker.now().saturating_sub(began));
            match seat {
                Ok(Ok(seat)) => Ok(seat),
                Ok(Err(_)) => Err(NoLease::Unreachable("the pool is closing".to_owned())),
                Err(_) => Err(NoLease::Refused(pool_full(settings.pool_timeout, settings.pool_size))),
            }
        }
        None => Err(NoLease::Unreachable("the node is not configured".to_owned())),
    }
}

/// Makes a new connection to a node, with what else is to be said at its startup.
///
/// # Errors
/// As [`dial`].
pub(super) async fn connect(
    worker: &Worker,
    node: NodeId,
    epoch: u32,
    identity: &Identity,
    parameters: &[(String, String)],
) -> Result<Connection, DialError> {
    let settings = worker.settings();
    let number = usize::from(node.0);
    let Some((target, connector)) = settings.nodes.get(number).zip(worker.shared.connectors.get(number))
    else {
        return Err(io::Error::other("the node is not configured").into());
    };
    let own = target.password.clone().filter(|_| *target.user == *identity.user);
    dial(Target {
        node,
        connector,
        epoch,
        user: &identity.user,
        database: &identity.database,
        parameters,
        credential: worker
            .shared
            .keyring
            .get(&identity.user, identity.role)
            .or_else(|| own.map(Credential::Password)),
        limit: settings.connect_timeout,
        now: worker.now(),
    })
    .await
}

/// Whether the server behind a connection that was just made is the one that the topology knows in `epoch`, told by a
/// poll that was sent after the connection stood: if the server had crashed in between, the poll's own connection
/// would have ended, too. Without this, a standby that was restarted, and has forgotten what it had replayed, would
/// be taken for what it was before the monitor has noticed.
async fn is_still_that_server(worker: &Worker, node: NodeId, epoch: u32) -> bool {
    let ticket = worker.polls.next(node);
    worker.polls.kick(node);
    loop {
        let topology = worker.topology();
        match topology.node(node) {
            // What was a replica when it was chosen may be one no more.
            Some(n) if n.server_epoch != epoch || !n.up || n.role != Role::Replica => return false,
            Some(n) if n.polled >= ticket => return true,
            Some(_) => {}
            None => return false,
        }
        let asked = worker.wait(Until::Asked { node, ticket }, &topology);
        drop(topology);
        asked.await;
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
