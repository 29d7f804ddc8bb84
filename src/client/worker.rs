//! One worker thread: its clients, its server connections, and what they share.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};

use super::accept::{Opening, Origin, accept};
use super::balance::balance;
use super::berth::Berths;
use super::cancel::{Handle, Handles, worker_of};
use super::gather::Move;
use super::keyring::Keyring;
use super::logins::Logins;
use super::names::Databases;
use super::packets::Packets;
use super::resident::{admit, take_in};
use super::transfer::Transfer;
use super::waiters::{self, Until, Waiters};

use crate::auth::Users;
use crate::config::Settings;
use crate::metrics::WorkerMetrics;
use crate::monitor::{Catalogs, Clock, Latest, PollsHandle, Published, Snapshot, Verifiers, Watch};
use crate::net::executor::step;
use crate::net::timers::sleep;
use crate::net::{Acceptor, Buffers, Connectors, Ring, Timers, executor, spawn};
use crate::pool::pools::Age;
use crate::pool::{Lease, Limits, Pools, Refusals};
use crate::session::{KnownTexts, Statements, Told};
use crate::sql::Learned;
use crate::topology::{Heard, NodeId, Topology};
use crate::wire::build::Report;

/// What all workers share.
#[derive(Clone)]
pub struct Shared {
    /// The settings in force.
    pub settings: Arc<Published<Settings>>,
    /// The users of the settings in force.
    pub users: Arc<ArcSwap<Users>>,
    /// Stored passwords of roles, as the database has them.
    pub verifiers: Arc<Verifiers>,
    /// What servers take as proof of the roles that are in.
    pub keyring: Arc<Keyring>,
    /// Clients that are logging in, over all workers.
    pub logins: Arc<Logins>,
    /// Turns at hashing passwords: half of the processors may be kept busy by that.
    pub hashing: Arc<Semaphore>,
    /// The way to each node.
    pub connectors: Connectors,
    /// What makes TLS sessions with clients, if anything does.
    pub acceptor: Arc<ArcSwapOption<Acceptor>>,
    /// The nodes.
    pub topology: Arc<Published<Topology>>,
    /// What is known of each database's names.
    pub catalogs: Arc<Catalogs>,
    /// The limits on server connections.
    pub limits: Arc<Limits>,
    /// The time since the process started.
    pub clock: Clock,
    /// Clients that are in, over all workers.
    pub clients: Arc<AtomicUsize>,
    /// No new clients, and those that are in leave when their transaction is over.
    pub draining: Arc<AtomicBool>,
    /// Who keeps the workers' timers.
    pub timers: Timers,
    /// The way to each worker.
    pub workers: Arc<[WorkerDoor]>,
}

/// The way to a worker.
#[derive(Debug)]
pub struct WorkerDoor {
    /// Takes its jobs.
    pub jobs: mpsc::UnboundedSender<Job>,
    /// How many clients it has.
    pub load: AtomicUsize,
    /// How many have come since it last looked how busy it is.
    pub newcomers: AtomicU32,
    /// How much of a processor it takes, in thousandths.
    pub busy: AtomicU32,
}

/// What a worker is asked to do.
#[derive(Debug)]
pub enum Job {
    /// Let clients in there.
    Open(Opening),
    /// Serve a client that has come in like that, whose socket does not block.
    Client(std::net::TcpStream, Origin),
    /// Serve a client that comes from another worker.
    Arrival(Box<Transfer>),
    /// The client that this worker has told that process id has gone on to that worker, as its so-manieth move.
    Away(u32, usize, u32),
    /// It has left for good.
    Forget(u32),
    /// Those of its clients are to go to another worker, or none any more.
    Send(Option<Move>),
    /// Cancel what the client of that process id and key runs; the sender is dropped when that is done.
    Cancel(u32, Vec<u8>, oneshot::Sender<()>),
    /// End all idle connections to that database; the sender is dropped when that is done.
    Vacate(String, oneshot::Sender<()>),
    /// Let the clients leave.
    Drain,
}

/// One worker, as its clients see it.
pub struct Worker {
    /// Its number.
    pub number: usize,
    /// What it shares with the others.
    pub shared: Shared,
    /// The nodes, as this thread reads them.
    pub topology: Latest<Topology>,
    /// The settings in force, as this thread reads them.
    pub settings: Latest<Settings>,
    /// Its server connections.
    pub pools: RefCell<Pools>,
    /// Standbys that have just given somebody no connection.
    pub refusals: RefCell<Refusals>,
    /// Its clients that are to go to another worker.
    pub sends: Cell<Option<Move>>,
    /// All workers together have as much to do as so many like this one.
    pub alike: Cell<usize>,
    /// Its free buffers.
    pub buffers: RefCell<Buffers>,
    /// Room for clients that have something to do.
    pub berths: Berths,
    /// Its prepared statements.
    pub statements: RefCell<Statements>,
    /// The startup packets that came last.
    pub packets: RefCell<Packets>,
    /// The names in its clients' databases.
    pub databases: RefCell<Databases>,
    /// Texts that were judged before.
    pub known: RefCell<KnownTexts>,
    /// Texts that standbys have refused.
    pub learned: RefCell<Learned>,
    /// Its clients.
    pub handles: RefCell<Handles>,
    /// Its counters.
    pub metrics: Arc<WorkerMetrics>,
    /// The polls of the nodes.
    pub polls: PollsHandle,
    /// What replicas have said to it since they were polled.
    pub heard: RefCell<Heard>,
    /// Its sessions that wait for freshness.
    pub waiters: RefCell<Waiters>,
    /// When the time was last asked for.
    pub looked: Cell<Duration>,
    /// Where the next session begins its round.
    pub round: Cell<u16>,
    /// Rung for each client that comes.
    pub stirred: Notify,
    /// Its tokens for reads that no replica is fresh enough for.
    pub budget: RefCell<crate::route::Budget>,
}

impl Worker {
    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> Rc<Snapshot<Settings>> {
        self.settings.get()
    }

    /// The nodes.
    #[must_use]
    pub fn topology(&self) -> Rc<Snapshot<Topology>> {
        self.topology.get()
    }

    /// Waits until there may be what [`Self::topology`], just asked for, has not brought yet. Stands in line at once, before
    /// anybody else on this worker sees a newer one: to be called without having awaited anything since.
    pub fn wait(&self, until: Until, topology: &Topology) -> impl Future<Output = Option<Told>> + '_ {
        let waiting = waiters::wait(&self.waiters, until, topology);
        // Else another one was published before we stood in line.
        let is_newest = self.topology.is_newest();
        async move { if is_newest { waiting.await } else { None } }
    }

    /// The users in force.
    #[must_use]
    pub fn users(&self) -> Arc<Users> {
        self.shared.users.load_full()
    }

    /// The time since the process started.
    #[must_use]
    pub fn now(&self) -> Duration {
        let now = self.shared.clock.now();
        self.looked.set(now);
        now
    }

    /// The time since the process started when it was last asked for: at most a second ago.
    #[must_use]
    pub fn about_now(&self) -> Duration {
        self.looked.get()
    }

    /// Cancels what the process `pid` of that node runs.
    pub(super) async fn cancel(&self, node: NodeId, pid: u32, key: &[u8]) {
        let settings = self.settings();
        let number = usize::from(node.0);
        if let Some((node, connector)) = settings.nodes.get(number).zip(self.shared.connectors.get(number))
            && let Err(error) =
                crate::server::cancel::cancel(connector, pid, key, settings.connect_timeout).await
        {
            tracing::warn!(node = %node.name, %error, "a cancel request did not get through");
        }
    }

    /// Counts an error of ours.
    pub fn count_error(&self, report: &Report) {
        tracing::debug!(sqlstate = %report.sqlstate, severity = ?report.severity, text = ?report.message, "told a client");
        self.metrics.client_error(&report.sqlstate);
    }

    /// One client less counts for where the next one goes.
    fn count_out(&self) {
        if let Some(door) = self.shared.workers.get(self.number) {
            door.load.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How old idle connections may be.
    #[must_use]
    pub fn age(&self, settings: &Settings) -> Age {
        Age { now: self.about_now(), idle: settings.server_idle_timeout, life: settings.server_lifetime }
    }

    /// A connection goes back to its pool, if it can be used again.
    pub(super) fn give_back(&self, lease: Lease, topology: &Topology) {
        let settings = self.settings();
        let age = self.age(&settings);
        self.pools.borrow_mut().give_back(lease, topology, age);
    }

    /// Publishes what its pools hold.
    pub fn publish_pools(&self) {
        let pools = self.pools.borrow();
        for node in self.topology().nodes.iter().map(|n| n.id) {
            self.metrics.pool(node, pools.idle(node), pools.waiting(node));
        }
    }
}

/// Runs a worker until its door is closed and its last client is gone, and polls the nodes besides if it is given what that
/// takes. What it sends, it sends by the ring, if there is one. To be called on a thread of its own.
pub fn run(
    worker: Worker,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    watch: Option<Watch>,
    ring: Option<Ring>,
) -> std::io::Result<()> {
    worker.shared.timers.keep_this_threads();
    let worker = Rc::new(worker);
    executor::run(ring, async move {
        spawn(keep_house(worker.clone()));
        spawn(answer_bell(worker.clone()));
        spawn(balance(worker.clone()));
        let calls = call_waiters(worker.clone());
        let polls = async {
            match watch {
                Some(watch) => watch.run().await,
                None => pending().await,
            }
        };
        // None of these is a task: a task's turn comes when all that were ready before it have had theirs, and these are looked
        // at every few tasks. What many wait for must not stand in line with them.
        tokio::select! {
            // They share what a turn may do: an answer that has come must not be missed for all that is to be done besides.
            biased;
            () = polls => {}
            () = calls => {}
            () = do_jobs(&worker, &mut jobs) => {}
        }
    })
}

/// Does what it is sent, until nobody can send it anything any more.
async fn do_jobs(worker: &Rc<Worker>, jobs: &mut mpsc::UnboundedReceiver<Job>) {
    while let Some(job) = jobs.recv().await {
        match job {
            Job::Open(opening) => {
                spawn(accept(worker.clone(), opening));
            }
            Job::Client(stream, origin) => {
                admit(worker.clone(), stream, origin);
            }
            Job::Arrival(transfer) => take_in(worker.clone(), *transfer),
            Job::Away(pid, to, moves) => worker.handles.borrow_mut().note_onward(pid, to, moves),
            Job::Forget(pid) => worker.handles.borrow_mut().forget(pid),
            Job::Send(moves) => worker.sends.set(moves),
            Job::Cancel(pid, key, done) => cancel_here_or_there(worker, pid, key, done),
            Job::Vacate(database, _done) => {
                let until = worker.now() + VACATE_FOR;
                worker.pools.borrow_mut().vacate(&database, until);
            }
            Job::Drain => worker.handles.borrow().leave_all(),
        }
        // However many there are, polls and who waits have their turn.
        step().await;
    }
}

/// A client that counts for where the next one goes, however it ends.
pub(super) struct Present(pub(super) Rc<Worker>);

impl Drop for Present {
    fn drop(&mut self) {
        self.0.count_out();
    }
}

/// Passes a cancel request to the worker that it is for, and waits until it has done what it can: who has sent the
/// request waits for us to hang up, and what it sends after that must not be hit.
pub async fn route_cancel(shared: &Shared, pid: u32, key: Vec<u8>) {
    if let Some(door) = shared.workers.get(worker_of(pid)) {
        let (done, over) = oneshot::channel();
        // A worker that is gone has no clients to cancel.
        let _ = door.jobs.send(Job::Cancel(pid, key, done));
        let _ = over.await;
    }
}

/// PostgreSQL waits so long for others to leave a database (`CountOtherDBBackends`).
const VACATE_FOR: Duration = Duration::from_secs(5);

/// Ends all idle connections to a database: somebody is about to drop, rename or copy it, for which nobody else may be
/// connected to it.
pub async fn vacate(shared: &Shared, database: &str) {
    shared.catalogs.release(database);
    for door in shared.workers.iter() {
        let (done, over) = oneshot::channel();
        // A worker that is gone has none.
        let _ = door.jobs.send(Job::Vacate(database.to_owned(), done));
        let _ = over.await;
    }
}

/// Cancels what a client runs, or has the worker do that to which it has gone.
fn cancel_here_or_there(worker: &Rc<Worker>, pid: u32, key: Vec<u8>, done: oneshot::Sender<()>) {
    let (handle, elsewhere) = {
        let handles = worker.handles.borrow();
        (handles.find(pid, &key), handles.elsewhere(pid, worker.number))
    };
    if let Some(handle) = handle {
        return spawn(cancel(worker.clone(), handle, done));
    }
    // A worker that goes on to another one has said so before: this does not go round and round.
    if let Some(door) = elsewhere.and_then(|number| worker.shared.workers.get(number)) {
        let _ = door.jobs.send(Job::Cancel(pid, key, done));
    }
}

async fn cancel(worker: Rc<Worker>, handle: Rc<Handle>, _done: oneshot::Sender<()>) {
    let Some(running) = handle.cancel() else { return };
    worker.cancel(running.node, running.pid, &running.key).await;
    handle.cancel_sent();
}

/// Ends idle connections in time, lets go of buffers, and keeps the gauges.
async fn keep_house(worker: Rc<Worker>) {
    loop {
        let now = worker.now();
        let settings = worker.settings();
        let age = worker.age(&settings);
        worker.pools.borrow_mut().sweep(&worker.topology(), age);
        // Before another role can get the number of one that was just forgotten.
        worker.refusals.borrow_mut().sweep(now, |key| worker.pools.borrow().is_in_use(key));
        worker.buffers.borrow_mut().trim();
        worker.berths.trim();
        executor::trim();
        worker.publish_pools();
        sleep(Duration::from_secs(1)).await;
    }
}

/// Wakes sessions that wait for freshness when there is a topology that may let them go on.
async fn call_waiters(worker: Rc<Worker>) {
    loop {
        worker.polls.published().await;
        loop {
            worker.waiters.borrow_mut().wake(&worker.topology());
            // Those who wait for something else now may have been passed by.
            if worker.topology.is_newest() {
                break;
            }
        }
    }
}

async fn answer_bell(worker: Rc<Worker>) {
    let bell = worker.shared.limits.bell(worker.number);
    loop {
        bell.notified().await;
        worker.pools.borrow_mut().on_bell();
    }
}
