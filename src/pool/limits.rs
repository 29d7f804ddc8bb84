//! How many connections each node may have, over all workers.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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
    queue: Mutex<VecDeque<usize>>,
}

/// The right to one connection to a node; ends with its drop.
#[derive(Debug)]
pub struct Permit {
    limits: Arc<Limits>,
    node: NodeId,
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
        };
        Arc::new(Self {
            nodes: (0..nodes).map(node).collect(),
            workers: (0..workers).map(|_| Arc::new(Notify::new())).collect(),
        })
    }

    /// What wakes a worker when it may get a permit, or should give up an idle connection.
    #[must_use]
    pub fn bell(&self, worker: usize) -> Arc<Notify> {
        self.workers.get(worker).cloned().unwrap_or_default()
    }

    /// Changes every node's limit; connections beyond it end as they are given back.
    pub fn set_max(&self, max: usize) {
        for node in &self.nodes {
            node.max.store(max, Ordering::Relaxed);
        }
        self.ring_all();
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

    /// Takes a permit if there is one.
    #[must_use]
    pub fn try_acquire(self: &Arc<Self>, node: NodeId) -> Option<Permit> {
        let limit = self.node(node)?;
        let max = limit.max.load(Ordering::Relaxed);
        limit
            .used
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |used| (used < max).then_some(used + 1))
            .ok()
            .map(|_| Permit { limits: self.clone(), node })
    }

    /// A worker waits for a permit: it is rung for when one is given back, in its turn. All workers are rung
    /// for now, so that one which has an idle connection may give it up.
    pub fn want(&self, node: NodeId, worker: usize) {
        self.want_quietly(node, worker);
        self.ring_all();
    }

    /// Like [`Self::want`], for a worker that was just rung for and got nothing.
    pub fn want_quietly(&self, node: NodeId, worker: usize) {
        let Some(limit) = self.node(node) else { return };
        let mut queue = limit.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if !queue.contains(&worker) {
            queue.push_back(worker);
            limit.wanted.store(queue.len(), Ordering::Release);
        }
        drop(queue);
        // A permit that came back before the worker stood in the queue rang for nobody.
        if limit.used.load(Ordering::Acquire) < limit.max.load(Ordering::Relaxed) {
            self.ring_next(limit);
        }
    }

    /// Rings for the next worker in line if there is something to be had: for one that was rung for and does not
    /// need it.
    pub fn pass_on(&self, node: NodeId) {
        if let Some(limit) = self.node(node)
            && limit.wanted.load(Ordering::Acquire) > 0
            && limit.used.load(Ordering::Acquire) < limit.max.load(Ordering::Relaxed)
        {
            self.ring_next(limit);
        }
    }

    /// Whether some worker waits for a permit of that node.
    #[must_use]
    pub fn is_wanted(&self, node: NodeId) -> bool {
        self.node(node).is_some_and(|n| n.wanted.load(Ordering::Relaxed) > 0)
    }

    /// Whether another worker than this one waits for a permit of that node.
    #[must_use]
    pub fn is_wanted_elsewhere(&self, node: NodeId, worker: usize) -> bool {
        let Some(limit) = self.node(node).filter(|l| l.wanted.load(Ordering::Relaxed) > 0) else {
            return false;
        };
        let queue = limit.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.iter().any(|w| *w != worker)
    }

    fn node(&self, node: NodeId) -> Option<&NodeLimit> {
        self.nodes.get(usize::from(node.0))
    }

    fn ring_all(&self) {
        for bell in &self.workers {
            bell.notify_one();
        }
    }

    fn ring_next(&self, limit: &NodeLimit) {
        let mut queue = limit.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let next = queue.pop_front();
        limit.wanted.store(queue.len(), Ordering::Release);
        drop(queue);
        if let Some(bell) = next.and_then(|worker| self.workers.get(worker)) {
            bell.notify_one();
        }
    }
}

impl Permit {
    /// The node that it is for.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(limit) = self.limits.node(self.node) else { return };
        limit.used.fetch_sub(1, Ordering::AcqRel);
        if limit.wanted.load(Ordering::Acquire) > 0 {
            self.limits.ring_next(limit);
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
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if let Some(permit) = limits.try_acquire(NODE) {
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

    #[tokio::test]
    async fn workers_are_rung_for_in_the_order_in_which_they_asked() {
        let limits = Limits::new(1, 3, 1);
        let permit = limits.try_acquire(NODE).unwrap();
        assert!(limits.try_acquire(NODE).is_none());
        limits.want(NODE, 2);
        limits.want(NODE, 1);
        limits.want(NODE, 2);
        for worker in 0..3 {
            limits.bell(worker).notified().await;
        }
        drop(permit);
        limits.bell(2).notified().await;
        assert!(limits.is_wanted(NODE));
        drop(limits.try_acquire(NODE).unwrap());
        limits.bell(1).notified().await;
        assert!(!limits.is_wanted(NODE));
    }
}
