//! The sessions of one worker that wait for freshness: each is woken once, when what it waits for may have come, not at
//! every poll of every node.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::lsn::{Lsn, Ticket};
use crate::monitor::PollsHandle;
use crate::session::Told;
use crate::topology::{Makeup, Node, NodeId, Topology};

/// What a session waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Some replica has replayed up to there.
    Replayed(Lsn),
    /// A node was polled, and then some replica has replayed up to where that node stood, and up to `least`.
    Told {
        /// The node.
        node: NodeId,
        /// The poll.
        ticket: Ticket,
        /// A replica must be there as well.
        least: Lsn,
    },
    /// A node was polled, whatever it has told.
    Asked {
        /// The node.
        node: NodeId,
        /// The poll.
        ticket: Ticket,
    },
    /// Some node was polled.
    Polled,
    /// A node has come, gone, or become something else.
    Changed,
}

/// One who waits.
#[derive(Debug)]
struct Waiter {
    /// `None` once it is woken.
    until: Option<Until>,
    /// What was told of what it waited for.
    told: Option<Told>,
    waker: Waker,
}

/// The sessions of one worker that wait.
#[derive(Debug)]
pub struct Waiters {
    polls: PollsHandle,
    /// By a number of their own.
    waiting: BTreeMap<u64, Waiter>,
    replayed: BTreeSet<(Lsn, u64)>,
    /// Those who wait for a certain poll.
    asked: BTreeSet<(NodeId, Ticket, u64)>,
    polled: BTreeSet<u64>,
    changed: BTreeSet<u64>,
    /// What the nodes were when somebody was last woken.
    makeup: Makeup,
    next: u64,
}

impl Waiters {
    /// Nobody waits.
    #[must_use]
    pub fn new(polls: PollsHandle) -> Self {
        Self {
            polls,
            waiting: BTreeMap::default(),
            replayed: BTreeSet::default(),
            asked: BTreeSet::default(),
            polled: BTreeSet::default(),
            changed: BTreeSet::default(),
            makeup: Makeup::default(),
            next: 0,
        }
    }

    /// Wakes whoever waits for something that this topology may have brought.
    pub fn wake(&mut self, topology: &Topology) {
        if self.makeup.take(topology) {
            self.asked.clear();
            self.replayed.clear();
            self.polled.clear();
            self.changed.clear();
            self.waiting.values_mut().for_each(Waiter::wake);
        }
        let reached = topology.reached();
        for node in &topology.nodes {
            self.tell(node, topology, reached);
            self.say_asked(node.id);
        }
        self.call_up_to(reached);
        while let Some(number) = self.polled.pop_first() {
            self.call(number);
        }
        self.say();
        self.polls.ring(topology);
    }

    /// Wakes whoever waits for no more than that, as some replica has told in front of a read that it is there.
    pub fn wake_up_to(&mut self, lsn: Lsn) {
        if self.call_up_to(lsn) {
            self.say();
        }
    }

    /// Wakes those who wait for some replica to have got there; whether there was one.
    fn call_up_to(&mut self, reached: Lsn) -> bool {
        let mut any = false;
        while self.replayed.first().is_some_and(|(lsn, _)| *lsn <= reached) {
            if let Some((_, number)) = self.replayed.pop_first() {
                self.call(number);
                any = true;
            }
        }
        any
    }

    /// Polls of `node` that were waited for are there. Who needs to see more than any replica has goes on waiting for that,
    /// without having been woken.
    fn tell(&mut self, node: &Node, topology: &Topology, reached: Lsn) {
        let first = (node.id, Ticket(0), 0);
        let last = (node.id, node.polled, u64::MAX);
        while let Some(place) = self.asked.range(first..=last).next().copied() {
            self.asked.remove(&place);
            let (.., number) = place;
            let Some(waiter) = self.waiting.get_mut(&number) else { continue };
            if let Some(Until::Told { least, .. }) = waiter.until {
                waiter.told = Told::by(node, topology);
                let needed = waiter.told.map(|told| told.lsn().max(least)).filter(|needed| *needed > reached);
                if let Some(needed) = needed {
                    waiter.until = Some(Until::Replayed(needed));
                    self.replayed.insert((needed, number));
                    continue;
                }
            }
            waiter.wake();
        }
    }

    /// Wakes one who has lost its place.
    fn call(&mut self, number: u64) {
        if let Some(waiter) = self.waiting.get_mut(&number) {
            waiter.wake();
        }
    }

    fn put(&mut self, until: Until) -> u64 {
        self.next += 1;
        let number = self.next;
        match until {
            Until::Replayed(lsn) => self.replayed.insert((lsn, number)),
            Until::Told { node, ticket, .. } | Until::Asked { node, ticket } => {
                self.asked.insert((node, ticket, number))
            }
            Until::Polled => self.polled.insert(number),
            Until::Changed => self.changed.insert(number),
        };
        let waiter = Waiter { until: Some(until), told: None, waker: Waker::noop().clone() };
        self.waiting.insert(number, waiter);
        self.say_of(until);
        number
    }

    /// Takes one out of its place, if it has not lost it yet.
    fn remove(&mut self, number: u64) {
        let Some(until) = self.waiting.remove(&number).and_then(|waiter| waiter.until) else { return };
        match until {
            Until::Replayed(lsn) => self.replayed.remove(&(lsn, number)),
            Until::Told { node, ticket, .. } | Until::Asked { node, ticket } => {
                self.asked.remove(&(node, ticket, number))
            }
            Until::Polled => self.polled.remove(&number),
            Until::Changed => self.changed.remove(&number),
        };
        self.say_of(until);
    }

    /// Tells the monitor what is wanted, now that it may be something else by one who waits for that.
    fn say_of(&self, until: Until) {
        match until {
            Until::Told { node, .. } | Until::Asked { node, .. } => self.say_asked(node),
            _ => self.say(),
        }
    }

    fn say(&self) {
        self.polls.want_replayed(self.replayed.first().map(|(lsn, _)| *lsn));
        self.polls.want_any(!self.polled.is_empty(), !self.changed.is_empty());
    }

    fn say_asked(&self, node: NodeId) {
        let first = self.asked.range((node, Ticket(0), 0)..).next();
        self.polls.want_told(node, first.filter(|(id, ..)| *id == node).map(|(_, ticket, _)| *ticket));
    }
}

impl Waiter {
    fn wake(&mut self) {
        self.until = None;
        self.waker.wake_by_ref();
    }
}

/// A place among those who wait. Done when woken, with what was told meanwhile; left when dropped.
#[derive(Debug)]
pub struct Waiting<'a>(&'a RefCell<Waiters>, u64);

impl Future for Waiting<'_> {
    type Output = Option<Told>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.0.borrow_mut().waiting.get_mut(&self.1) {
            Some(Waiter { until: Some(_), waker, .. }) => {
                waker.clone_from(cx.waker());
                Poll::Pending
            }
            woken => Poll::Ready(woken.and_then(|waiter| waiter.told)),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.borrow_mut().remove(self.1);
    }
}

/// Waits for what `topology` does not bring yet, and has what may bring it polled. It is in its place before it is polled
/// for the first time, but what was published since that topology has passed it by: whoever waits must look whether
/// that is still the newest.
pub fn wait<'a>(waiters: &'a RefCell<Waiters>, until: Until, topology: &Topology) -> Waiting<'a> {
    let mut all = waiters.borrow_mut();
    let number = all.put(until);
    all.polls.ring(topology);
    drop(all);
    Waiting(waiters, number)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::{Context, Wake};
    use std::time::Duration;

    use super::*;
    use crate::lsn::{Ticket, Timeline, WalGeometry};
    use crate::monitor::Polls;
    use crate::topology::{Observation, Observer, Report};

    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Polls a primary and two replicas, the second of which is at `lsn`.
    fn observe(observer: &mut Observer, ticket: u64, lsn: u64) {
        for node in 0..3 {
            let at = if node == 2 { lsn } else { 100 };
            let report = Report {
                in_recovery: node > 0,
                lsn: Lsn(at),
                flushed: Lsn(at),
                timeline: Timeline(1),
                system: 7,
                geometry: WalGeometry::default(),
            };
            let sent = Duration::from_millis(ticket);
            let ticket = Ticket(ticket);
            observer.observe(NodeId(node), Observation::Polled { ticket, sent, received: sent, report });
        }
    }

    #[test]
    fn each_is_woken_when_its_turn_has_come_and_no_sooner() {
        let mut observer = Observer::new(&["a".into(), "b".into(), "c".into()]);
        observe(&mut observer, 1, 100);
        let waiters = RefCell::new(Waiters::new(Polls::new(3, 1).handle(0)));
        waiters.borrow_mut().wake(observer.topology());
        let told = |ticket, least| Until::Told { node: NodeId(0), ticket: Ticket(ticket), least: Lsn(least) };
        let what = [
            Until::Replayed(Lsn(150)),
            Until::Replayed(Lsn(200)),
            Until::Polled,
            Until::Changed,
            told(2, 0),
            told(2, 150),
            told(3, 0),
            told(9, 0),
            Until::Asked { node: NodeId(2), ticket: Ticket(3) },
        ];
        let woken: Vec<Arc<Woken>> = what.iter().map(|_| Arc::default()).collect();
        let mut waits: Vec<_> =
            what.iter().map(|until| wait(&waiters, *until, observer.topology())).collect();
        let mut told_at = |at: usize| {
            let waker = Waker::from(woken[at].clone());
            Pin::new(&mut waits[at]).poll(&mut Context::from_waker(&waker))
        };
        let mut poll = |at: usize| told_at(at).is_ready();
        let all = 0..what.len();
        assert!(!all.clone().any(&mut poll) && !all.clone().any(&mut poll), "nobody is woken by being asked");
        let mut look = |ticket, lsn| {
            observe(&mut observer, ticket, lsn);
            waiters.borrow_mut().wake(observer.topology());
            let counts: Vec<_> = woken.iter().map(|w| w.0.load(Ordering::Relaxed)).collect();
            let ready: Vec<_> = all.clone().map(|at| u32::from(poll(at))).collect();
            assert_eq!(counts, ready);
            counts
        };
        // The primary is at 100, where a replica is, too.
        assert_eq!(look(2, 149), [0, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(look(3, 150), [1, 0, 1, 0, 1, 1, 1, 0, 1]);
        observer.observe(NodeId(1), Observation::Lost);
        waiters.borrow_mut().wake(observer.topology());
        assert!(all.clone().all(&mut poll), "a node is gone");
        let mut lsn = |at| match told_at(at) {
            Poll::Ready(told) => told.map(|told| told.lsn()),
            Poll::Pending => None,
        };
        assert_eq!([lsn(0), lsn(4), lsn(5), lsn(7)], [None, Some(Lsn(100)), Some(Lsn(100)), None]);
        drop(waits);
        assert_empty(&waiters.into_inner());
    }

    fn assert_empty(waiters: &Waiters) {
        assert!(waiters.replayed.is_empty() && waiters.polled.is_empty() && waiters.changed.is_empty());
        assert!(waiters.waiting.is_empty() && waiters.asked.is_empty());
    }

    #[test]
    fn what_a_replica_tells_in_front_of_a_read_wakes_who_waits_for_it() {
        let waiters = RefCell::new(Waiters::new(Polls::new(3, 1).handle(0)));
        let until = [Until::Replayed(Lsn(150)), Until::Replayed(Lsn(200)), Until::Polled];
        let mut waits = until.map(|until| wait(&waiters, until, &Topology::default()));
        let mut ready = |lsn| {
            waiters.borrow_mut().wake_up_to(Lsn(lsn));
            waits
                .each_mut()
                .map(|wait| Pin::new(wait).poll(&mut Context::from_waker(Waker::noop())).is_ready())
        };
        assert_eq!(ready(149), [false; 3]);
        assert_eq!(ready(150), [true, false, false]);
        assert_eq!(ready(900), [true, true, false]);
        drop(waits);
        assert_empty(&waiters.into_inner());
    }

    #[test]
    fn who_gives_up_leaves_no_trace() {
        let waiters = RefCell::new(Waiters::new(Polls::new(3, 1).handle(0)));
        let topology = Topology::default();
        let told = Until::Told { node: NodeId(1), ticket: Ticket(7), least: Lsn(1) };
        let asked = Until::Asked { node: NodeId(1), ticket: Ticket(7) };
        for until in [Until::Replayed(Lsn(1)), told, asked, Until::Polled, Until::Changed] {
            let mut waiting = wait(&waiters, until, &topology);
            assert!(Pin::new(&mut waiting).poll(&mut Context::from_waker(Waker::noop())).is_pending());
            drop(waiting);
        }
        assert_empty(&waiters.into_inner());
    }
}
