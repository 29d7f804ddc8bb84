//! What workers and the monitor share about polls: their numbers, who waits for them, and how busy nodes are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use tokio::sync::Notify;

use crate::lsn::Ticket;
use crate::topology::NodeId;

/// One node's polls.
#[derive(Debug, Default)]
struct NodePolls {
    /// The number of the last poll that was sent, or is just about to be.
    sent: AtomicU64,
    /// A [`Pause`]: how long the monitor sleeps, and so who has to ring.
    pause: AtomicU8,
    bell: Notify,
}

/// How long the monitor sleeps between two polls of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Pause {
    /// As shortly as ever: nobody has to ring.
    Short,
    /// Longer: whoever waits has to ring.
    Long,
    /// Until something happens: the next unit rings.
    Rest,
}

/// One worker's counts, on cache lines of its own.
#[repr(align(128))]
#[derive(Debug)]
struct Flow {
    units: Box<[AtomicU64]>,
}

impl NodePolls {
    /// Whether the monitor is to be rung for: only one of those who find it asleep does.
    fn wake(&self) -> bool {
        self.pause.swap(Pause::Short as u8, Ordering::SeqCst) != Pause::Short as u8
    }
}

/// The polls of all nodes.
#[derive(Debug)]
pub struct Polls {
    nodes: Box<[NodePolls]>,
    flows: Box<[Flow]>,
    waiting: Box<[Waits]>,
}

/// What one worker's sessions wait for together.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Waits {
    /// How many wait.
    count: AtomicU32,
    /// A topology was published while somebody waited.
    published: Notify,
}

impl Polls {
    /// For as many nodes and workers as given.
    #[must_use]
    pub fn new(nodes: usize, workers: usize) -> Arc<Self> {
        let flow = |_| Flow { units: (0..nodes).map(|_| AtomicU64::new(0)).collect() };
        Arc::new(Self {
            nodes: (0..nodes).map(|_| NodePolls::default()).collect(),
            flows: (0..workers).map(flow).collect(),
            waiting: (0..workers).map(|_| Waits::default()).collect(),
        })
    }

    /// What worker number `worker` works with.
    #[must_use]
    pub fn handle(self: &Arc<Self>, worker: usize) -> PollsHandle {
        PollsHandle { polls: self.clone(), worker }
    }

    fn node(&self, node: NodeId) -> Option<&NodePolls> {
        self.nodes.get(usize::from(node.0))
    }

    /// Numbers a poll. To be called before it is sent: whoever read [`PollsHandle::next`] before has a ticket for
    /// this poll at the latest, and whatever he has seen happened before it was sent.
    pub(super) fn number(&self, node: NodeId) -> Ticket {
        Ticket(self.node(node).map_or(0, |n| n.sent.fetch_add(1, Ordering::SeqCst) + 1))
    }

    /// Whether somebody waits for freshness.
    pub(super) fn is_awaited(&self) -> bool {
        self.waiting.iter().any(|waits| waits.count.load(Ordering::Acquire) > 0)
    }

    /// A topology was published: the workers whose sessions wait are to look at it.
    pub(super) fn announce(&self) {
        for waits in self.waiting.iter().filter(|waits| waits.count.load(Ordering::Acquire) > 0) {
            waits.published.notify_one();
        }
    }

    /// How many units have ended on the node, over all workers.
    pub(super) fn units(&self, node: NodeId) -> u64 {
        let at = usize::from(node.0);
        self.flows.iter().filter_map(|f| f.units.get(at)).map(|n| n.load(Ordering::Relaxed)).sum()
    }

    /// Waits for somebody to ring for the node.
    pub(super) async fn rung(&self, node: NodeId) {
        match self.node(node) {
            Some(n) => n.bell.notified().await,
            None => std::future::pending().await,
        }
    }

    pub(super) fn set_pause(&self, node: NodeId, pause: Pause) {
        if let Some(n) = self.node(node) {
            n.pause.store(pause as u8, Ordering::SeqCst);
        }
    }
}

/// One worker's access to the polls.
#[derive(Clone, Debug)]
pub struct PollsHandle {
    polls: Arc<Polls>,
    worker: usize,
}

impl PollsHandle {
    /// The first poll of the node that is sent after now.
    #[must_use]
    pub fn next(&self, node: NodeId) -> Ticket {
        Ticket(self.polls.node(node).map_or(0, |n| n.sent.load(Ordering::SeqCst)) + 1)
    }

    /// Asks for a poll of the node at once.
    pub fn kick(&self, node: NodeId) {
        if let Some(n) = self.polls.node(node) {
            n.bell.notify_one();
        }
    }

    /// Asks for a poll of the node if none is due for a while.
    pub fn kick_if_resting(&self, node: NodeId) {
        if let Some(n) = self.polls.node(node)
            && n.pause.load(Ordering::SeqCst) == Pause::Rest as u8
            && n.wake()
        {
            n.bell.notify_one();
        }
    }

    /// A unit has ended on the node.
    pub fn flowed(&self, node: NodeId) {
        let flow = self.polls.flows.get(self.worker).and_then(|f| f.units.get(usize::from(node.0)));
        if let Some(units) = flow {
            // Written by this worker's thread alone.
            units.store(units.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    /// Waits for a poll of one node: it is polled at once, and topologies are announced until this is dropped.
    #[must_use]
    pub fn await_one(&self, node: NodeId) -> Waiting {
        let waiting = self.begin_to_wait();
        self.kick(node);
        waiting
    }

    /// Waits for freshness: all nodes are polled at once and often until this is dropped.
    #[must_use]
    pub fn wait(&self) -> Waiting {
        let waiting = self.begin_to_wait();
        for node in &self.polls.nodes {
            if node.pause.load(Ordering::SeqCst) != Pause::Short as u8 && node.wake() {
                node.bell.notify_one();
            }
        }
        waiting
    }

    /// Waits for a topology that was published while somebody on this worker waited.
    pub async fn published(&self) {
        match self.polls.waiting.get(self.worker) {
            Some(waits) => waits.published.notified().await,
            None => std::future::pending().await,
        }
    }

    fn begin_to_wait(&self) -> Waiting {
        if let Some(waits) = self.polls.waiting.get(self.worker) {
            waits.count.fetch_add(1, Ordering::AcqRel);
        }
        Waiting(self.clone())
    }
}

/// Somebody waits for freshness as long as this lives.
#[derive(Debug)]
pub struct Waiting(PollsHandle);

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(waits) = self.0.polls.waiting.get(self.0.worker) {
            waits.count.fetch_sub(1, Ordering::AcqRel);
        }
    }
}
