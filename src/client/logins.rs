//! How many clients may be logging in: what strangers take up is limited, and one of them cannot take it all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// The clients that are logging in, over all workers.
#[derive(Debug, Default)]
pub struct Logins(Mutex<HashMap<Option<IpAddr>, usize>>);

/// A client is logging in, until this is dropped.
#[derive(Debug)]
pub struct LoggingIn {
    logins: Arc<Logins>,
    address: Option<IpAddr>,
}

impl Logins {
    /// A client from that address begins to log in. `None` if `max` are at it, or three quarters of that from there.
    #[must_use]
    pub fn begin(self: &Arc<Self>, address: Option<IpAddr>, max: usize) -> Option<LoggingIn> {
        let mut at_it = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The map has an entry per address that is at it: no more than `max`.
        let all: usize = at_it.values().sum();
        let here = at_it.get(&address).copied().unwrap_or_default();
        if all >= max || here >= max - max / 4 {
            return None;
        }
        at_it.insert(address, here + 1);
        drop(at_it);
        Some(LoggingIn { logins: self.clone(), address })
    }
}

impl Drop for LoggingIn {
    fn drop(&mut self) {
        let mut at_it = self.logins.0.lock().unwrap_or_else(PoisonError::into_inner);
        match at_it.get_mut(&self.address) {
            Some(here) if *here > 1 => *here -= 1,
            _ => {
                at_it.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_leaves_room_for_others_and_places_come_free() {
        let logins = Arc::new(Logins::default());
        let at = |last: u8| Some(IpAddr::from([10, 0, 0, last]));
        let mut here: Vec<_> = (0..6).map(|_| logins.begin(at(1), 8).unwrap()).collect();
        assert!(logins.begin(at(1), 8).is_none());
        let _there = [logins.begin(at(2), 8).unwrap(), logins.begin(at(3), 8).unwrap()];
        assert!(logins.begin(at(4), 8).is_none());
        here.pop();
        assert!(logins.begin(at(4), 8).is_some());
        here.clear();
        assert_eq!(logins.0.lock().unwrap().len(), 2);
    }
}
