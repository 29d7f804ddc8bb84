//! What the primary's position was, and when: the ring that turns positions into ages.

use std::collections::VecDeque;
use std::time::Duration;

use crate::lsn::Lsn;

/// The most entries kept: at 2 ms between polls, the thinned ring spans minutes.
pub const MAX_ENTRIES: usize = 4096;

/// One poll of the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    /// When it was sent: what was acknowledged before, lies at or below `lsn`.
    sent: Duration,
    lsn: Lsn,
}

/// The primary's positions of one epoch, oldest first.
///
/// Of polls that found the same position the first and the last one are kept: the first tells since
/// when a replica that has not reached it is behind, the last how fresh one that has reached it is.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    entries: VecDeque<Entry>,
}

impl Ring {
    /// Takes in a poll that was sent then and found the primary there.
    pub fn push(&mut self, sent: Duration, lsn: Lsn) {
        let len = self.entries.len();
        if len >= 2 && self.entries.iter().rev().take(2).all(|e| e.lsn == lsn) {
            if let Some(last) = self.entries.back_mut() {
                last.sent = sent;
            }
            return;
        }
        self.entries.push_back(Entry { sent, lsn });
        if self.entries.len() > MAX_ENTRIES {
            self.thin();
        }
    }

    /// Drops every second entry of the older half: old ages need no fine scale.
    fn thin(&mut self) {
        let half = self.entries.len() / 2;
        let mut index = 0;
        self.entries.retain(|_| {
            index += 1;
            index > half || index % 2 == 0
        });
    }

    /// Forgets everything, as at the beginning of an epoch.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// The newest position.
    #[must_use]
    pub fn newest(&self) -> Option<Lsn> {
        self.entries.back().map(|e| e.lsn)
    }

    /// When the newest poll was sent that a replica at `lsn` covers: it shows every write that was
    /// acknowledged before that.
    #[must_use]
    pub fn covered(&self, lsn: Lsn) -> Option<Duration> {
        let at = self.entries.partition_point(|e| e.lsn <= lsn);
        at.checked_sub(1).and_then(|at| self.entries.get(at)).map(|e| e.sent)
    }

    /// When the oldest poll was sent that a replica at `lsn` does not cover; `None` if it covers all.
    #[must_use]
    pub fn uncovered(&self, lsn: Lsn) -> Option<Duration> {
        self.entries.get(self.entries.partition_point(|e| e.lsn <= lsn)).map(|e| e.sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn an_idle_primary_ages_nobody() {
        let mut ring = Ring::default();
        for n in 0..100 {
            ring.push(ms(n * 50), Lsn(10));
        }
        assert_eq!(ring.covered(Lsn(10)), Some(ms(4950)));
        assert_eq!(ring.uncovered(Lsn(10)), None);
        assert_eq!(ring.covered(Lsn(9)), None);
        assert_eq!(ring.uncovered(Lsn(9)), Some(ms(0)));
    }

    proptest! {
        /// However it is thinned, the ring never makes a replica look fresher than it is.
        #[test]
        fn a_bound_is_never_too_good(steps in proptest::collection::vec(0u64..3, 1..6000), at in 0u64..6000) {
            let mut ring = Ring::default();
            let mut all = Vec::new();
            let mut lsn = 0;
            for (n, step) in steps.iter().enumerate() {
                lsn += step;
                ring.push(ms(n as u64), Lsn(lsn));
                all.push((ms(n as u64), Lsn(lsn)));
            }
            let at = Lsn(at.min(lsn));
            let exact = all.iter().rev().find(|(_, l)| *l <= at).map(|(t, _)| *t);
            prop_assert!(ring.covered(at) <= exact);
            prop_assert!(ring.entries.len() <= MAX_ENTRIES);
            let behind = all.iter().any(|(_, l)| *l > at);
            prop_assert_eq!(ring.uncovered(at).is_some(), behind);
        }
    }
}
