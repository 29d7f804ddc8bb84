//! Which server connection a cancel request is for.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use foldhash::fast::RandomState;
use subtle::ConstantTimeEq;

use crate::topology::NodeId;

/// The server process that runs a client's unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// The node.
    pub node: NodeId,
    /// Its process id there.
    pub pid: u32,
    /// Its cancel key.
    pub key: Rc<[u8]>,
}

/// What others on the same worker may do to a client: cancel its unit, or ask it to leave.
#[derive(Debug)]
pub struct Handle {
    key: Box<[u8]>,
    running: RefCell<Option<Running>>,
    /// Cancel requests on their way to a server.
    cancelling: Cell<u32>,
    /// The unit was meant by one, whether that reaches it or not.
    meant: Cell<bool>,
    /// The client waits for something that is no server.
    cancelled: Cell<bool>,
    leaving: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Handle {
    fn new(key: Box<[u8]>) -> Rc<Self> {
        Rc::new(Self {
            key,
            running: RefCell::new(None),
            cancelling: Cell::new(0),
            meant: Cell::new(false),
            cancelled: Cell::new(false),
            leaving: Cell::new(false),
            waker: RefCell::new(None),
        })
    }

    /// What a cancel request has to show.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Whether its client may go to another worker: nobody is about to do anything to it here.
    #[must_use]
    pub fn may_move(&self) -> bool {
        self.cancelling.get() == 0 && !self.is_leaving()
    }

    /// A unit runs there from now on.
    pub fn runs(&self, node: NodeId, pid: u32, key: &Rc<[u8]>) {
        let mut running = self.running.borrow_mut();
        match running.as_mut() {
            Some(old) if old.node == node && old.pid == pid => {}
            Some(old) => {
                old.node = node;
                old.pid = pid;
                old.key = key.clone();
            }
            None => *running = Some(Running { node, pid, key: key.clone() }),
        }
    }

    /// No unit runs any more. Returns whether a cancel request is on its way: the server connection must
    /// not go to anybody else then.
    pub fn rests(&self) -> bool {
        if let Some(running) = self.running.borrow_mut().as_mut() {
            running.pid = 0;
        }
        self.cancelling.get() > 0
    }

    /// Whether the unit was to be cancelled: if it did not run to its end, it is not to run any more.
    #[must_use]
    pub fn was_meant(&self) -> bool {
        self.meant.get()
    }

    /// What to cancel, if anything runs; to be followed by [`Self::cancel_sent`].
    #[must_use]
    pub fn cancel(&self) -> Option<Running> {
        let running = self.running.borrow().clone().filter(|r| r.pid != 0);
        self.meant.set(true);
        if running.is_some() {
            self.cancelling.set(self.cancelling.get() + 1);
        } else {
            self.cancelled.set(true);
            self.wake();
        }
        running
    }

    /// The cancel request has reached its server, or never will.
    pub fn cancel_sent(&self) {
        self.cancelling.set(self.cancelling.get().saturating_sub(1));
    }

    /// A unit begins: a cancel that came before it was for another one, and is too late.
    pub fn begins(&self) {
        self.cancelled.set(false);
        self.meant.set(false);
    }

    /// Whether a wait was cancelled since the last call.
    fn take_cancelled(&self) -> bool {
        self.cancelled.take()
    }

    /// Waits until a wait is cancelled.
    pub async fn cancellation(&self) {
        poll_fn(|cx| {
            self.listen(cx.waker());
            if self.take_cancelled() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Asks the client to leave when its transaction is over.
    pub fn leave(&self) {
        self.leaving.set(true);
        self.wake();
    }

    /// Whether the client was asked to leave.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.leaving.get()
    }

    /// Whom to wake for [`Self::leave`] and [`Self::cancel`].
    pub fn listen(&self, waker: &Waker) {
        let mut place = self.waker.borrow_mut();
        match place.as_mut() {
            Some(old) if old.will_wake(waker) => {}
            Some(old) => old.clone_from(waker),
            None => *place = Some(waker.clone()),
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

/// The clients of one worker, by the process id that they were told.
#[derive(Debug, Default)]
pub struct Handles {
    by_pid: HashMap<u32, Rc<Handle>, RandomState>,
    /// Clients that were told their process ids here, and are with another worker now.
    away: HashMap<u32, Away, RandomState>,
    next: u32,
}

/// Where a client is that has gone to another worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Away {
    worker: usize,
    /// How often it had moved when it came there: news of two workers may overtake each other.
    moves: u32,
}

/// How many bits of a process id tell the worker: up to 64 workers.
const WORKER_BITS: u32 = 6;

/// The most workers that process ids can tell apart.
pub const MAX_WORKERS: usize = 1 << WORKER_BITS;

/// A table with room for so many times what is in it is too large, unless it is small.
const ROOMY: usize = 8;

/// Room that a table always keeps.
const LEAST_ROOM: usize = 128;

/// The smallest process id that a client is told.
const LEAST_PID: u32 = 1 << 30;

/// The worker that told a client this process id.
#[must_use]
pub const fn worker_of(pid: u32) -> usize {
    (pid & ((1 << WORKER_BITS) - 1)) as usize
}

/// A crowd's room is not kept when the crowd has left.
fn shrink<T>(table: &mut HashMap<u32, T, RandomState>) {
    if table.len() < table.capacity() / ROOMY {
        table.shrink_to(LEAST_ROOM.max(2 * table.len()));
    }
}

impl Handles {
    /// Registers a client with the cancel key that it is told.
    pub fn add(&mut self, worker: usize, key: Vec<u8>) -> (u32, Rc<Handle>) {
        let handle = Handle::new(key.into());
        loop {
            // Process ids are positive 32-bit integers to clients, and no real one is so large (Linux ends at 2^22):
            // whoever gives ours to pg_cancel_backend() must not hit a stranger.
            self.next = (self.next + 1) & ((1 << (30 - WORKER_BITS)) - 1);
            let pid = LEAST_PID | (self.next << WORKER_BITS) | (worker as u32 & ((1 << WORKER_BITS) - 1));
            if let Entry::Vacant(free) = self.by_pid.entry(pid)
                && !self.away.contains_key(&pid)
            {
                free.insert(handle.clone());
                return (pid, handle);
            }
        }
    }

    /// A client is gone.
    pub fn remove(&mut self, pid: u32) {
        self.by_pid.remove(&pid);
        shrink(&mut self.by_pid);
    }

    /// A client that was told that process id comes from another worker.
    pub fn comes(&mut self, pid: u32, key: Box<[u8]>) -> Rc<Handle> {
        let handle = Handle::new(key);
        self.forget(pid);
        self.by_pid.insert(pid, handle.clone());
        handle
    }

    /// A client that was told its process id here has left for another worker, as its `moves`-th move.
    pub fn note_away(&mut self, pid: u32, worker: usize, moves: u32) {
        self.away.insert(pid, Away { worker, moves });
    }

    /// One that was away already has gone on to another worker, as its `moves`-th move.
    pub fn note_onward(&mut self, pid: u32, worker: usize, moves: u32) {
        // It may have come back since, or have left for good, or this may be old news.
        if let Some(away) = self.away.get_mut(&pid)
            && moves.wrapping_sub(away.moves) as i32 > 0
        {
            *away = Away { worker, moves };
        }
    }

    /// One that was away is gone.
    pub fn forget(&mut self, pid: u32) {
        self.away.remove(&pid);
        shrink(&mut self.away);
    }

    /// Where the client of that process id may be, which is not with worker number `here`, whose this is; `None` if it is here,
    /// or nowhere.
    #[must_use]
    pub fn elsewhere(&self, pid: u32, here: usize) -> Option<usize> {
        if self.by_pid.contains_key(&pid) {
            return None;
        }
        match self.away.get(&pid) {
            Some(away) => Some(away.worker),
            None => Some(worker_of(pid)).filter(|home| *home != here),
        }
    }

    /// The client of that process id, if the key is right.
    #[must_use]
    pub fn find(&self, pid: u32, key: &[u8]) -> Option<Rc<Handle>> {
        self.by_pid.get(&pid).filter(|h| bool::from(h.key.ct_eq(key))).cloned()
    }

    /// Asks every client to leave.
    pub fn leave_all(&self) {
        for handle in self.by_pid.values() {
            handle.leave();
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_pid.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_pid.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_at_rest_has_little_to_be_cancelled_by() {
        // With the two counts of an `Rc`: jemalloc has nothing between that and 112.
        assert!(size_of::<Handle>() <= 80, "{}", size_of::<Handle>());
    }

    #[test]
    fn a_crowd_that_has_left_takes_no_room() {
        let mut handles = Handles::default();
        let pids: Vec<_> = (0..10_000).map(|_| handles.add(5, b"key".to_vec()).0).collect();
        let (last, crowd) = pids.split_last().unwrap();
        crowd.iter().for_each(|pid| handles.remove(*pid));
        assert!(handles.by_pid.capacity() < 1_000, "{}", handles.by_pid.capacity());
        assert!(handles.find(*last, b"key").is_some());
    }

    #[test]
    fn who_has_moved_is_found_by_the_latest_news() {
        let mut home = Handles::default();
        let (pid, _) = home.add(5, b"key".to_vec());
        assert_eq!(home.elsewhere(pid, 5), None);
        // Nobody knows of a stranger but the worker that has told him his number, if any.
        assert_eq!(
            (home.elsewhere(pid + (1 << WORKER_BITS), 5), home.elsewhere(pid + 1, 5)),
            (None, Some(6))
        );
        home.remove(pid);
        home.note_away(pid, 6, 1);
        assert_eq!(home.elsewhere(pid, 5), Some(6));
        // Two workers' news overtake each other.
        home.note_onward(pid, 8, 3);
        home.note_onward(pid, 7, 2);
        assert_eq!(home.elsewhere(pid, 5), Some(8));
        // He comes back before all news have come, leaves again, and the rest comes.
        let handle = home.comes(pid, b"key"[..].into());
        home.note_onward(pid, 9, 4);
        assert!(Rc::ptr_eq(&home.find(pid, b"key").unwrap(), &handle) && home.find(pid, b"kez").is_none());
        assert_eq!(home.elsewhere(pid, 5), None);
        home.remove(pid);
        home.note_away(pid, 6, 6);
        home.note_onward(pid, 9, 5);
        assert_eq!(home.elsewhere(pid, 5), Some(6));
        home.forget(pid);
        home.note_onward(pid, 9, 7);
        assert_eq!(home.elsewhere(pid, 5), None);
    }

    #[test]
    fn only_the_right_key_finds_a_client_and_only_a_running_unit_is_cancelled() {
        let mut handles = Handles::default();
        let (pid, handle) = handles.add(5, b"key".to_vec());
        assert_eq!(worker_of(pid), 5);
        assert!(handles.find(pid, b"kez").is_none());
        assert!(handles.find(pid + MAX_WORKERS as u32, b"key").is_none());
        let found = handles.find(pid, b"key").unwrap();
        assert_eq!(found.cancel(), None);
        assert!(handle.take_cancelled());
        handle.runs(NodeId(1), 42, &b"k"[..].into());
        assert_eq!(found.cancel(), Some(Running { node: NodeId(1), pid: 42, key: b"k"[..].into() }));
        assert!(handle.rests(), "a cancel request is on its way");
        assert!(handle.was_meant());
        found.cancel_sent();
        handle.begins();
        handle.runs(NodeId(1), 43, &b"l"[..].into());
        assert!(!handle.rests());
        assert!(!handle.was_meant());
        assert_eq!(found.cancel(), None);
    }
}
