//! What workers and the monitor share about polls: their numbers, who waits for them, and how busy nodes are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering, fence};
use std::time::Duration;

use tokio::sync::Notify;

use crate::lsn::{Lsn, Ticket};
use crate::topology::{NodeId, Role, Topology};

/// One node's polls.
#[derive(Debug, Default)]
struct NodePolls {
    /// The number of the last poll that was sent, or is just about to be.
    sent: AtomicU64,
    /// A [`Pause`]: how long the monitor sleeps, and so who has to ring.
    pause: AtomicU8,
    /// Somebody has asked for a poll, whatever is known.
    kicked: AtomicBool,
    bell: Notify,
}

/// How long the monitor sleeps between two polls of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Pause {
    /// As shortly as ever: nobody has to ring.
    Short,
    /// Until it is its turn among the replicas: whoever waits for this one has to ring.
    Turn,
    /// Longer: whoever waits has to ring.
    Long,
    /// Until something happens: what may have been written next rings.
    Rest,
}

impl Pause {
    fn of(number: u8) -> Self {
        [Self::Short, Self::Turn, Self::Long]
            .into_iter()
            .find(|pause| *pause as u8 == number)
            .unwrap_or(Self::Rest)
    }
}

/// How a poll of a node is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wanted {
    /// By nobody.
    No,
    /// Somebody waits for any replica to be far enough.
    InTurn,
    /// Somebody waits for this node to be polled.
    Now,
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
    wants: Box<[Wants]>,
}

/// Nobody wants it.
const NOTHING: u64 = u64::MAX;

/// What one worker's sessions wait for together. Written by that worker's thread alone.
#[derive(Debug)]
#[repr(align(128))]
struct Wants {
    /// The lowest position that some replica is to reach, or [`NOTHING`].
    replayed: AtomicU64,
    /// By node, the first poll that somebody waits for, or [`NOTHING`].
    told: Box<[AtomicU64]>,
    /// By node, since when it has told how far it is without having been polled, in ns since the process started.
    heard: Box<[AtomicU64]>,
    /// Somebody waits for whatever a poll may bring.
    polled: AtomicBool,
    /// Somebody waits for a node to come, or to become something else.
    changed: AtomicBool,
    /// A topology was published that has something of this.
    published: Notify,
}

impl Wants {
    fn new(nodes: usize) -> Self {
        Self {
            replayed: NOTHING.into(),
            told: (0..nodes).map(|_| NOTHING.into()).collect(),
            heard: (0..nodes).map(|_| 0.into()).collect(),
            polled: false.into(),
            changed: false.into(),
            published: Notify::new(),
        }
    }

    /// How a poll of that node, which plays that role, is wanted.
    fn want(&self, node: NodeId, role: Role) -> Wanted {
        let told = self.told.get(usize::from(node.0));
        if self.polled.load(Ordering::Relaxed)
            || self.changed.load(Ordering::Relaxed)
            || told.is_some_and(|told| told.load(Ordering::Relaxed) != NOTHING)
        {
            Wanted::Now
        } else if role == Role::Replica && self.replayed.load(Ordering::Relaxed) != NOTHING {
            Wanted::InTurn
        } else {
            Wanted::No
        }
    }

    /// Whether somebody may wait for a replica to get further.
    fn want_replay(&self) -> bool {
        self.polled.load(Ordering::Relaxed) || self.replayed.load(Ordering::Relaxed) != NOTHING
    }

    /// Whether the node has told how far it is since then.
    fn have_heard(&self, node: NodeId, since: Duration) -> bool {
        let heard = self.heard.get(usize::from(node.0));
        heard.is_some_and(|heard| Duration::from_nanos(heard.load(Ordering::Relaxed)) >= since)
    }

    /// Whether a poll of that node has brought what somebody waits for.
    fn are_met(&self, node: NodeId, polled: Ticket, reached: Lsn) -> bool {
        let told = self.told.get(usize::from(node.0));
        self.polled.load(Ordering::Relaxed)
            || told.is_some_and(|told| told.load(Ordering::Relaxed) <= polled.0)
            || self.replayed.load(Ordering::Relaxed) <= reached.0
    }
}

impl Polls {
    /// For as many nodes and workers as given.
    #[must_use]
    pub fn new(nodes: usize, workers: usize) -> Arc<Self> {
        let flow = |_| Flow { units: (0..nodes).map(|_| AtomicU64::new(0)).collect() };
        Arc::new(Self {
            nodes: (0..nodes).map(|_| NodePolls::default()).collect(),
            flows: (0..workers).map(flow).collect(),
            wants: (0..workers).map(|_| Wants::new(nodes)).collect(),
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

    /// How polls of that node, which plays that role, are wanted.
    pub(super) fn wanted(&self, node: NodeId, role: Role) -> Wanted {
        // Pairs with the fence of whoever wants something, and then rings.
        fence(Ordering::SeqCst);
        self.wants.iter().map(|wants| wants.want(node, role)).max().unwrap_or(Wanted::No)
    }

    /// Whether somebody may wait for a replica to get further.
    pub(super) fn replays_are_wanted(&self) -> bool {
        fence(Ordering::SeqCst);
        self.wants.iter().any(Wants::want_replay)
    }

    /// Whether all who may wait for a replica to get further have heard from that one since then, without a poll.
    pub(super) fn have_heard(&self, node: NodeId, since: Duration) -> bool {
        self.wants.iter().filter(|wants| wants.want_replay()).all(|wants| wants.have_heard(node, since))
    }

    /// A topology was published, after something happened to that node: the workers whose sessions may have waited for
    /// it are to look at it; all of them if more has changed than how far nodes are.
    pub(super) fn announce(&self, topology: &Topology, node: NodeId, changed: bool) {
        let polled = topology.node(node).map_or(Ticket(0), |n| n.polled);
        let reached = topology.reached();
        // Pairs with the fence of whoever wants something, and then looks whether his topology is still the newest.
        fence(Ordering::SeqCst);
        for wants in self.wants.iter().filter(|wants| changed || wants.are_met(node, polled, reached)) {
            wants.published.notify_one();
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

    /// Whether somebody has asked for a poll, whatever is known; once for each time.
    pub(super) fn take_kick(&self, node: NodeId) -> bool {
        self.node(node).is_some_and(|n| n.kicked.swap(false, Ordering::SeqCst))
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
            n.kicked.store(true, Ordering::SeqCst);
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

    /// A node has told this worker how far it is, as it was asked after `asked_at`.
    pub fn heard(&self, node: NodeId, asked_at: Duration) {
        if let Some(heard) = self.wants().and_then(|wants| wants.heard.get(usize::from(node.0))) {
            // Written by this worker's thread alone.
            let last = heard.load(Ordering::Relaxed);
            set(heard, last.max(u64::try_from(asked_at.as_nanos()).unwrap_or(u64::MAX)));
        }
    }

    /// Waits for a topology that may have something of what was last said to be wanted.
    pub async fn published(&self) {
        match self.wants() {
            Some(wants) => wants.published.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Says what position some replica is to reach, at least: the lowest that somebody on this worker waits for.
    pub fn want_replayed(&self, lsn: Option<Lsn>) {
        if let Some(wants) = self.wants() {
            set(&wants.replayed, lsn.map_or(NOTHING, |lsn| lsn.0));
        }
    }

    /// Says what poll of a node is to come, at least: the first that somebody on this worker waits for.
    pub fn want_told(&self, node: NodeId, ticket: Option<Ticket>) {
        if let Some(told) = self.wants().and_then(|wants| wants.told.get(usize::from(node.0))) {
            set(told, ticket.map_or(NOTHING, |ticket| ticket.0));
        }
    }

    /// Says whether somebody on this worker waits for whatever a poll may bring, and whether somebody does for a node to
    /// come, or to become something else.
    pub fn want_any(&self, polled: bool, changed: bool) {
        if let Some(wants) = self.wants() {
            wants.polled.store(polled, Ordering::Relaxed);
            wants.changed.store(changed, Ordering::Relaxed);
        }
    }

    /// Rings for polls of the nodes of which one is wanted and none is due for a while. To be called after it was said
    /// what is wanted, and before it is asked whether the topology by which it is wanted is still the newest.
    pub fn ring(&self, topology: &Topology) {
        // Whoever polls, and whoever publishes, sees either what is wanted, or to it that we see what he has done.
        fence(Ordering::SeqCst);
        let Some(wants) = self.wants() else { return };
        for (known, node) in topology.nodes.iter().zip(&self.polls.nodes) {
            let unflushed = known.position.is_some_and(|p| p.flushed < p.lsn);
            let rung = match Pause::of(node.pause.load(Ordering::SeqCst)) {
                Pause::Short => false,
                Pause::Turn => wants.want(known.id, known.role) == Wanted::Now,
                // What is waited for may have to be flushed.
                Pause::Long if unflushed && wants.want_replay() => true,
                Pause::Long => wants.want(known.id, known.role) != Wanted::No,
                // The same, though nobody knows of it yet.
                Pause::Rest => wants.want(known.id, known.role) != Wanted::No || wants.want_replay(),
            };
            if rung && node.wake() {
                node.bell.notify_one();
            }
        }
    }

    fn wants(&self) -> Option<&Wants> {
        self.polls.wants.get(self.worker)
    }
}

/// Writes what is not there already: a write takes the line away from who reads it.
fn set(place: &AtomicU64, value: u64) {
    if place.load(Ordering::Relaxed) != value {
        place.store(value, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::{Timeline, WalGeometry};
    use crate::topology::{Observation, Observer, Report};

    const PRIMARY: NodeId = NodeId(0);
    const REPLICA: NodeId = NodeId(1);

    fn topology() -> Topology {
        flushed(100)
    }

    /// The primary, and a replica that is where it is; the primary's WAL is flushed up to there.
    fn flushed(flushed: u64) -> Topology {
        let mut observer = Observer::new(&["p".into(), "r".into()]);
        for node in [PRIMARY, REPLICA] {
            let report = Report {
                in_recovery: node == REPLICA,
                lsn: Lsn(100),
                flushed: Lsn(if node == PRIMARY { flushed } else { 100 }),
                timeline: Timeline(1),
                system: 7,
                geometry: WalGeometry::default(),
            };
            let at = Duration::from_millis(5);
            observer.observe(node, Observation::Polled { ticket: Ticket(5), sent: at, received: at, report });
        }
        observer.topology().clone()
    }

    /// Whether a worker is told.
    fn is_told(polls: &Arc<Polls>, worker: usize) -> bool {
        let handle = polls.handle(worker);
        let mut published = std::pin::pin!(handle.published());
        published.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[test]
    fn a_worker_is_told_of_what_its_sessions_wait_for() {
        let (polls, topology) = (Polls::new(2, 2), topology());
        let announce = |node, changed| {
            polls.announce(&topology, node, changed);
            [is_told(&polls, 0), is_told(&polls, 1)]
        };
        assert_eq!([announce(PRIMARY, false), announce(REPLICA, true)], [[false; 2], [true; 2]]);
        let (one, other) = (polls.handle(0), polls.handle(1));
        one.want_replayed(Some(Lsn(101)));
        other.want_told(PRIMARY, Some(Ticket(6)));
        assert_eq!(announce(PRIMARY, false), [false, false]);
        one.want_replayed(Some(Lsn(100)));
        other.want_told(PRIMARY, Some(Ticket(5)));
        assert_eq!(announce(PRIMARY, false), [true, true]);
        assert_eq!(announce(REPLICA, false), [true, false], "it was another node's poll");
        one.want_replayed(None);
        one.want_any(false, true);
        other.want_any(true, false);
        assert_eq!(announce(REPLICA, false), [false, true]);
    }

    #[test]
    fn polls_are_wanted_of_who_can_tell() {
        let polls = Polls::new(2, 2);
        let wanted = || [polls.wanted(PRIMARY, Role::Primary), polls.wanted(REPLICA, Role::Replica)];
        assert_eq!(wanted(), [Wanted::No, Wanted::No]);
        polls.handle(1).want_replayed(Some(Lsn(1)));
        assert_eq!((wanted(), polls.replays_are_wanted()), ([Wanted::No, Wanted::InTurn], true));
        polls.handle(0).want_told(PRIMARY, Some(Ticket(1)));
        assert_eq!(wanted(), [Wanted::Now, Wanted::InTurn]);
        polls.handle(0).want_told(PRIMARY, None);
        polls.handle(1).want_replayed(None);
        polls.handle(0).want_any(false, true);
        assert_eq!((wanted(), polls.replays_are_wanted()), ([Wanted::Now, Wanted::Now], false));
        polls.handle(0).want_any(true, false);
        assert_eq!((wanted(), polls.replays_are_wanted()), ([Wanted::Now, Wanted::Now], true));
    }

    #[test]
    fn who_waits_has_heard_if_all_have() {
        let (polls, ms) = (Polls::new(2, 2), Duration::from_millis);
        assert!(polls.have_heard(REPLICA, ms(9)), "nobody waits");
        let (one, other) = (polls.handle(0), polls.handle(1));
        one.want_replayed(Some(Lsn(1)));
        assert!(!polls.have_heard(REPLICA, ms(9)));
        one.heard(REPLICA, ms(9));
        assert!(polls.have_heard(REPLICA, ms(9)) && !polls.have_heard(REPLICA, ms(10)));
        assert!(!polls.have_heard(PRIMARY, ms(9)), "it was another node");
        other.want_any(true, false);
        assert!(!polls.have_heard(REPLICA, ms(9)), "each worker hears what it is told itself");
    }

    #[test]
    fn a_kick_is_heard_once() {
        let polls = Polls::new(2, 1);
        polls.handle(0).kick(REPLICA);
        assert!(!polls.take_kick(PRIMARY) && polls.take_kick(REPLICA) && !polls.take_kick(REPLICA));
    }

    #[test]
    fn who_is_at_rest_is_rung_for_if_wanted() {
        let (polls, mut topology) = (Polls::new(2, 1), topology());
        let handle = polls.handle(0);
        let rung = |topology: &Topology, primary, replica| {
            polls.set_pause(PRIMARY, primary);
            polls.set_pause(REPLICA, replica);
            handle.ring(topology);
            [PRIMARY, REPLICA].map(|node| {
                let mut rung = std::pin::pin!(polls.rung(node));
                rung.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
            })
        };
        assert_eq!(rung(&topology, Pause::Rest, Pause::Rest), [false, false]);
        handle.want_replayed(Some(Lsn(1)));
        assert_eq!(rung(&topology, Pause::Long, Pause::Long), [false, true]);
        assert_eq!(rung(&topology, Pause::Rest, Pause::Short), [true, false]);
        assert_eq!(rung(&topology, Pause::Short, Pause::Turn), [false, false]);
        handle.want_told(REPLICA, Some(Ticket(1)));
        assert_eq!(rung(&topology, Pause::Short, Pause::Turn), [false, true]);
        handle.want_told(REPLICA, None);
        handle.want_replayed(None);
        handle.want_told(PRIMARY, Some(Ticket(1)));
        assert_eq!(rung(&topology, Pause::Long, Pause::Long), [true, false]);
        handle.want_told(PRIMARY, None);
        handle.want_replayed(Some(Lsn(100)));
        topology = flushed(99);
        assert_eq!(
            rung(&topology, Pause::Long, Pause::Short),
            [true, false],
            "no replica gets what is not flushed"
        );
    }
}
