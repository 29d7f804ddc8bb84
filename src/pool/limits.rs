//! How many connections each node may have, over all workers, and whose turn it is when there are no more.
//!
//! A permit that comes back while workers wait is not free: it is handed to the one that waits longest. Were it up for
//! whoever comes first, then the worker that gave it up would mostly be the first, too.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::topology::NodeId;

/// The limits of all nodes.
#[derive(Debug)]
pub struct Limits {
    nodes: Vec<NodeLimit>,
    workers: Vec<Arc<Notify>>,
}

#[derive(Debug)]
struct NodeLimit {
    max: AtomicUsize,
    used: AtomicUsize,
    /// The length of `queue`, so that nobody takes the lock to find it empty.
    wanted: AtomicUsize,
    /// Workers that wait, each of them once.
    queue: Mutex<VecDeque<usize>>,
    /// Permits that are on their way back, as their connections end: for as many workers no more need to be ended.
    ending: AtomicUsize,
    shares: Box<[Share]>,
}

/// A worker's part of a node's connections.
#[derive(Debug, Default)]
struct Share {
    held: AtomicUsize,
    /// Those of `held` that were handed to the worker, and that it has not taken yet.
    handed: AtomicUsize,
}

/// The right to one connection to a node; ends with its drop.
#[derive(Debug)]
pub struct Permit {
    limits: Arc<Limits>,
    node: NodeId,
    /// Its number, of which there are 64.
    worker: u16,
    ending: bool,
}

impl Limits {
    /// As many nodes and workers as given, each node with at most `max` connections.
    #[must_use]
    pub fn new(nodes: usize, workers: usize, max: usize) -> Arc<Self> {
        let node = |_| NodeLimit {
            max: AtomicUsize::new(max),
            used: AtomicUsize::new(0),
            wanted: AtomicUsize::new(0),
            queue: Mutex::new(VecDeque::new()),
            ending: AtomicUsize::new(0),
            shares: (0..workers).map(|_| Share::default()).collect(),
        };
        Arc::new(Self {
            nodes: (0..nodes).map(node).collect(),
            workers: (0..workers).map(|_| Arc::new(Notify::new())).collect(),
        })
    }

    /// What wakes a worker when it was handed a permit, or should give up an idle connection.
    #[must_use]
    pub fn bell(&self, worker: usize) -> Arc<Notify> {
        self.workers.get(worker).cloned().unwrap_or_default()
    }

    /// Changes every node's limit; connections beyond it end as they are given back.
    pub fn set_max(&self, max: usize) {
        for node in &self.nodes {
            node.max.store(max, Ordering::SeqCst);
            self.hand_out(node, &mut node.lock());
        }
    }

    /// The limit of each node.
    #[must_use]
    pub fn max(&self, node: NodeId) -> usize {
        self.node(node).map_or(0, |n| n.max.load(Ordering::Relaxed))
    }

    /// The connections in use or idle.
    #[must_use]
    pub fn used(&self, node: NodeId) -> usize {
        self.node(node).map_or(0, |n| n.used.load(Ordering::Relaxed))
    }

    /// Takes a permit for that worker if there is one, and nobody waits for it.
    #[must_use]
    pub fn try_acquire(self: &Arc<Self>, node: NodeId, worker: usize) -> Option<Permit> {
        let limit = self.node(node)?;
        if limit.wanted.load(Ordering::Acquire) > 0 || !limit.add() {
            return None;
        }
        if let Some(share) = limit.shares.get(worker) {
            share.held.fetch_add(1, Ordering::Relaxed);
        }
        Some(self.permit(node, worker))
    }

    /// Takes a permit that was handed to that worker.
    #[must_use]
    pub fn take_handed(self: &Arc<Self>, node: NodeId, worker: usize) -> Option<Permit> {
        let handed = &self.node(node)?.shares.get(worker)?.handed;
        let taken = handed.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |n| n.checked_sub(1));
        taken.ok().map(|_| self.permit(node, worker))
    }

    /// A worker waits for a permit: it will be handed one in its turn. The others are rung for, so that one which has
    /// an idle connection may give it up; if it waits already, only to `remind` them.
    pub fn want(&self, node: NodeId, worker: usize, remind: bool) {
        let Some(limit) = self.node(node) else { return };
        let mut queue = limit.lock();
        if !queue.contains(&worker) {
            queue.push_back(worker);
            limit.count(&queue);
        } else if !remind {
            return;
        }
        // A permit that came back before the worker stood in the queue went to nobody.
        self.hand_out(limit, &mut queue);
        let waits = !queue.is_empty();
        drop(queue);
        if waits {
            self.ring_all_but(worker);
        }
    }

    /// A worker waits no longer.
    pub fn unwant(&self, node: NodeId, worker: usize) {
        let Some(limit) = self.node(node).filter(|l| l.wanted.load(Ordering::Relaxed) > 0) else { return };
        let mut queue = limit.lock();
        queue.retain(|w| *w != worker);
        limit.count(&queue);
    }

    /// How many workers besides this one wait for a permit of that node that is not on its way yet.
    #[must_use]
    pub fn wanted_elsewhere(&self, node: NodeId, worker: usize) -> usize {
        let Some(limit) = self.node(node).filter(|l| l.wanted.load(Ordering::Relaxed) > 0) else { return 0 };
        let others = limit.lock().iter().filter(|w| **w != worker).count();
        others.saturating_sub(limit.ending.load(Ordering::SeqCst))
    }

    /// How many permits of that node the worker has.
    #[must_use]
    pub fn held(&self, node: NodeId, worker: usize) -> usize {
        let share = self.node(node).and_then(|n| n.shares.get(worker));
        share.map_or(0, |s| s.held.load(Ordering::Relaxed))
    }

    /// Whether another worker waits for a permit of that node which holds none, or so few that it would not hold more
    /// than this one if it got one of this one's.
    #[must_use]
    pub fn is_owed(&self, node: NodeId, worker: usize) -> bool {
        let Some(limit) = self.node(node) else { return false };
        let own = self.held(node, worker);
        let poorer = |w: usize| self.held(node, w) < own.saturating_sub(1).max(1);
        limit.lock().iter().any(|w| *w != worker && poorer(*w))
    }

    fn permit(self: &Arc<Self>, node: NodeId, worker: usize) -> Permit {
        let worker = u16::try_from(worker).unwrap_or(u16::MAX);
        Permit { limits: self.clone(), node, worker, ending: false }
    }

    fn node(&self, node: NodeId) -> Option<&NodeLimit> {
        self.nodes.get(usize::from(node.0))
    }

    fn ring_all_but(&self, worker: usize) {
        for (_, bell) in self.workers.iter().enumerate().filter(|(w, _)| *w != worker) {
            bell.notify_one();
        }
    }

    /// Hands out what there is to those who wait.
    fn hand_out(&self, limit: &NodeLimit, queue: &mut VecDeque<usize>) {
        while !queue.is_empty() && limit.add() {
            self.hand_over(limit, queue);
        }
    }

    /// Gives a permit, which stays used, to the worker that waits longest; `false` if none does.
    fn hand_over(&self, limit: &NodeLimit, queue: &mut VecDeque<usize>) -> bool {
        let Some(worker) = queue.pop_front() else { return false };
        limit.count(queue);
        if let Some((share, bell)) = limit.shares.get(worker).zip(self.workers.get(worker)) {
            share.held.fetch_add(1, Ordering::Relaxed);
            share.handed.fetch_add(1, Ordering::AcqRel);
            bell.notify_one();
        }
        true
    }
}

impl NodeLimit {
    fn lock(&self) -> MutexGuard<'_, VecDeque<usize>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the length of the queue. Who gives a permit back looks at it behind having done so, and who waits looks for
    /// permits behind standing in the queue: one of them sees the other.
    fn count(&self, queue: &VecDeque<usize>) {
        self.wanted.store(queue.len(), Ordering::SeqCst);
    }

    /// Counts one more in use, if the limit allows it.
    fn add(&self) -> bool {
        let max = self.max.load(Ordering::Relaxed);
        let more = |used| (used < max).then_some(used + 1);
        self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }
}

impl Permit {
    /// The node that it is for.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Its connection is about to end, and the permit then goes to whoever waits.
    pub(super) fn will_end(&mut self) {
        let Some(limit) = self.limits.node(self.node).filter(|_| !self.ending) else { return };
        self.ending = true;
        limit.ending.fetch_add(1, Ordering::SeqCst);
        if let Some(share) = limit.shares.get(usize::from(self.worker)) {
            share.held.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(limit) = self.limits.node(self.node) else { return };
        if self.ending {
            limit.ending.fetch_sub(1, Ordering::SeqCst);
        } else if let Some(share) = limit.shares.get(usize::from(self.worker)) {
            share.held.fetch_sub(1, Ordering::Relaxed);
        }
        if limit.wanted.load(Ordering::SeqCst) > 0 {
            let mut queue = limit.lock();
            let within = limit.used.load(Ordering::SeqCst) <= limit.max.load(Ordering::Relaxed);
            if within && self.limits.hand_over(limit, &mut queue) {
                return;
            }
        }
        limit.used.fetch_sub(1, Ordering::SeqCst);
        if limit.wanted.load(Ordering::SeqCst) > 0 {
            self.limits.hand_out(limit, &mut limit.lock());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const NODE: NodeId = NodeId(0);

    #[test]
    fn threads_together_never_hold_more_than_the_limit() {
        let limits = Limits::new(1, 4, 3);
        let most = AtomicUsize::new(0);
        let held = AtomicUsize::new(0);
        thread::scope(|scope| {
            for worker in 0..4 {
                let (limits, held, most) = (&limits, &held, &most);
                scope.spawn(move || {
                    for _ in 0..20_000 {
                        if let Some(permit) = limits.try_acquire(NODE, worker) {
                            let now = held.fetch_add(1, Ordering::SeqCst) + 1;
                            most.fetch_max(now, Ordering::SeqCst);
                            held.fetch_sub(1, Ordering::SeqCst);
                            drop(permit);
                        }
                    }
                });
            }
        });
        assert!((1..=3).contains(&most.into_inner()));
        assert_eq!(limits.used(NODE), 0);
    }

    #[test]
    fn a_permit_that_comes_back_goes_to_the_worker_that_waits_longest() {
        let limits = Limits::new(1, 3, 1);
        let permit = limits.try_acquire(NODE, 0).unwrap();
        limits.want(NODE, 2, false);
        limits.want(NODE, 1, false);
        limits.want(NODE, 2, false);
        drop(permit);
        // Whoever gives one up, and comes first, does not get it back.
        assert!(limits.try_acquire(NODE, 0).is_none());
        assert!(limits.take_handed(NODE, 0).is_none() && limits.take_handed(NODE, 1).is_none());
        let permit = limits.take_handed(NODE, 2).unwrap();
        assert!(limits.take_handed(NODE, 2).is_none());
        assert_eq!((limits.used(NODE), limits.held(NODE, 0), limits.held(NODE, 2)), (1, 0, 1));
        drop(permit);
        drop(limits.take_handed(NODE, 1).unwrap());
        assert_eq!((limits.used(NODE), limits.wanted_elsewhere(NODE, 0)), (0, 0));
        assert!(limits.try_acquire(NODE, 0).is_some());
    }

    #[test]
    fn a_worker_that_waits_no_longer_is_passed_over() {
        let limits = Limits::new(1, 3, 1);
        let permit = limits.try_acquire(NODE, 0).unwrap();
        limits.want(NODE, 1, false);
        limits.want(NODE, 2, false);
        limits.unwant(NODE, 1);
        drop(permit);
        assert!(limits.take_handed(NODE, 1).is_none() && limits.take_handed(NODE, 2).is_some());
    }

    #[test]
    fn no_more_connections_are_to_end_than_workers_wait() {
        let limits = Limits::new(1, 3, 2);
        let mut first = limits.try_acquire(NODE, 0).unwrap();
        let _second = limits.try_acquire(NODE, 0).unwrap();
        limits.want(NODE, 1, false);
        assert!(limits.is_owed(NODE, 0));
        assert_eq!(limits.wanted_elsewhere(NODE, 0), 1);
        first.will_end();
        assert_eq!((limits.wanted_elsewhere(NODE, 0), limits.used(NODE)), (0, 2));
        limits.want(NODE, 2, false);
        assert_eq!(limits.wanted_elsewhere(NODE, 0), 1);
        drop(first);
        assert_eq!((limits.wanted_elsewhere(NODE, 0), limits.held(NODE, 1)), (1, 1));
    }

    #[test]
    fn a_raised_limit_serves_those_who_wait_and_a_lowered_one_nobody() {
        let limits = Limits::new(1, 2, 1);
        let first = limits.try_acquire(NODE, 0).unwrap();
        limits.want(NODE, 1, false);
        limits.set_max(2);
        let second = limits.take_handed(NODE, 1).unwrap();
        limits.set_max(1);
        limits.want(NODE, 1, false);
        drop(first);
        assert!(limits.take_handed(NODE, 1).is_none());
        drop(second);
        assert!(limits.take_handed(NODE, 1).is_some());
    }

    /// Each thread waits for its turn whenever there is none left: a permit that went to nobody would leave one waiting
    /// without end.
    #[test]
    fn nobody_who_waits_is_forgotten() {
        let limits = Limits::new(1, 4, 2);
        thread::scope(|scope| {
            for worker in 0..4 {
                let limits = &limits;
                scope.spawn(move || {
                    for _ in 0..20_000 {
                        let permit = limits.try_acquire(NODE, worker).unwrap_or_else(|| {
                            limits.want(NODE, worker, false);
                            loop {
                                match limits.take_handed(NODE, worker) {
                                    Some(permit) => break permit,
                                    None => thread::yield_now(),
                                }
                            }
                        });
                        assert!(limits.used(NODE) <= 2);
                        drop(permit);
                    }
                });
            }
        });
        assert_eq!(limits.used(NODE), 0);
    }
}
