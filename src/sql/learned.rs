//! Texts that standbys have refused: primary only, from then on.

use std::collections::{HashSet, VecDeque};

use foldhash::fast::RandomState;

/// The most texts that are remembered.
pub const MAX_LEARNED: usize = 10_000;

/// Fingerprints of texts that belong to the primary. The oldest are forgotten first: that costs one more
/// refusal, nothing else.
#[derive(Debug, Default)]
pub struct Learned {
    known: HashSet<u64, RandomState>,
    order: VecDeque<u64>,
}

impl Learned {
    /// Remembers a text's fingerprint.
    pub fn insert(&mut self, fingerprint: u64) {
        if !self.known.insert(fingerprint) {
            return;
        }
        self.order.push_back(fingerprint);
        if self.order.len() > MAX_LEARNED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// Whether a text of that fingerprint was refused.
    #[must_use]
    pub fn contains(&self, fingerprint: u64) -> bool {
        self.known.contains(&fingerprint)
    }

    /// Whether none is known, which is the rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut learned = Learned::default();
        for n in 0..=MAX_LEARNED as u64 {
            learned.insert(n);
            learned.insert(n);
        }
        assert!(!learned.contains(0));
        assert!(learned.contains(1));
        assert_eq!(learned.order.len(), MAX_LEARNED);
    }
}
