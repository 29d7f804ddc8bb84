//! A client from its first byte to its last.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use bytes::{Buf, BytesMut};
use tokio::time::timeout;

use super::cancel::Handle;
use super::handshake::{self, Arrival, Greeting};
use super::lease::{NoLease, lease};
use super::tunnel::tunnel;
use super::unit;
use super::worker::{Entrance, Worker, route_cancel};
use crate::config::settings::Consistency;
use crate::monitor::{CatalogCell, Latest};
use crate::net::Stream;
use crate::pool::{Identity, Lease, PoolKey};
use crate::relay::{SettleError, own_notification, settle};
use crate::route::Level;
use crate::session::collect::End;
use crate::session::collect::{Collected, Collector, Context};
use crate::session::pins::Pins;
use crate::session::state::Lost;
use crate::session::{Session, Unit};
use crate::sql::Catalog;
use crate::sql::command::Modes;
use crate::wire::build::{self, Report};
use crate::wire::client::tag;
use crate::wire::server::Status;
use crate::wire::sqlstate::{self, IDLE_TIMEOUT};

/// One client that is in.
pub(super) struct Client {
    pub(super) worker: Rc<Worker>,
    pub(super) stream: Stream,
    /// What has come from it and is not used yet.
    pub(super) input: BytesMut,
    pub(super) entrance: Entrance,
    pub(super) session: Session,
    pub(super) identity: Identity,
    pub(super) key: PoolKey,
    pub(super) handle: Rc<Handle>,
    pub(super) catalog: Arc<CatalogCell>,
    /// The catalog, as this thread reads it.
    pub(super) names: Latest<Catalog>,
    pub(super) collector: Collector,
    /// The server connection of its transaction, or the one that it is bound to.
    pub(super) lease: Option<Lease>,
    /// What the transaction that is under way counts as.
    pub(super) transaction: unit::TransactionKind,
    /// The transaction under way has set something, perhaps for itself alone.
    pub(super) sets: bool,
    /// Its process id, as it is told.
    pub(super) pid: u32,
    /// The transaction under way changes definitions.
    pub(super) defines: bool,
    /// The modes of a READ ONLY transaction on a replica in which nothing has run yet.
    pub(super) begun: Option<Modes>,
    /// The unit under way still stands at the start of the input.
    pub(super) pending_unit: bool,
    /// Bytes of stray COPY data still to be dropped.
    skip: usize,
    /// What the session counts as bound to its server by.
    pub(super) counted_pins: Pins,
}

/// Why a client's life goes on or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    GoesOn,
    Ends,
}

/// Counts a client as long as it lives.
struct Counted<'a>(&'a Worker);

impl<'a> Counted<'a> {
    fn new(worker: &'a Worker) -> Option<Self> {
        let max = worker.settings().max_clients;
        let clients = &worker.shared.clients;
        let add = |n: usize| (n < max).then_some(n + 1);
        clients.fetch_update(Ordering::AcqRel, Ordering::Relaxed, add).ok()?;
        worker.metrics.client_came();
        Some(Self(worker))
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.shared.clients.fetch_sub(1, Ordering::AcqRel);
        self.0.metrics.client_left();
    }
}

/// Counts a client as logging in: what a stranger may take up is limited.
struct LoggingIn<'a>(&'a Worker);

impl<'a> LoggingIn<'a> {
    fn new(worker: &'a Worker) -> Option<Self> {
        let max = worker.settings().auth.max_logins;
        let add = |n: usize| (n < max).then_some(n + 1);
        worker.shared.logins.fetch_update(Ordering::AcqRel, Ordering::Relaxed, add).ok()?;
        Some(Self(worker))
    }
}

impl Drop for LoggingIn<'_> {
    fn drop(&mut self) {
        self.0.shared.logins.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Serves a client.
pub async fn client(worker: Rc<Worker>, mut stream: Stream, mut input: BytesMut, entrance: Entrance) {
    let Some(logging_in) = LoggingIn::new(&worker) else {
        let report = Report::fatal(sqlstate::TOO_MANY_CONNECTIONS, "too many clients are logging in")
            .detail("Tidegate's limit is auth.max_logins.");
        return refuse(&worker, &mut stream, &report).await;
    };
    let limit = worker.settings().login_timeout;
    let Ok(greeting) = timeout(limit, handshake::greet(&mut stream, &mut input, &worker)).await else {
        return;
    };
    drop(logging_in);
    let arrival = match greeting {
        Greeting::Arrival(arrival) => *arrival,
        Greeting::Cancel(pid, key) => return route_cancel(&worker.shared, pid, key).await,
        Greeting::Over => return,
    };
    let counted = Counted::new(&worker);
    if counted.is_none() || worker.shared.draining.load(Ordering::Relaxed) {
        let report = if counted.is_none() {
            Report::fatal(sqlstate::TOO_MANY_CONNECTIONS, "sorry, too many clients already")
                .detail("Tidegate's limit is pool.max_clients.")
        } else {
            shutting_down()
        };
        return refuse(&worker, &mut stream, &report).await;
    }
    let key_len = arrival.key_len;
    let _entered =
        worker.shared.keyring.enter(arrival.user.clone(), arrival.role, arrival.credential.clone());
    let (pid, key, handle) = handshake::register(&worker, key_len);
    let _registered = Registered(&worker, pid);
    if !arrival.replication.is_empty() && entrance == Entrance::Replica {
        let report = Report::fatal(
            sqlstate::FEATURE_NOT_SUPPORTED,
            "replication connections come in by the usual entrance: they go to the primary",
        );
        return refuse(&worker, &mut stream, &report).await;
    }
    if !arrival.replication.is_empty() {
        let passed = tunnel(&worker, &mut stream, &mut input, arrival, (pid, &key), &handle).await;
        if let Err(report) = passed {
            refuse(&worker, &mut stream, &report).await;
        }
        return;
    }
    match enter(&worker, &mut stream, arrival, entrance, (pid, &key), &handle).await {
        Ok((session, identity, pool)) => {
            let catalog = worker.shared.catalogs.of(&identity.database);
            let mut client = Client {
                worker: worker.clone(),
                stream,
                input,
                entrance,
                session,
                identity,
                key: pool,
                handle,
                names: catalog.latest(),
                catalog,
                collector: Collector::default(),
                lease: None,
                transaction: unit::TransactionKind::default(),
                sets: false,
                pid,
                defines: false,
                begun: None,
                pending_unit: false,
                skip: 0,
                counted_pins: Pins::default(),
            };
            client.live().await;
        }
        Err(report) => refuse(&worker, &mut stream, &report).await,
    }
}

/// Forgets a client however its life ends.
struct Registered<'a>(&'a Worker, u32);

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.0.handles.borrow_mut().remove(self.1);
    }
}

async fn refuse(worker: &Worker, stream: &mut Stream, report: &Report) {
    worker.count_error(report);
    let mut out = BytesMut::new();
    report.write(&mut out);
    // Whoever is gone needs no answer.
    let _ = stream.write_all(&out).await;
}

/// Lets a client in: a server must take its role, database and settings, and tells the parameters.
async fn enter(
    worker: &Worker,
    stream: &mut Stream,
    arrival: Arrival,
    entrance: Entrance,
    (pid, key): (u32, &[u8]),
    handle: &Handle,
) -> Result<(Session, Identity, PoolKey), Report> {
    let identity = Identity { user: arrival.user, role: arrival.role, database: arrival.database };
    let pool = worker.pools.borrow_mut().key(&identity);
    let mut lease = first_lease(worker, entrance, pool, &identity, handle).await?;
    match settle(&mut lease.connection, &arrival.settings, pid).await {
        Ok(()) => {}
        Err(SettleError::Refused { sqlstate, message }) => return Err(Report::fatal(sqlstate, message)),
        Err(SettleError::Io(error)) => {
            return Err(Report::fatal(
                sqlstate::CONNECTION_FAILURE,
                format!("the server connection broke: {error}"),
            ));
        }
    }
    let mut out = BytesMut::new();
    handshake::welcome(&mut out, &lease.connection.parameters, pid, key);
    let settings = worker.settings();
    worker.pools.borrow_mut().give_back(lease, &worker.topology(), worker.age(&settings));
    stream
        .write_all(&out)
        .await
        .map_err(|_| Report::fatal(sqlstate::CONNECTION_EXCEPTION, "the client is gone"))?;
    let level = arrival.level.unwrap_or_else(|| level(settings.consistency));
    let round = worker.round.get();
    worker.round.set(round.wrapping_add(1));
    Ok((Session::new(arrival.settings, level, round), identity, pool))
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
    let mut last = String::from("no node is up");
    let primary = topology.primary.filter(|_| entrance == Entrance::Usual);
    for node in primary.into_iter().chain(others) {
        match lease(worker, node, key, identity, handle).await {
            Ok(lease) => return Ok(lease),
            Err(NoLease::Refused(report)) => {
                return Err(Report { severity: build::Severity::Fatal, ..report });
            }
            Err(NoLease::Unreachable(why)) => last = why,
        }
    }
    Err(Report::fatal(sqlstate::CANNOT_CONNECT, format!("no node takes connections: {last}")))
}

fn level(consistency: Consistency) -> Level {
    match consistency {
        Consistency::Eventual => Level::Eventual,
        Consistency::ReadYourWrites => Level::ReadYourWrites,
        Consistency::Session => Level::Session,
    }
}

fn shutting_down() -> Report {
    Report::fatal(sqlstate::ADMIN_SHUTDOWN, "terminating connection because Tidegate is shutting down")
}

/// What wakes a client between its units.
enum Woken {
    Client,
    Server,
    Leave,
    /// It has been idle for as long as its `idle_session_timeout` allows.
    Idle,
}

impl Client {
    async fn live(&mut self) {
        while self.step().await == Life::GoesOn {}
        self.worker.metrics.pinned(self.counted_pins.kinds(), []);
        // Whatever is still open ends with its server connection.
        if let Some(lease) = self.lease.take() {
            self.handle.rests();
            lease.connection.close();
        }
    }

    /// Takes the next unit, or more bytes.
    async fn step(&mut self) -> Life {
        if self.skip > 0 {
            let n = self.skip.min(self.input.len());
            self.input.advance(n);
            self.skip -= n;
        }
        if self.skip > 0 || self.input.is_empty() {
            return self.more().await;
        }
        if self.session.skipping {
            return self.skip_to_sync().await;
        }
        let names = self.names.get();
        let context = Context {
            names: &**names,
            dialect: self.session.dialect(),
            statements: &self.session.statements,
            known: &self.worker.known,
        };
        match self.collector.collect(&self.input, &context) {
            Collected::More => self.more().await,
            Collected::Unit(unit) => self.unit(unit).await,
            Collected::Terminate => Life::Ends,
            Collected::Stray(n) => {
                self.skip = n;
                Life::GoesOn
            }
            Collected::Unknown(tag) => {
                self.fatal(&Report::fatal(
                    sqlstate::PROTOCOL_VIOLATION,
                    format!("invalid frontend message type {tag}"),
                ))
                .await
            }
            Collected::Malformed(tag) => {
                self.fatal(&Report::fatal(
                    sqlstate::PROTOCOL_VIOLATION,
                    format!("invalid message format in a message of type {:?}", char::from(tag)),
                ))
                .await
            }
            Collected::Broken(error) => {
                self.fatal(&Report::fatal(sqlstate::PROTOCOL_VIOLATION, error.to_string())).await
            }
        }
    }

    /// Drops what follows in a pipeline that has failed, up to its Sync.
    async fn skip_to_sync(&mut self) -> Life {
        match crate::wire::Frame::peek(&self.input) {
            Ok(Some(frame)) if frame.tag == tag::TERMINATE => Life::Ends,
            Ok(Some(frame)) if frame.tag == tag::SYNC => {
                self.input.advance(frame.len);
                self.session.skipping = false;
                let mut out = BytesMut::new();
                build::ready_for_query(&mut out, self.session.status);
                self.say(&out).await
            }
            Ok(Some(frame)) => {
                self.skip = frame.len;
                Life::GoesOn
            }
            Ok(None) => self.more().await,
            Err(error) => self.fatal(&Report::fatal(sqlstate::PROTOCOL_VIOLATION, error.to_string())).await,
        }
    }

    /// Waits for more from the client. A client that has nothing to say holds no buffer.
    async fn more(&mut self) -> Life {
        if self.input.is_empty() {
            self.worker.buffers.borrow_mut().give(std::mem::take(&mut self.input));
        }
        match self.woken().await {
            Woken::Client => {}
            Woken::Server => return self.hear_server().await,
            Woken::Leave => return self.fatal(&shutting_down()).await,
            Woken::Idle => {
                let report =
                    Report::fatal(IDLE_TIMEOUT, "terminating connection due to idle-session timeout");
                return self.fatal(&report).await;
            }
        }
        if self.input.capacity() == 0 {
            self.input = self.worker.buffers.borrow_mut().take();
        }
        self.input.reserve(1);
        match self.stream.read_now(&mut self.input).await {
            Ok(Some(0)) | Err(_) => Life::Ends,
            Ok(_) => Life::GoesOn,
        }
    }

    async fn woken(&self) -> Woken {
        let idle = self.session.status == Status::Idle;
        let limit = self.session.settings.marks().idle_timeout.filter(|_| idle && self.input.is_empty());
        // Of the two ends of the connection this is the one that is idle: the server may serve others.
        let mut limit = limit.map(|limit| Box::pin(tokio::time::sleep(limit)));
        poll_fn(|cx| {
            self.handle.listen(cx.waker());
            if self.stream.poll_readable(cx).is_ready() {
                return Poll::Ready(Woken::Client);
            }
            if let Some(lease) = &self.lease
                && (lease.connection.has_message() || lease.connection.stream.poll_readable(cx).is_ready())
            {
                return Poll::Ready(Woken::Server);
            }
            if self.handle.is_leaving() && idle {
                return Poll::Ready(Woken::Leave);
            }
            if limit.as_mut().is_some_and(|limit| limit.as_mut().poll(cx).is_ready()) {
                return Poll::Ready(Woken::Idle);
            }
            Poll::Pending
        })
        .await
    }

    /// The leased server speaks between units: a notification, a notice, or its end.
    async fn hear_server(&mut self) -> Life {
        let Some(lease) = self.lease.as_mut() else { return Life::GoesOn };
        let server = &mut lease.connection;
        let mut out = BytesMut::new();
        let mut lost = false;
        // What came behind the last answer comes first.
        if !server.has_message() {
            server.input.reserve(1024);
            let read = server.stream.read_now(&mut server.input).await;
            lost = matches!(read, Ok(Some(0)) | Err(_));
        }
        while let Ok(Some(frame)) = crate::wire::Frame::peek(&server.input) {
            if server.input.len() < frame.len {
                break;
            }
            lost |= frame.tag == crate::wire::server::tag::ERROR_RESPONSE;
            if frame.tag == crate::wire::server::tag::NOTIFICATION_RESPONSE {
                let message = server.input.get_mut(..frame.len).unwrap_or_default();
                own_notification(message, server.pid, self.pid);
            }
            out.extend_from_slice(&server.input.split_to(frame.len));
        }
        if lost && out.is_empty() && self.session.pins.is_empty() {
            // It died without a word, between two statements of a transaction.
            if let Some(lease) = self.lease.take() {
                let node = lease.connection.node;
                self.handle.rests();
                self.end_lease(lease, node);
            }
            // A transaction that has failed already can do no more than end.
            let told = self.session.status == Status::Failed;
            self.session.lose(if told { Lost::Told } else { Lost::Untold });
            return Life::GoesOn;
        }
        if lost {
            // PostgreSQL itself would close the connection: state that is lost cannot be made up for.
            if out.is_empty() {
                Report::fatal(sqlstate::CONNECTION_FAILURE, "the server connection broke").write(&mut out);
            }
            let _ = self.stream.write_all(&out).await;
            return Life::Ends;
        }
        match self.stream.write_all(&out).await {
            Ok(()) => Life::GoesOn,
            Err(_) => Life::Ends,
        }
    }

    /// Tells the client why its connection ends.
    pub(super) async fn fatal(&mut self, report: &Report) -> Life {
        refuse(&self.worker, &mut self.stream, report).await;
        Life::Ends
    }

    /// Tells the client that a unit failed, and that the next may come.
    pub(super) async fn fail(&mut self, unit: &Unit, report: &Report) -> Life {
        self.worker.count_error(report);
        if report.severity == build::Severity::Fatal {
            return self.fatal(report).await;
        }
        let mut out = BytesMut::new();
        report.write(&mut out);
        if self.say(&out).await == Life::Ends {
            return Life::Ends;
        }
        self.after_error(unit).await
    }

    /// Ends a unit whose error the client has had.
    pub(super) async fn after_error(&mut self, unit: &Unit) -> Life {
        if unit.end == End::Flushed {
            // The Sync is still to come, and brings ReadyForQuery.
            self.session.skipping = true;
            return Life::GoesOn;
        }
        let mut out = BytesMut::new();
        build::ready_for_query(&mut out, self.session.status);
        self.say(&out).await
    }

    /// Writes to the client.
    pub(super) async fn say(&mut self, bytes: &[u8]) -> Life {
        match self.stream.write_all(bytes).await {
            Ok(()) => Life::GoesOn,
            Err(_) => Life::Ends,
        }
    }
}
