//! Standbys that have not let somebody in, and are not asked again for a moment.
//!
//! A standby that is behind does not know a role, a database or a password that the primary has just been given. Without
//! this, each read of such a session would make a connection in vain.

use std::time::Duration;

use super::pools::PoolKey;
use crate::topology::NodeId;

/// A standby is asked again after this long.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The log says so again after this long.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// No more than this many are remembered, the last ones: the others' reads find out by themselves.
const MAX: usize = 256;

/// Who was not let in where, lately.
#[derive(Debug, Default)]
pub struct Refusals(Vec<Refusal>);

#[derive(Debug)]
struct Refusal {
    node: NodeId,
    key: PoolKey,
    at: Duration,
    told: Duration,
}

impl Refusals {
    /// That node has not let that role in, at the time `now`. Whether that is news for the log.
    pub fn note(&mut self, node: NodeId, key: PoolKey, now: Duration) -> bool {
        if let Some(known) = self.0.iter_mut().find(|r| r.node == node && r.key == key) {
            known.at = now;
            let news = known.told + TELL_AGAIN <= now;
            if news {
                known.told = now;
            }
            return news;
        }
        if self.0.len() >= MAX {
            let oldest = self.0.iter().enumerate().min_by_key(|(_, r)| r.at).map(|(number, _)| number);
            oldest.map(|number| self.0.swap_remove(number));
        }
        // Of so many, most have been told of before they were forgotten.
        let news = self.0.len() + 1 < MAX;
        self.0.push(Refusal { node, key, at: now, told: now });
        news
    }

    /// Whether nobody has been refused lately.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The nodes that have not let that role in, and are not to be asked yet.
    pub fn of(&self, key: PoolKey, now: Duration) -> Vec<NodeId> {
        let recent = |r: &&Refusal| r.key == key && now < r.at + ASK_AGAIN;
        self.0.iter().filter(recent).map(|r| r.node).collect()
    }

    /// Forgets what is over, and who has gone: their numbers may stand for others soon.
    pub fn sweep(&mut self, now: Duration, is_in_use: impl Fn(PoolKey) -> bool) {
        self.0.retain(|r| now < r.at + TELL_AGAIN && is_in_use(r.key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_node_is_asked_again_and_the_log_is_not_filled() {
        let (mut refusals, node, other) = (Refusals::default(), NodeId(1), PoolKey(7));
        assert!(refusals.of(other, s(5)).is_empty());
        assert!(refusals.note(node, other, s(5)));
        assert_eq!(refusals.of(other, s(5)), [node]);
        assert!(refusals.of(PoolKey(8), s(5)).is_empty());
        assert!(refusals.of(other, s(6)).is_empty());
        assert!(!refusals.note(node, other, s(6)));
        assert_eq!(refusals.of(other, s(6)), [node]);
        assert!(refusals.note(node, other, s(65)));
        refusals.sweep(s(124), |_| true);
        assert!(!refusals.note(node, other, s(124)));
        refusals.sweep(s(184), |_| true);
        assert!(refusals.note(node, other, s(184)), "it was forgotten");
        refusals.sweep(s(184), |key| key != other);
        assert!(refusals.of(other, s(184)).is_empty(), "the number stands for somebody else");
    }

    #[test]
    fn they_take_no_room_without_bound() {
        let mut refusals = Refusals::default();
        for key in 0..10_000 {
            refusals.note(NodeId(1), PoolKey(key), s(u64::from(key)));
        }
        assert_eq!(refusals.0.len(), MAX);
        assert_eq!(refusals.of(PoolKey(9_999), s(9_999)), [NodeId(1)], "the last one is");
    }
}
