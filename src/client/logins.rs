//! How many clients may be logging in: what strangers take up is limited, and one of them cannot take it all. Who finds
//! no room stands in line, where it costs little more than its socket.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use tokio::sync::oneshot;

/// So many times as many as may log in may stand in line.
pub const LINE: usize = 10;

/// The clients that are logging in, over all workers.
#[derive(Debug, Default)]
pub struct Logins(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By address: an entry for each that is at it.
    at_it: HashMap<IpAddr, usize, RandomState>,
    all: usize,
    max: usize,
    line: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    address: IpAddr,
    place: oneshot::Sender<LoggingIn>,
}

/// A client is logging in, until this is dropped.
#[derive(Debug)]
pub struct LoggingIn {
    /// Nothing, for one that was never taken.
    logins: Option<Arc<Logins>>,
    address: IpAddr,
}

/// Whose turn it is.
#[derive(Debug)]
pub enum Turn {
    /// The client's own.
    Now(LoggingIn),
    /// Somebody else's; the client's will come.
    Later(oneshot::Receiver<LoggingIn>),
    /// Too many others'.
    Never,
}

impl State {
    /// Of `max` places one address gets three quarters at most.
    fn has_room(&self, address: IpAddr) -> bool {
        let here = self.at_it.get(&address).copied().unwrap_or_default();
        self.all < self.max && here < self.max - self.max / 4
    }

    fn enter(&mut self, address: IpAddr) {
        *self.at_it.entry(address).or_default() += 1;
        self.all += 1;
    }

    fn leave(&mut self, address: IpAddr) {
        self.all -= 1;
        if let Entry::Occupied(mut here) = self.at_it.entry(address) {
            *here.get_mut() -= 1;
            if *here.get() == 0 {
                here.remove();
            }
        }
    }

    /// The first in line for whom there is room.
    fn next(&mut self) -> Option<Waiting> {
        while let Some(at) = self.line.iter().position(|w| w.place.is_closed() || self.has_room(w.address)) {
            let waiting = self.line.remove(at)?;
            if !waiting.place.is_closed() {
                self.enter(waiting.address);
                return Some(waiting);
            }
        }
        None
    }
}

impl Logins {
    /// A client from that address begins to log in, if fewer than `max` are at it, or three quarters of that from there.
    #[must_use]
    pub fn begin(self: &Arc<Self>, address: IpAddr, max: usize) -> Turn {
        let mut state = self.state();
        state.max = max;
        if state.has_room(address) {
            state.enter(address);
            return Turn::Now(LoggingIn { logins: Some(self.clone()), address });
        }
        let limit = LINE.saturating_mul(max);
        if state.line.len() >= limit {
            state.line.retain(|w| !w.place.is_closed());
        }
        if state.line.len() >= limit {
            return Turn::Never;
        }
        let (place, turn) = oneshot::channel();
        state.line.push_back(Waiting { address, place });
        Turn::Later(turn)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a place back, and to the next in line who still wants it.
    fn end(self: &Arc<Self>, address: IpAddr) {
        let mut left = Some(address);
        while let Some(address) = left.take() {
            let next = {
                let mut state = self.state();
                state.leave(address);
                state.next()
            };
            let Some(Waiting { address, place }) = next else { return };
            if let Err(mut back) = place.send(LoggingIn { logins: Some(self.clone()), address }) {
                // It has just gone. Not by the drop of what came back: a line of such would be as many calls deep.
                back.logins = None;
                left = Some(address);
            }
        }
    }
}

impl Drop for LoggingIn {
    fn drop(&mut self) {
        if let Some(logins) = self.logins.take() {
            logins.end(self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn now(turn: Turn) -> LoggingIn {
        match turn {
            Turn::Now(place) => place,
            other => panic!("{other:?}"),
        }
    }

    fn later(turn: Turn) -> oneshot::Receiver<LoggingIn> {
        match turn {
            Turn::Later(wait) => wait,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_address_leaves_room_for_others_and_places_come_free() {
        let logins = Arc::new(Logins::default());
        let mut here: Vec<_> = (0..6).map(|_| now(logins.begin(at(1), 8))).collect();
        let mut seventh = later(logins.begin(at(1), 8));
        let _there = [now(logins.begin(at(2), 8)), now(logins.begin(at(3), 8))];
        let mut fourth = later(logins.begin(at(4), 8));
        here.pop();
        let seventh = seventh.try_recv().expect("the first in line comes first");
        assert!(fourth.try_recv().is_err());
        drop(seventh);
        assert!(fourth.try_recv().is_ok());
        here.clear();
        let state = logins.state();
        assert_eq!((state.at_it.len(), state.all), (2, 2));
    }

    #[test]
    fn who_may_not_come_yet_does_not_hold_up_others() {
        let logins = Arc::new(Logins::default());
        let here: Vec<_> = (0..3).map(|_| now(logins.begin(at(1), 4))).collect();
        let mut blocked = later(logins.begin(at(1), 4));
        let other = now(logins.begin(at(2), 4));
        let mut next = later(logins.begin(at(3), 4));
        drop(other);
        assert!(next.try_recv().is_ok() && blocked.try_recv().is_err());
        drop(here);
        assert!(blocked.try_recv().is_ok());
    }

    #[test]
    fn the_line_has_an_end_and_who_leaves_it_is_passed_over() {
        let logins = Arc::new(Logins::default());
        let place = now(logins.begin(at(1), 1));
        let mut line: Vec<_> = (0..LINE).map(|_| later(logins.begin(at(1), 1))).collect();
        assert!(matches!(logins.begin(at(1), 1), Turn::Never));
        let mut last = line.pop().unwrap();
        drop(line);
        let mut behind = later(logins.begin(at(1), 1));
        drop(place);
        drop(last.try_recv().expect("all before it have left"));
        assert!(behind.try_recv().is_ok());
        assert_eq!(logins.state().all, 0);
    }
}
