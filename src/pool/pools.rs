//! The idle connections of one worker, and the clients that wait.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::lease::{Lease, Seat};
use super::limits::Limits;
use crate::topology::{NodeId, Topology};

/// Whom a server connection is logged in as.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The role.
    pub user: Rc<str>,
    /// The role's oid, which a renamed role keeps and another one of its name does not have; `None` where it is not
    /// known.
    pub role: Option<u32>,
    /// The database.
    pub database: Rc<str>,
}

/// The number of a role and a database in this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolKey(u32);

struct Waiter {
    key: PoolKey,
    seat: oneshot::Sender<Seat>,
}

#[derive(Default)]
struct NodePool {
    /// By key; the last one was used last.
    idle: Vec<Vec<Lease>>,
    idle_count: usize,
    waiting: VecDeque<Waiter>,
    /// When a connection was last given up for another worker.
    given_up: Duration,
}

/// How often a worker whose own clients wait gives up a connection for another worker's: often enough that nobody
/// waits for long, and seldom enough that making new connections does not become the main work.
const GIVE_UP_EVERY: Duration = Duration::from_millis(20);

/// The pools of one worker.
pub struct Pools {
    worker: usize,
    limits: Arc<Limits>,
    keys: HashMap<Identity, PoolKey>,
    nodes: Vec<NodePool>,
    /// Of these nothing is kept until then.
    vacated: HashMap<PoolKey, Duration>,
}

/// How to get a connection.
#[derive(Debug)]
pub enum Step {
    /// Here it is.
    Lease(Lease),
    /// Make one, with this right to it.
    Dial(super::limits::Permit),
    /// Wait: what comes is a [`Seat`].
    Wait(oneshot::Receiver<Seat>),
}

/// Which idle connections are too old.
#[derive(Clone, Copy, Debug)]
pub struct Age {
    /// The time since the process started.
    pub now: Duration,
    /// An idle connection ends after this long.
    pub idle: Duration,
    /// A connection ends after this long.
    pub life: Duration,
}

impl Pools {
    /// The pools of worker number `worker`.
    #[must_use]
    pub fn new(worker: usize, nodes: usize, limits: Arc<Limits>) -> Self {
        Self {
            worker,
            limits,
            keys: HashMap::new(),
            nodes: (0..nodes).map(|_| NodePool::default()).collect(),
            vacated: HashMap::new(),
        }
    }

    /// The number of a role and a database.
    pub fn key(&mut self, identity: &Identity) -> PoolKey {
        let next = PoolKey(u32::try_from(self.keys.len()).unwrap_or(u32::MAX));
        *self.keys.entry(identity.clone()).or_insert(next)
    }

    /// Takes an idle connection if there is one, the right to make one if there is that, or else a place at the
    /// end of the queue.
    pub fn take(&mut self, node: NodeId, key: PoolKey, topology: &Topology) -> Option<Step> {
        let epoch = topology.node(node)?.server_epoch;
        let pool = self.nodes.get_mut(usize::from(node.0))?;
        while let Some(lease) = pool.pop(key) {
            // A connection of an older server epoch may talk to a server that has forgotten what it replayed.
            if lease.connection.epoch == epoch && lease.connection.is_ready() {
                return Some(Step::Lease(lease));
            }
            lease.connection.close();
        }
        if pool.waiting.is_empty() {
            if let Some(permit) = self.limits.try_acquire(node) {
                return Some(Step::Dial(permit));
            }
            // Another role's idle connection has to make room.
            if let Some(lease) = pool.pop_any() {
                lease.connection.close();
                return Some(Step::Dial(lease.permit));
            }
        }
        let (seat, wait) = oneshot::channel();
        pool.waiting.push_back(Waiter { key, seat });
        self.limits.want(node, self.worker);
        Some(Step::Wait(wait))
    }

    /// Takes a connection back: for whoever waits longest, or to keep. One that is not clean, too old or
    /// of an older server epoch is closed.
    pub fn give_back(&mut self, mut lease: Lease, topology: &Topology, age: Age) {
        let node = lease.connection.node;
        let current = topology.node(node).is_some_and(|n| n.server_epoch == lease.connection.epoch);
        // One that is kept is looked at when it is taken.
        let fit =
            if self.waiting(node) > 0 { lease.connection.is_ready() } else { lease.connection.is_clean() };
        let vacated = self.vacated.get(&lease.key).is_some_and(|until| age.now < *until);
        if !current || !fit || vacated || lease.connection.born + age.life < age.now {
            let Lease { connection, permit, .. } = lease;
            connection.close();
            self.seat(node, permit);
            return;
        }
        lease.connection.idle_since = age.now;
        let Some(pool) = self.nodes.get_mut(usize::from(node.0)) else { return };
        if pool.given_up + GIVE_UP_EVERY <= age.now && self.limits.is_wanted_elsewhere(node, self.worker) {
            // Without this, busy clients of one worker would keep all connections among themselves.
            pool.given_up = age.now;
            return lease.connection.close();
        }
        while let Some(waiter) = pool.waiting.pop_front() {
            if waiter.seat.is_closed() {
                continue;
            }
            let seat = if waiter.key == lease.key {
                Seat::Lease(lease)
            } else {
                lease.connection.close();
                Seat::Permit(lease.permit)
            };
            match waiter.seat.send(seat) {
                Ok(()) => return,
                Err(Seat::Lease(back)) => lease = back,
                Err(Seat::Permit(permit)) => return self.seat(node, permit),
            }
        }
        if self.limits.is_wanted(node) || self.limits.used(node) > self.limits.max(node) {
            lease.connection.close();
        } else {
            pool.push(lease);
        }
    }

    /// Gives a permit to whoever waits longest, or back.
    pub fn seat(&mut self, node: NodeId, permit: super::limits::Permit) {
        let Some(pool) = self.nodes.get_mut(usize::from(node.0)) else { return };
        let mut seat = Seat::Permit(permit);
        while let Some(waiter) = pool.waiting.pop_front() {
            match waiter.seat.send(seat) {
                Ok(()) => return,
                Err(back) => seat = back,
            }
        }
    }

    /// The worker's bell was rung: somewhere a permit came back, or somebody wants an idle connection to end.
    pub fn on_bell(&mut self) {
        for number in 0..self.nodes.len() {
            let node = NodeId(u16::try_from(number).unwrap_or(u16::MAX));
            let Some(pool) = self.nodes.get_mut(number) else { return };
            pool.waiting.retain(|w| !w.seat.is_closed());
            if pool.waiting.is_empty() {
                if self.limits.is_wanted(node)
                    && let Some(lease) = pool.pop_any()
                {
                    lease.connection.close();
                }
                self.limits.pass_on(node);
                continue;
            }
            while self.nodes.get(number).is_some_and(|p| !p.waiting.is_empty()) {
                match self.limits.try_acquire(node) {
                    Some(permit) => self.seat(node, permit),
                    None => {
                        self.limits.want_quietly(node, self.worker);
                        break;
                    }
                }
            }
        }
    }

    /// Ends idle connections that are too old or of an older server epoch.
    pub fn sweep(&mut self, topology: &Topology, age: Age) {
        for pool in &mut self.nodes {
            let mut gone = 0;
            for idle in &mut pool.idle {
                idle.retain_mut(|lease| {
                    let c = &lease.connection;
                    let current = topology.node(c.node).is_some_and(|n| n.server_epoch == c.epoch);
                    let keep = current
                        && c.is_ready()
                        && c.idle_since + age.idle >= age.now
                        && c.born + age.life >= age.now;
                    gone += usize::from(!keep);
                    keep
                });
            }
            pool.idle_count -= gone;
        }
    }

    /// How many connections of a node are idle here.
    #[must_use]
    pub fn idle(&self, node: NodeId) -> usize {
        self.nodes.get(usize::from(node.0)).map_or(0, |p| p.idle_count)
    }

    /// How many clients wait for a node here.
    #[must_use]
    pub fn waiting(&self, node: NodeId) -> usize {
        self.nodes.get(usize::from(node.0)).map_or(0, |p| p.waiting.len())
    }

    /// Ends every idle connection to a database, and until then those that come back: somebody wants it alone.
    pub fn vacate(&mut self, database: &str, until: Duration) {
        let keys = self.keys.iter().filter(|(owner, _)| *owner.database == *database);
        let keys: Vec<_> = keys.map(|(_, key)| *key).collect();
        self.vacated.extend(keys.iter().map(|key| (*key, until)));
        for pool in &mut self.nodes {
            for key in &keys {
                while let Some(lease) = pool.pop(*key) {
                    lease.connection.close();
                }
            }
        }
    }
}

impl NodePool {
    fn pop(&mut self, key: PoolKey) -> Option<Lease> {
        let lease = self.idle.get_mut(key.0 as usize)?.pop()?;
        self.idle_count -= 1;
        Some(lease)
    }

    /// The one that has been idle for longest.
    fn pop_any(&mut self) -> Option<Lease> {
        let oldest = self
            .idle
            .iter_mut()
            .filter(|idle| !idle.is_empty())
            .min_by_key(|idle| idle.first().map(|lease| lease.connection.idle_since))?;
        self.idle_count -= 1;
        Some(oldest.remove(0))
    }

    fn push(&mut self, lease: Lease) {
        let at = lease.key.0 as usize;
        if self.idle.len() <= at {
            self.idle.resize_with(at + 1, Vec::new);
        }
        if let Some(idle) = self.idle.get_mut(at) {
            idle.push(lease);
            self.idle_count += 1;
        }
    }
}
