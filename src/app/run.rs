//! From settings to running threads, and back.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use rand::Rng;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::accept;
use super::exit::ExitCode;
use super::files;
use crate::auth::{MockSecret, Users, UsersError};
use crate::client::accept::Entrance;
use crate::client::cancel::MAX_WORKERS;
use crate::client::waiters::Waiters;
use crate::client::worker::{self, Job, Shared, Worker, WorkerDoor};
use crate::config::Settings;
use crate::config::change::changes;
use crate::http::{self, HttpState};
use crate::metrics::Metrics;
use crate::metrics::encode::Servers;
use crate::monitor::{Catalogs, Clock, Latest, Monitor, PollsHandle, Published, Watch};
use crate::net::listen::{listen, listen_for_clients};
use crate::net::{Acceptor, Connector, Connectors, Ring, Timers, TlsError, local_runtime};
use crate::pool::{Limits, Pools, Refusals};
use crate::route::Budget;
use crate::session::Statements;
use crate::session::pins::Pins;
use crate::sql::Learned;

/// Reads the configuration anew; `None` where it cannot be read, which is logged.
pub type Reload = Box<dyn Fn() -> Option<Settings>>;

/// Runs the proxy until a signal ends it.
pub fn run(settings: Settings, reload: Reload) -> ExitCode {
    match local_runtime().and_then(|runtime| Ok((runtime, Timers::start()?))) {
        Ok((runtime, timers)) => runtime.block_on(control(settings, reload, timers)),
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            ExitCode::Internal
        }
    }
}

/// The control thread's task: roles and catalogs are asked for, HTTP is served, signals are heard.
async fn control(mut settings: Settings, reload: Reload, timers: Timers) -> ExitCode {
    files::raise();
    let (nodes, workers) = (settings.nodes.len(), settings.workers.clamp(1, MAX_WORKERS));
    files::fit(&mut settings, nodes, workers);
    let (listener, web) = match (listen_for_clients(settings.listen), listen(settings.http)) {
        (Ok(listener), Ok(web)) => (listener, web),
        (Err(error), _) => return cannot_listen("listen", settings.listen, &error),
        (_, Err(error)) => return cannot_listen("http", settings.http, &error),
    };
    let second = match settings.listen_replica.map(|address| (address, listen_for_clients(address))) {
        None => None,
        Some((_, Ok(listener))) => Some(listener),
        Some((address, Err(error))) => return cannot_listen("listen_replica", address, &error),
    };
    let clock = Clock::start();
    let names: Vec<_> = settings.nodes.iter().map(|n| n.name.clone()).collect();
    let metrics = Metrics::new(names, workers, &Pins::ALL_NAMES);
    let limits = Limits::new(settings.nodes.len(), workers, settings.pool_size);
    let mut mock = [0; 32];
    rand::rng().fill_bytes(&mut mock);
    let users = match users(&settings, MockSecret::new(mock)) {
        Ok(users) => users,
        Err(error) => {
            tracing::error!(%error, "cannot take the users of the configuration");
            return ExitCode::Usage;
        }
    };
    let (connectors, acceptor) = match tls(&settings) {
        Ok(both) => both,
        Err(error) => {
            tracing::error!(%error, "cannot set up TLS");
            return ExitCode::Usage;
        }
    };
    let settings = Published::new(settings);
    let (query, ttl) = {
        let auth = &settings.load().auth;
        (auth.query.clone(), auth.cache)
    };
    let (monitor, watch) = Monitor::start(settings.clone(), connectors.clone(), workers, clock, query, ttl);
    let catalogs = Catalogs::start(settings.clone(), monitor.topology.clone(), connectors.clone());
    for node in &settings.load().nodes {
        // Most clients use the database that the monitor is told of: it is known when they come.
        let _ = catalogs.of(&node.database);
    }
    let draining = Arc::new(AtomicBool::new(false));
    let (doors, mailboxes): (Vec<_>, Vec<_>) = (0..workers)
        .map(|_| {
            let (jobs, mailbox) = mpsc::unbounded_channel();
            let (load, newcomers, busy) = (AtomicUsize::new(0), AtomicU32::new(0), AtomicU32::new(0));
            (WorkerDoor { jobs, load, newcomers, busy }, mailbox)
        })
        .unzip();
    let shared = Shared {
        users: Arc::new(ArcSwap::from_pointee(users)),
        settings,
        verifiers: monitor.verifiers.clone(),
        keyring: Arc::default(),
        logins: Arc::default(),
        hashing: Arc::new(Semaphore::new(thread::available_parallelism().map_or(1, |n| n.get().div_ceil(2)))),
        connectors,
        acceptor: Arc::new(acceptor.map(Arc::new).into()),
        topology: monitor.topology.clone(),
        catalogs,
        limits: limits.clone(),
        clock,
        clients: Arc::new(AtomicUsize::new(0)),
        draining: draining.clone(),
        timers,
        workers: doors.into(),
    };
    // The first worker polls.
    let mut watch = Some(watch);
    for (number, mailbox) in mailboxes.into_iter().enumerate() {
        let polls = monitor.polls.handle(number);
        if let Err(error) = start_worker(number, &shared, &metrics, polls, mailbox, watch.take()) {
            tracing::error!(%error, "cannot start a worker thread");
            return ExitCode::Internal;
        }
    }
    let nodes = monitor.topology.clone();
    let current = shared.settings.clone();
    tokio::task::spawn_local(http::serve(
        web,
        HttpState {
            metrics,
            topology: Box::new(move || nodes.load_full()),
            servers: Box::new(move |node| Servers { used: limits.used(node), max: limits.max(node) }),
            now: Box::new(move || clock.now()),
            draining,
            from: Box::new(move |address| current.load().http_from.iter().any(|net| net.hold(address))),
        },
    ));
    let settings = shared.settings.load();
    tracing::info!(listen = %settings.listen, http = %settings.http, workers, nodes = settings.nodes.len(), "ready for clients");
    drop(settings);
    let usual = (listener, Entrance::Usual);
    let entrances = [usual].into_iter().chain(second.map(|listener| (listener, Entrance::Replica)));
    serve(entrances.collect(), &shared, &reload).await
}

fn cannot_listen(key: &str, address: std::net::SocketAddr, error: &io::Error) -> ExitCode {
    tracing::error!(key, %address, %error, "cannot listen: choose another address, or end what holds this one");
    ExitCode::CannotListen
}

/// The ways to the nodes, and what clients are met with.
fn tls(settings: &Settings) -> Result<(Connectors, Option<Acceptor>), TlsError> {
    let connectors = settings.nodes.iter().map(Connector::new).collect::<Result<_, _>>()?;
    Ok((connectors, settings.tls.as_ref().map(Acceptor::new).transpose()?))
}

fn users(settings: &Settings, mock: MockSecret) -> Result<Users, UsersError> {
    let entries = settings.auth.users.iter().map(|u| (u.name.as_str(), u.secret.as_str()));
    Users::new(entries, mock)
}

fn start_worker(
    number: usize,
    shared: &Shared,
    metrics: &Arc<Metrics>,
    polls: PollsHandle,
    mailbox: mpsc::UnboundedReceiver<Job>,
    watch: Option<Watch>,
) -> io::Result<()> {
    let shared = shared.clone();
    let metrics = metrics.worker(number);
    let body = move || {
        let settings = shared.settings.load();
        let budget = Budget::new(settings.fallback_per_second, shared.workers.len());
        let worker = Worker {
            number,
            pools: Pools::new(number, settings.nodes.len(), shared.limits.clone()).into(),
            refusals: Refusals::default().into(),
            sends: Default::default(),
            alike: 1.into(),
            buffers: Default::default(),
            berths: Default::default(),
            databases: Default::default(),
            statements: Statements::default().into(),
            packets: Default::default(),
            known: Default::default(),
            learned: Learned::default().into(),
            handles: Default::default(),
            metrics,
            waiters: Waiters::new(polls.clone()).into(),
            polls,
            looked: Default::default(),
            heard: Default::default(),
            round: (number as u16).into(),
            stirred: Default::default(),
            budget: budget.into(),
            topology: Latest::of(shared.topology.clone()),
            settings: Latest::of(shared.settings.clone()),
            shared: shared.clone(),
        };
        let ring = if settings.io_uring { ring(number) } else { None };
        drop(settings);
        if let Err(error) = worker::run(worker, mailbox, watch, ring) {
            tracing::error!(number, %error, "a worker ended");
        }
    };
    thread::Builder::new().name(format!("worker-{number}")).spawn(body).map(|_| ())
}

/// By which a worker sends, if there is one.
fn ring(number: usize) -> Option<Ring> {
    match Ring::new() {
        Ok(ring) => Some(ring),
        Err(error) => {
            // Of the others the same is true.
            if number == 0 {
                tracing::info!(%error, "there is no io_uring here: whatever is sent takes a call of its own");
            }
            None
        }
    }
}

/// Lets clients in until a signal says to stop.
async fn serve(entrances: Vec<(TcpListener, Entrance)>, shared: &Shared, reload: &Reload) -> ExitCode {
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()))
    else {
        tracing::error!("cannot listen for signals");
        return ExitCode::Internal;
    };
    let opened = entrances.into_iter().enumerate().map(|(number, (listener, entrance))| {
        accept::open(listener, entrance, number % shared.workers.len(), shared)
    });
    let Some(mut opened) = opened.collect::<Option<Vec<_>>>() else {
        tracing::error!("cannot let clients in: a worker is gone");
        return ExitCode::Internal;
    };
    loop {
        tokio::select! {
            _ = hangup.recv() => take_settings(shared, reload),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = accept::lost(&mut opened) => {
                tracing::error!("nobody lets clients in any more: a worker is gone");
                return ExitCode::Internal;
            }
        }
    }
    drain(shared, opened, &mut terminate, &mut interrupt).await
}

fn take_settings(shared: &Shared, reload: &Reload) {
    let Some(mut new) = reload() else { return };
    let old = shared.settings.load_full();
    // Nodes and workers stay those that it runs with.
    files::fit(&mut new, old.nodes.len(), shared.workers.len());
    let changed = changes(&old, &new);
    let mut merged = new.clone();
    for change in &changed {
        if change.needs_restart {
            tracing::warn!(key = change.key, "this setting changes only at a restart");
        } else {
            tracing::info!(key = change.key, "setting changed");
        }
    }
    // What cannot change while running keeps its value, so that all parts agree.
    merged.listen = old.listen;
    merged.listen_replica = old.listen_replica;
    merged.http = old.http;
    merged.workers = old.workers;
    merged.io_uring = old.io_uring;
    merged.nodes = old.nodes.clone();
    if let Err(error) = take_secrets(shared, &merged) {
        tracing::error!(%error, "the configuration is not taken");
        return;
    }
    shared.limits.set_max(merged.pool_size);
    shared.settings.store(Arc::new(merged));
    tracing::info!(changes = changed.len(), "configuration read anew");
}

/// Takes the users, and reads the files of TLS anew, which may have changed under the same names. Who is connected stays
/// connected. After an error all is as it was.
fn take_secrets(shared: &Shared, settings: &Settings) -> anyhow::Result<()> {
    let users = users(settings, shared.users.load().mock().clone())?;
    let acceptor = settings.tls.as_ref().map(Acceptor::new).transpose()?;
    let files: Vec<_> = shared.connectors.iter().map(Connector::read).collect::<Result<_, _>>()?;
    for (connector, files) in shared.connectors.iter().zip(files) {
        connector.take(files);
    }
    shared.users.store(Arc::new(users));
    shared.acceptor.store(acceptor.map(Arc::new));
    Ok(())
}

/// Lets nobody in any more, and clients finish their transactions. A second signal, or too long a wait, ends it at once.
async fn drain(
    shared: &Shared,
    opened: Vec<accept::Open>,
    terminate: &mut tokio::signal::unix::Signal,
    interrupt: &mut tokio::signal::unix::Signal,
) -> ExitCode {
    shared.draining.store(true, Ordering::Relaxed);
    let limit = shared.settings.load().drain_timeout;
    tracing::info!(clients = shared.clients.load(Ordering::Relaxed), ?limit, "draining");
    let empty = async {
        accept::close(opened).await;
        for door in shared.workers.iter() {
            // A worker that is gone has nobody to let go.
            let _ = door.jobs.send(Job::Drain);
        }
        while shared.clients.load(Ordering::Acquire) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        done = timeout(limit, empty) => {
            if done.is_err() {
                tracing::warn!(clients = shared.clients.load(Ordering::Relaxed), "transactions were still open");
                return ExitCode::DrainTimeout;
            }
        }
        _ = terminate.recv() => return ExitCode::DrainTimeout,
        _ = interrupt.recv() => return ExitCode::DrainTimeout,
    }
    tracing::info!("all clients have left");
    ExitCode::Ok
}
