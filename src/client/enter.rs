//! A client comes in: counted, greeted, registered, and given what a server says of itself.

use std::sync::atomic::Ordering;

use bytes::BytesMut;

use super::accept::{Entrance, Origin};
use super::cancel::{Handle, worker_of};
use super::handshake::{self, Arrival, Greeting};
use super::keyring;
use super::lease::{NoLease, lease};
use super::logins::{LoggingIn, Turn};
use super::reach::Tries;
use super::serve::{AtRest, Client};
use super::transfer::forget;
use super::tunnel::tunnel;
use super::worker::{Present, Worker, route_cancel};
use crate::config::settings::Consistency;
use crate::net::Stream;
use crate::net::timers::timeout;
use crate::pool::{Identity, Lease, Member, PoolKey};
use crate::relay::{SettleError, settle};
use crate::route::Level;
use crate::session::Session;
use crate::wire::build::{self, Report};
use crate::wire::sqlstate;

/// Counts a client as long as it lives.
pub(super) struct Counted(Option<Present>);

impl Counted {
    /// Unless there are too many.
    fn new(present: Present) -> Result<Self, Present> {
        let worker = &present.0;
        let max = worker.settings().max_clients;
        let clients = &worker.shared.clients;
        let add = |n: usize| (n < max).then_some(n + 1);
        if clients.fetch_update(Ordering::AcqRel, Ordering::Relaxed, add).is_err() {
            return Err(present);
        }
        worker.metrics.client_came();
        Ok(Self(Some(present)))
    }

    /// One that comes from another worker.
    pub(super) fn moved_in(present: Present) -> Self {
        present.0.metrics.client_came();
        Self(Some(present))
    }

    /// It goes to another worker, and counts still.
    fn move_out(&mut self) {
        // With what comes in `Present`'s end.
        if let Some(present) = self.0.take() {
            present.0.metrics.client_left();
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(Present(worker)) = &self.0 {
            worker.shared.clients.fetch_sub(1, Ordering::AcqRel);
            worker.metrics.client_left();
        }
    }
}

/// A client that is in, and what ends with it.
pub(super) struct Entered {
    pub(super) client: Client,
    // Forgotten before it counts as gone.
    pub(super) key_of_role: keyring::Entered,
    pub(super) registered: Registered,
}

/// Lets a client in when it is its turn, if it may come in and stays.
pub(super) async fn client(present: Present, mut stream: Stream, origin: Origin) -> Option<Box<Entered>> {
    let worker = &present.0;
    let max = worker.settings().auth.max_logins;
    let logging_in = match worker.shared.logins.begin(origin.address, max) {
        Turn::Now(place) => place,
        Turn::Later(turn) => match Box::pin(timeout(worker.settings().login_timeout, turn)).await {
            Ok(Ok(place)) => place,
            _ => return refused(worker, &mut stream, BytesMut::new(), &too_many_logins()).await,
        },
        Turn::Never => return refused(worker, &mut stream, BytesMut::new(), &too_many_logins()).await,
    };
    // Boxed, for it takes more room than waiting in line.
    Box::pin(let_in(present, stream, origin, logging_in)).await
}

/// Lets a client in whose turn it is.
async fn let_in(
    present: Present,
    mut stream: Stream,
    Origin { address, entrance }: Origin,
    logging_in: LoggingIn,
) -> Option<Box<Entered>> {
    let worker = present.0.clone();
    let mut input = BytesMut::new();
    let limit = worker.settings().login_timeout;
    let greeting = timeout(limit, handshake::greet(&mut stream, address, &mut input, &worker)).await.ok()?;
    drop(logging_in);
    // It may take long until there is a connection to a server.
    if input.is_empty() {
        worker.buffers.borrow_mut().give(std::mem::take(&mut input));
    }
    let mut arrival = match greeting {
        Greeting::Arrival(arrival) => *arrival,
        Greeting::Cancel(pid, key) => {
            route_cancel(&worker.shared, pid, key).await;
            return None;
        }
        Greeting::Over => return None,
    };
    let mut said = std::mem::take(&mut arrival.said);
    let counted = match Counted::new(present) {
        Ok(counted) if !worker.shared.draining.load(Ordering::Relaxed) => counted,
        Ok(_counted) => return refused(&worker, &mut stream, said, &shutting_down()).await,
        Err(_present) => {
            let report = Report::fatal(sqlstate::TOO_MANY_CONNECTIONS, "sorry, too many clients already")
                .detail("Tidegate's limit is pool.max_clients, or what open files leave of it.");
            return refused(&worker, &mut stream, said, &report).await;
        }
    };
    let key_len = arrival.asked.key_len;
    let key_of_role =
        worker.shared.keyring.enter(arrival.asked.user.clone(), arrival.role, arrival.credential.clone());
    let (pid, key, handle) = handshake::register(&worker, key_len);
    let registered = Registered::new(counted, pid, 0);
    if !arrival.asked.replication.is_empty() && entrance == Entrance::Replica {
        let report = Report::fatal(
            sqlstate::FEATURE_NOT_SUPPORTED,
            "replication connections come in by the usual entrance: they go to the primary",
        );
        return refused(&worker, &mut stream, said, &report).await;
    }
    if !arrival.asked.replication.is_empty() {
        // Boxed, for few clients need the room that it takes.
        let passed =
            Box::pin(tunnel(&worker, &mut stream, &mut input, arrival, &mut said, (pid, &key), &handle))
                .await;
        return match passed {
            Ok(()) => None,
            Err(report) => refused(&worker, &mut stream, said, &report).await,
        };
    }
    match enter(&worker, &mut stream, arrival, &mut said, entrance, (pid, &key), &handle).await {
        Ok((session, identity, pool)) => {
            let names = worker.databases.borrow_mut().of(&identity.database, &worker.shared.catalogs);
            let at_rest =
                AtRest { worker, stream, entrance, session, identity, key: pool, handle, names, pid };
            let client = Client { input, ..at_rest.into() };
            Some(Box::new(Entered { client, registered, key_of_role }))
        }
        Err(report) => refused(&worker, &mut stream, said, &report).await,
    }
}

/// Forgets a client, by the process id that it was told, however its life ends.
pub(super) struct Registered {
    counted: Counted,
    pid: u32,
    /// How often it has gone to another worker.
    moves: u32,
}

impl Registered {
    pub(super) fn new(counted: Counted, pid: u32, moves: u32) -> Self {
        Self { counted, pid, moves }
    }

    /// It goes to another worker: its process id, and how often it has done so.
    pub(super) fn move_out(mut self) -> (u32, u32) {
        self.counted.move_out();
        (self.pid, self.moves)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let Counted(Some(Present(worker))) = &self.counted else { return };
        worker.handles.borrow_mut().remove(self.pid);
        if worker_of(self.pid) != worker.number {
            forget(&worker.shared.workers, self.pid);
        }
    }
}

fn too_many_logins() -> Report {
    Report::fatal(sqlstate::TOO_MANY_CONNECTIONS, "too many clients are logging in")
        .detail("Tidegate's limit is auth.max_logins, or what open files leave of it.")
}

/// `said` is what the client is to be told before.
async fn refused<T>(worker: &Worker, stream: &mut Stream, said: BytesMut, report: &Report) -> Option<T> {
    refuse_behind(worker, stream, said, report).await;
    None
}

pub(super) async fn refuse(worker: &Worker, stream: &mut Stream, report: &Report) {
    refuse_behind(worker, stream, BytesMut::new(), report).await;
}

async fn refuse_behind(worker: &Worker, stream: &mut Stream, mut out: BytesMut, report: &Report) {
    worker.count_error(report);
    report.write(&mut out);
    // Whoever is gone needs no answer.
    let _ = stream.write_last(&out).await;
}

/// Lets a client in: a server must take its role, database and settings, and tells the parameters. `out` is what it is to
/// be told first.
async fn enter(
    worker: &Worker,
    stream: &mut Stream,
    arrival: Arrival,
    out: &mut BytesMut,
    entrance: Entrance,
    (pid, key): (u32, &[u8]),
    handle: &Handle,
) -> Result<(Session, Member, PoolKey), Report> {
    let asked = arrival.asked;
    let identity =
        Identity { user: asked.user.clone(), role: arrival.role, database: asked.database.clone() };
    let (pool, identity) = worker.pools.borrow_mut().key(identity);
    let mut tries = Tries::default();
    let mut lease = loop {
        let mut lease = first_lease(worker, entrance, pool, &identity, handle).await?;
        match settle(&mut lease.connection, &asked.settings, pid).await {
            Ok(()) => break lease,
            Err(SettleError::Refused { sqlstate, message }) => return Err(Report::fatal(sqlstate, message)),
            // The server has ended it just now, perhaps for having been idle. Nothing has run on it for this client.
            Err(SettleError::Io(_)) if tries.may_take_another() => {
                worker.metrics.retaken(lease.connection.node);
                worker.pools.borrow_mut().end(lease);
            }
            Err(SettleError::Io(error)) => {
                return Err(Report::fatal(
                    sqlstate::CONNECTION_FAILURE,
                    format!("the server connection broke: {error}"),
                ));
            }
        }
    };
    handshake::welcome(out, &mut lease.connection.parameters, pid, key);
    let settings = worker.settings();
    worker.pools.borrow_mut().give_back(lease, &worker.topology(), worker.age(&settings));
    stream
        .write_all(out)
        .await
        .map_err(|_| Report::fatal(sqlstate::CONNECTION_EXCEPTION, "the client is gone"))?;
    let level = asked.level.unwrap_or_else(|| level(settings.consistency));
    let round = worker.round.get();
    worker.round.set(round.wrapping_add(1));
    Ok((Session::new(asked.settings.clone(), level, round), identity, pool))
}

/// A connection to the primary, or to any node if there is none: reads go on without a primary. By the replicas' own
/// entrance, a connection to one of them.
async fn first_lease(
    worker: &Worker,
    entrance: Entrance,
    key: PoolKey,
    identity: &Identity,
    handle: &Handle,
) -> Result<Lease, Report> {
    let topology = worker.topology();
    let others = topology.replicas().filter(|n| n.up).map(|n| n.id);
    let (mut last, mut refused) = (String::from("no node is up"), None);
    let primary = topology.primary.filter(|_| entrance == Entrance::Usual);
    for node in primary.into_iter().chain(others) {
        match lease(worker, node, key, identity, handle).await {
            Ok(lease) => return Ok(lease),
            // Another replica may have heard of a role already.
            Err(NoLease::NotLetIn(report)) if Some(node) != primary => refused = Some(report),
            Err(NoLease::Refused(report) | NoLease::NotLetIn(report)) => {
                return Err(Report { severity: build::Severity::Fatal, ..report });
            }
            Err(NoLease::Unreachable(why)) => last = why,
        }
    }
    let nowhere = || Report::fatal(sqlstate::CANNOT_CONNECT, format!("no node takes connections: {last}"));
    Err(refused.unwrap_or_else(nowhere))
}

fn level(consistency: Consistency) -> Level {
    match consistency {
        Consistency::Eventual => Level::Eventual,
        Consistency::ReadYourWrites => Level::ReadYourWrites,
        Consistency::Session => Level::Session,
    }
}

pub(super) fn shutting_down() -> Report {
    Report::fatal(sqlstate::ADMIN_SHUTDOWN, "terminating connection because Tidegate is shutting down")
}
