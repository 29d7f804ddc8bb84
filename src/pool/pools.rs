//! The idle connections of one worker, and the clients that wait.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::sync::oneshot;

use super::lease::{Lease, Seat};
use super::limits::{Limits, Permit};
use crate::net::spawn;
use crate::net::timers::sleep;
use crate::topology::{NodeId, Topology};

/// Whom a server connection is logged in as.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The role.
    pub user: Arc<str>,
    /// The role's oid, which a renamed role keeps and another one of its name does not have; `None` where it is not
    /// known.
    pub role: Option<u32>,
    /// The database.
    pub database: Arc<str>,
}

/// The number of a role and a database in this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolKey(pub(super) u32);

impl PoolKey {
    /// The number, which no other role or database has while this one is in use.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0.into()
    }
}

/// Somebody is in as that role and database. All who are share what it says of them.
#[derive(Clone, Debug)]
pub struct Member(Rc<Identity>);

impl Deref for Member {
    type Target = Identity;

    fn deref(&self) -> &Identity {
        &self.0
    }
}

struct Waiter {
    key: PoolKey,
    seat: oneshot::Sender<Seat>,
}

/// What makes a worker look at its queue again.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Alarm {
    #[default]
    Off,
    Set,
    Rung,
}

#[derive(Default)]
struct NodePool {
    /// By key; the last one was used last.
    idle: Vec<Vec<Lease>>,
    idle_count: usize,
    waiting: VecDeque<Waiter>,
    alarm: Rc<Cell<Alarm>>,
    /// Since when the longest idle connection was idle when the alarm was set.
    idle_at_alarm: Option<Duration>,
    /// When a connection was last given up for another worker.
    given_up: Duration,
}

/// How long a connection stays with a worker, and how long a worker with connections of its own has clients waiting
/// before it asks for another one's: short enough that nobody waits for long, and so long that making new connections
/// does not become the main work.
const TURN: Duration = Duration::from_millis(20);

/// How often a worker gives up a connection to one that has about as many: it may be that transactions sit on all of
/// those.
const LONG_TURN: Duration = Duration::from_millis(200);

/// How long the server may take to let go of a connection before its place counts as free.
const FAREWELL: Duration = Duration::from_secs(1);

/// The pools of one worker.
pub struct Pools {
    worker: usize,
    limits: Arc<Limits>,
    keys: HashMap<Rc<Identity>, PoolKey, RandomState>,
    /// Numbers that stand for nobody any more.
    spare: Vec<PoolKey>,
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
    Dial(Permit),
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
            keys: HashMap::default(),
            spare: Vec::new(),
            nodes: (0..nodes).map(|_| NodePool::default()).collect(),
            vacated: HashMap::new(),
        }
    }

    /// The number of a role and a database; it stands for them as long as what comes with it lives.
    pub fn key(&mut self, identity: Identity) -> (PoolKey, Member) {
        if let Some((known, key)) = self.keys.get_key_value(&identity) {
            return (*key, Member(known.clone()));
        }
        let next = || PoolKey(u32::try_from(self.keys.len()).unwrap_or(u32::MAX));
        let (key, identity) = (self.spare.pop().unwrap_or_else(next), Rc::new(identity));
        self.keys.insert(identity.clone(), key);
        (key, Member(identity))
    }

    /// Whether that number stands for a role and a database. One that does not may stand for others after the next call of
    /// [`Self::key`].
    #[must_use]
    pub fn is_in_use(&self, key: PoolKey) -> bool {
        !self.spare.contains(&key)
    }

    /// Forgets roles and databases that nobody is in as, and nothing is kept for: strangers may choose their names.
    fn forget(&mut self) {
        let (nodes, spare, vacated) = (&self.nodes, &mut self.spare, &mut self.vacated);
        self.keys.retain(|identity, key| {
            let keeps = |pool: &NodePool| pool.idle.get(key.0 as usize).is_some_and(|idle| !idle.is_empty());
            let used = Rc::strong_count(identity) > 1 || nodes.iter().any(keeps);
            if !used {
                vacated.remove(key);
                spare.push(*key);
            }
            used
        });
    }

    /// Takes an idle connection if there is one, the right to make one if there is that, or else a place at the
    /// end of the queue.
    pub fn take(&mut self, node: NodeId, key: PoolKey, topology: &Topology) -> Option<Step> {
        if let Some(at_hand) = self.take_at_hand(node, key, topology) {
            return Some(at_hand);
        }
        topology.node(node)?;
        let pool = self.nodes.get_mut(usize::from(node.0))?;
        let (seat, wait) = oneshot::channel();
        // Another role's idle connection has to make room.
        if pool.waiting.is_empty()
            && let Some(lease) = pool.pop_any()
        {
            make_room(lease, seat);
            return Some(Step::Wait(wait));
        }
        pool.waiting.push_back(Waiter { key, seat });
        self.claim(node, false);
        Some(Step::Wait(wait))
    }

    /// Takes an idle connection if there is one, or the right to make one if nobody stands in line for that.
    #[inline]
    pub fn take_at_hand(&mut self, node: NodeId, key: PoolKey, topology: &Topology) -> Option<Step> {
        let epoch = topology.node(node)?.server_epoch;
        let pool = self.nodes.get_mut(usize::from(node.0))?;
        while let Some(lease) = pool.pop(key) {
            // A connection of an older server epoch may talk to a server that has forgotten what it replayed.
            if lease.connection.epoch == epoch && lease.connection.is_ready() {
                return Some(Step::Lease(lease));
            }
            lease.connection.close();
        }
        if !pool.waiting.is_empty() {
            return None;
        }
        self.limits.try_acquire(node, self.worker).map(Step::Dial)
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
            if self.waiting(node) > 0 {
                // Another one in its place.
                self.limits.want(node, self.worker, false);
            }
            return end(lease);
        }
        lease.connection.idle_since = age.now;
        let Some(pool) = self.nodes.get_mut(usize::from(node.0)) else { return };
        let wanted = self.limits.wanted_elsewhere(node, self.worker) > 0;
        if wanted && lease.connection.born + TURN <= age.now {
            // Without this, busy clients of one worker would keep all connections among themselves.
            let turn = match self.limits.is_owed(node, self.worker) {
                true if pool.waiting.is_empty() => Duration::ZERO,
                true => TURN,
                false => LONG_TURN,
            };
            if pool.given_up + turn <= age.now {
                pool.given_up = age.now;
                end(lease);
                return self.claim(node, false);
            }
        }
        while let Some(waiter) = pool.waiting.pop_front() {
            if waiter.seat.is_closed() {
                continue;
            }
            if waiter.key != lease.key {
                return make_room(lease, waiter.seat);
            }
            match waiter.seat.send(Seat::Lease(lease)) {
                Err(Seat::Lease(back)) => lease = back,
                _ => return,
            }
        }
        self.limits.unwant(node, self.worker);
        if self.limits.used(node) > self.limits.max(node) {
            return end(lease);
        }
        pool.push(lease);
        if wanted {
            // If it is idle still when a turn is over, it goes.
            self.wake_later(node);
        }
    }

    /// Ends a connection that is of no use any more, and passes its permit on.
    pub fn end(&mut self, lease: Lease) {
        let node = lease.connection.node;
        lease.connection.close();
        self.seat(node, lease.permit);
    }

    /// Gives a permit to whoever waits longest, or back.
    pub fn seat(&mut self, node: NodeId, permit: Permit) {
        let Some(pool) = self.nodes.get_mut(usize::from(node.0)) else { return };
        let mut seat = Seat::Permit(permit);
        while let Some(waiter) = pool.waiting.pop_front() {
            match waiter.seat.send(seat) {
                Ok(()) => return,
                Err(back) => seat = back,
            }
        }
        self.limits.unwant(node, self.worker);
    }

    /// The worker's bell was rung: it was handed a permit, somebody wants an idle connection to end, or it wanted to look
    /// again.
    pub fn on_bell(&mut self) {
        for number in 0..self.nodes.len() {
            let node = NodeId(u16::try_from(number).unwrap_or(u16::MAX));
            while let Some(permit) = self.limits.take_handed(node, self.worker) {
                self.seat(node, permit);
            }
            let Some(pool) = self.nodes.get_mut(number) else { return };
            let rung = pool.alarm.get() == Alarm::Rung;
            if rung {
                pool.alarm.set(Alarm::Off);
            }
            while pool.waiting.front().is_some_and(|w| w.seat.is_closed()) {
                pool.waiting.pop_front();
            }
            if !pool.waiting.is_empty() {
                self.claim(node, rung);
                continue;
            }
            self.limits.unwant(node, self.worker);
            let wanted = self.limits.wanted_elsewhere(node, self.worker);
            // What is idle between two units of a busy client is not to spare.
            let spare = rung && pool.idle_at_alarm.is_some() && pool.idle_at_alarm == pool.idle_since();
            if wanted > 0 && (spare || self.limits.is_owed(node, self.worker)) {
                for lease in std::iter::from_fn(|| pool.pop_any()).take(wanted) {
                    end(lease);
                }
            }
            if wanted > 0 && pool.idle_count > 0 {
                self.wake_later(node);
            }
        }
    }

    /// Clients wait, mostly for a connection that one of their own worker gives back any moment. Asks for one more where
    /// there is none, or when clients wait still as the alarm has rung.
    fn claim(&mut self, node: NodeId, rung: bool) {
        if self.waiting(node) == 0 {
            return;
        }
        if rung || self.limits.held(node, self.worker) == 0 {
            self.limits.want(node, self.worker, rung);
        }
        self.wake_later(node);
    }

    /// Has the worker look at a node again when a turn is over.
    fn wake_later(&mut self, node: NodeId) {
        let Some(pool) = self.nodes.get_mut(usize::from(node.0)) else { return };
        if pool.alarm.get() == Alarm::Off {
            pool.alarm.set(Alarm::Set);
            pool.idle_at_alarm = pool.idle_since();
            let (alarm, bell) = (pool.alarm.clone(), self.limits.bell(self.worker));
            spawn(async move {
                sleep(TURN).await;
                alarm.set(Alarm::Rung);
                bell.notify_one();
            });
        }
    }

    /// Ends idle connections that are too old or of an older server epoch.
    pub fn sweep(&mut self, topology: &Topology, age: Age) {
        for pool in &mut self.nodes {
            let mut gone = 0;
            pool.waiting.retain(|w| !w.seat.is_closed());
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
        self.forget();
    }

    /// How many connections of a node are lent out here or made, and how many clients wait for one.
    #[must_use]
    #[inline]
    pub fn busy(&self, node: NodeId) -> usize {
        self.limits.held(node, self.worker).saturating_sub(self.idle(node)) + self.waiting(node)
    }

    /// Whether a connection of a node is idle here that is logged in like that.
    #[must_use]
    pub fn has_idle(&self, node: NodeId, key: PoolKey) -> bool {
        let pool = self.nodes.get(usize::from(node.0));
        pool.and_then(|pool| pool.idle.get(key.0 as usize)).is_some_and(|idle| !idle.is_empty())
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

/// Ends a connection. The right to it goes to whoever waits for one when the server has let go of it: until then it
/// counts there, too.
fn end(lease: Lease) {
    let Lease { connection, mut permit, .. } = lease;
    permit.will_end();
    spawn(async move {
        connection.end(FAREWELL).await;
        drop(permit);
    });
}

/// Ends a connection so that a client of this worker can have another one in its place.
fn make_room(lease: Lease, seat: oneshot::Sender<Seat>) {
    let Lease { connection, permit, .. } = lease;
    spawn(async move {
        connection.end(FAREWELL).await;
        // If the client waits no longer, the permit goes to whoever does.
        drop(seat.send(Seat::Permit(permit)));
    });
}

impl NodePool {
    fn pop(&mut self, key: PoolKey) -> Option<Lease> {
        let lease = self.idle.get_mut(key.0 as usize)?.pop()?;
        self.idle_count -= 1;
        Some(lease)
    }

    /// Since when the one that has been idle for longest is so.
    fn idle_since(&self) -> Option<Duration> {
        self.idle.iter().filter_map(|idle| idle.first()).map(|lease| lease.connection.idle_since).min()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn of(user: &str) -> Identity {
        Identity { user: user.into(), role: None, database: "d".into() }
    }

    #[test]
    fn names_that_nobody_uses_any_more_are_forgotten() {
        let mut pools = Pools::new(0, 2, Limits::new(2, 1, 10));
        let age = Age { now: Duration::ZERO, idle: Duration::MAX, life: Duration::MAX };
        let (stays, member) = pools.key(of("stays"));
        for round in 0..10 {
            let members: Vec<_> = (0..100).map(|n| pools.key(of(&format!("{round}-{n}")))).collect();
            assert!(members.iter().all(|(key, _)| *key != stays && key.0 <= 100));
            drop(members);
            pools.sweep(&Topology::default(), age);
        }
        assert_eq!((pools.keys.len(), pools.key(of("stays")).0), (1, stays));
        drop(member);
        pools.sweep(&Topology::default(), age);
        assert!(pools.keys.is_empty());
    }
}
