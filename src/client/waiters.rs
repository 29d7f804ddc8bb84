//! The sessions of one worker that wait for freshness: each is woken when what it waits for may have come, not at every
//! poll of every node.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::{Poll, Waker};

use crate::lsn::{Epoch, Lsn};
use crate::topology::{NodeId, Role, Topology};

/// What a session waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Some replica has replayed up to there.
    Replayed(Lsn),
    /// Some node has been polled.
    Polled,
    /// A node has come, gone, or become something else.
    Changed,
}

/// The place of one who waits.
type Place = (Until, u64);

/// The sessions of one worker that wait.
#[derive(Debug, Default)]
pub struct Waiters {
    replayed: BTreeMap<(Lsn, u64), Waker>,
    polled: BTreeMap<u64, Waker>,
    changed: BTreeMap<u64, Waker>,
    /// What the nodes were when somebody was last woken.
    known: Known,
    next: u64,
}

/// What makes a topology another one, apart from how far its nodes are.
#[derive(Debug, Default, PartialEq, Eq)]
struct Known {
    epoch: Epoch,
    primary: Option<NodeId>,
    nodes: Vec<(Role, bool, u32)>,
}

impl Known {
    /// Takes in a topology; whether it is another one.
    fn take(&mut self, topology: &Topology) -> bool {
        let nodes = || topology.nodes.iter().map(|n| (n.role, n.up, n.server_epoch));
        let same = self.epoch == topology.epoch
            && self.primary == topology.primary
            && self.nodes.iter().copied().eq(nodes());
        if !same {
            (self.epoch, self.primary) = (topology.epoch, topology.primary);
            self.nodes.clear();
            self.nodes.extend(nodes());
        }
        !same
    }
}

/// How far the replica is that is ahead of the others.
#[must_use]
pub fn reached(topology: &Topology) -> Lsn {
    let positions = topology.replicas().filter(|n| n.up).filter_map(|n| n.position);
    positions.map(|position| position.lsn).max().unwrap_or_default()
}

impl Waiters {
    /// Wakes whoever waits for something that this topology may have brought.
    pub fn wake(&mut self, topology: &Topology) {
        let reached = reached(topology);
        let behind = self.replayed.split_off(&(Lsn(reached.0.saturating_add(1)), 0));
        let mut woken = std::mem::replace(&mut self.replayed, behind);
        if self.known.take(topology) {
            woken.append(&mut self.replayed);
            std::mem::take(&mut self.changed).into_values().for_each(Waker::wake);
        }
        woken.into_values().for_each(Waker::wake);
        std::mem::take(&mut self.polled).into_values().for_each(Waker::wake);
    }

    /// Puts somebody in place, or its new waker; whether it was there.
    fn put(&mut self, (until, number): Place, waker: &Waker) -> bool {
        let old = match until {
            Until::Replayed(lsn) => self.replayed.insert((lsn, number), waker.clone()),
            Until::Polled => self.polled.insert(number, waker.clone()),
            Until::Changed => self.changed.insert(number, waker.clone()),
        };
        old.is_some()
    }

    fn remove(&mut self, (until, number): Place) -> Option<Waker> {
        match until {
            Until::Replayed(lsn) => self.replayed.remove(&(lsn, number)),
            Until::Polled => self.polled.remove(&number),
            Until::Changed => self.changed.remove(&number),
        }
    }
}

/// Leaves its place when it is dropped.
struct Waiting<'a>(&'a RefCell<Waiters>, Place);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.borrow_mut().remove(self.1);
    }
}

/// Waits. Whoever has found by a topology that there is something to wait for, and calls this before it awaits anything
/// else, misses nothing that is published later: it is in its place before the future is polled for the first time.
pub fn wait(waiters: &RefCell<Waiters>, until: Until) -> impl Future<Output = ()> + '_ {
    let place = {
        let mut waiters = waiters.borrow_mut();
        waiters.next += 1;
        let place = (until, waiters.next);
        waiters.put(place, Waker::noop());
        place
    };
    let waiting = Waiting(waiters, place);
    poll_fn(move |cx| {
        let Waiting(waiters, place) = &waiting;
        let mut waiters = waiters.borrow_mut();
        // Whoever is woken has lost its place.
        if waiters.put(*place, cx.waker()) {
            return Poll::Pending;
        }
        waiters.remove(*place);
        Poll::Ready(())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::{Context, Wake};
    use std::time::Duration;

    use super::*;
    use crate::lsn::{Ticket, Timeline, WalGeometry};
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
        let waiters = RefCell::new(Waiters::default());
        waiters.borrow_mut().wake(observer.topology());
        let what = [Until::Replayed(Lsn(150)), Until::Replayed(Lsn(200)), Until::Polled, Until::Changed];
        let woken: Vec<Arc<Woken>> = what.iter().map(|_| Arc::default()).collect();
        let mut waits: Vec<_> = what.iter().map(|until| Box::pin(wait(&waiters, *until))).collect();
        let mut poll = |at: usize| {
            let waker = Waker::from(woken[at].clone());
            waits[at].as_mut().poll(&mut Context::from_waker(&waker)).is_ready()
        };
        assert!((0..4).all(|at| !poll(at)) && (0..4).all(|at| !poll(at)), "nobody is woken by being asked");
        let counts = || woken.iter().map(|w| w.0.load(Ordering::Relaxed)).collect::<Vec<_>>();
        observe(&mut observer, 2, 149);
        waiters.borrow_mut().wake(observer.topology());
        assert_eq!((counts(), poll(2)), (vec![0, 0, 1, 0], true));
        observe(&mut observer, 3, 150);
        waiters.borrow_mut().wake(observer.topology());
        assert_eq!((counts(), poll(0), poll(1)), (vec![1, 0, 1, 0], true, false));
        observer.observe(NodeId(1), Observation::Lost);
        waiters.borrow_mut().wake(observer.topology());
        assert_eq!((counts(), poll(1), poll(3)), (vec![1, 1, 1, 1], true, true));
        drop(waits);
        let waiters = waiters.into_inner();
        assert!(waiters.replayed.is_empty() && waiters.polled.is_empty() && waiters.changed.is_empty());
    }

    #[test]
    fn who_gives_up_leaves_no_trace() {
        let waiters = RefCell::new(Waiters::default());
        for until in [Until::Replayed(Lsn(1)), Until::Polled, Until::Changed] {
            let mut waiting = Box::pin(wait(&waiters, until));
            assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            drop(waiting);
        }
        let waiters = waiters.into_inner();
        assert!(waiters.replayed.is_empty() && waiters.polled.is_empty() && waiters.changed.is_empty());
    }
}
