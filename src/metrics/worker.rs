//! One worker's counters.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::histogram::{Histogram, add};
use crate::route::Why;
use crate::topology::NodeId;

/// How a wait for freshness ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitOutcome {
    /// A replica made it in time.
    Replica,
    /// The primary had to serve the read.
    Primary,
}

/// SQLSTATEs of ours that are counted; all others count as `other`.
pub(super) const SQLSTATES: [&str; 15] = [
    "08000", "08001", "08006", "08P01", "0A000", "22023", "25006", "28000", "28P01", "42704", "53300",
    "53400", "57P01", "57P03", "other",
];

/// One node's counters.
#[derive(Debug, Default)]
pub(super) struct NodeCounters {
    /// By whether it was a read, and by why.
    pub(super) units: [[AtomicU64; Why::ALL.len()]; 2],
    pub(super) healed: AtomicU64,
    pub(super) retaken: AtomicU64,
    /// By whether it had replayed what was asked for.
    pub(super) proofs: [AtomicU64; 2],
    pub(super) idle: AtomicU64,
    pub(super) waiting: AtomicU64,
}

/// Counters that only one worker's thread writes, on cache lines of their own.
#[repr(align(128))]
#[derive(Debug)]
pub struct WorkerMetrics {
    pub(super) nodes: Box<[NodeCounters]>,
    pub(super) errors: [AtomicU64; SQLSTATES.len()],
    pub(super) clients: AtomicU64,
    /// By what binds the session.
    pub(super) pinned: Box<[AtomicU64]>,
    /// In thousandths.
    pub(super) busy: AtomicU64,
    pub(super) moved: AtomicU64,
    pub(super) rebased: AtomicU64,
    pub(super) waits: [AtomicU64; 2],
    pub(super) added_latency: Histogram,
    pub(super) freshness_wait: Histogram,
    pub(super) pool_wait: Histogram,
}

impl WorkerMetrics {
    pub(super) fn new(nodes: usize, pins: usize) -> Self {
        Self {
            nodes: (0..nodes).map(|_| NodeCounters::default()).collect(),
            errors: Default::default(),
            clients: AtomicU64::new(0),
            pinned: (0..pins).map(|_| AtomicU64::new(0)).collect(),
            busy: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            rebased: AtomicU64::new(0),
            waits: Default::default(),
            added_latency: Histogram::default(),
            freshness_wait: Histogram::default(),
            pool_wait: Histogram::default(),
        }
    }

    fn node(&self, node: NodeId) -> Option<&NodeCounters> {
        self.nodes.get(usize::from(node.0))
    }

    /// A unit has ended.
    pub fn unit(&self, node: NodeId, read: bool, why: Why) {
        let counter =
            self.node(node).and_then(|n| n.units.get(usize::from(read))).and_then(|u| u.get(why.index()));
        if let Some(counter) = counter {
            add(counter, 1);
        }
    }

    /// A node refused a unit or broke it off, and it is run again.
    pub fn healed(&self, node: NodeId) {
        if let Some(n) = self.node(node) {
            add(&n.healed, 1);
        }
    }

    /// A connection to a node had ended before anything of a unit or a login was sent on it, and another one is taken.
    pub fn retaken(&self, node: NodeId) {
        if let Some(n) = self.node(node) {
            add(&n.retaken, 1);
        }
    }

    /// A replica was asked in front of a read whether it has replayed what the read must show.
    pub fn proof(&self, node: NodeId, replayed: bool) {
        if let Some(counter) = self.node(node).and_then(|n| n.proofs.get(usize::from(replayed))) {
            add(counter, 1);
        }
    }

    /// How many connections to a node are idle here, and how many clients wait for one.
    pub fn pool(&self, node: NodeId, idle: usize, waiting: usize) {
        if let Some(n) = self.node(node) {
            n.idle.store(idle as u64, Ordering::Relaxed);
            n.waiting.store(waiting as u64, Ordering::Relaxed);
        }
    }

    /// A client is in.
    pub fn client_came(&self) {
        add(&self.clients, 1);
    }

    /// A client is gone.
    pub fn client_left(&self) {
        self.clients.store(self.clients.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
    }

    /// The worker takes so many thousandths of a processor.
    pub fn busy(&self, thousandths: u32) {
        self.busy.store(thousandths.into(), Ordering::Relaxed);
    }

    /// A client has gone to another worker.
    pub fn client_moved(&self) {
        add(&self.moved, 1);
    }

    /// A session was bound to its server by some kinds of state, and is so by others from now on.
    pub fn pinned(&self, was: impl IntoIterator<Item = usize>, is: impl IntoIterator<Item = usize>) {
        for counter in was.into_iter().filter_map(|kind| self.pinned.get(kind)) {
            counter.store(counter.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
        }
        for counter in is.into_iter().filter_map(|kind| self.pinned.get(kind)) {
            add(counter, 1);
        }
    }

    /// Tidegate has sent an error of its own.
    pub fn client_error(&self, sqlstate: &str) {
        let at = SQLSTATES.iter().position(|s| *s == sqlstate).unwrap_or(SQLSTATES.len() - 1);
        if let Some(counter) = self.errors.get(at) {
            add(counter, 1);
        }
    }

    /// A session's position was of an epoch that is over: what it had written may be lost.
    pub fn rebased(&self) {
        add(&self.rebased, 1);
    }

    /// A read has waited for a replica.
    pub fn freshness_wait(&self, waited: Duration, outcome: WaitOutcome) {
        self.freshness_wait.observe(waited);
        if let Some(counter) = self.waits.get(outcome as usize) {
            add(counter, 1);
        }
    }

    /// A client has waited for a server connection.
    pub fn pool_wait(&self, waited: Duration) {
        self.pool_wait.observe(waited);
    }

    /// From a unit's last byte in to its first byte out to the server, waits included.
    pub fn added_latency(&self, latency: Duration) {
        self.added_latency.observe(latency);
    }
}
