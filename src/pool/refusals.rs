//! Standbys that have just given somebody no connection, and are not asked again for a moment.
//!
//! A standby that is behind does not know a role, a database or a password that the primary has just been given; another one is
//! full, or shutting down, and has few connections busy, so that it looks idle. Without this, each read of such a session would
//! try to make a connection in vain.

use std::time::Duration;

use super::pools::PoolKey;
use crate::topology::NodeId;

/// A standby is asked again after this long.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The log says so again after this long.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// No more than this many are remembered, the last ones: the others' reads find out by themselves.
const MAX: usize = 256;

/// Why somebody has got no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The role is not let in there, or not into that database.
    NotLetIn,
    /// No new connection is taken there. Those that are there are as good as ever.
    NoneTaken,
}

/// Who has got no connection where, lately.
#[derive(Debug, Default)]
pub struct Refusals {
    known: Vec<Refusal>,
    /// When the last of them is over.
    until: Duration,
}

#[derive(Debug)]
struct Refusal {
    node: NodeId,
    key: PoolKey,
    why: Refused,
    /// Then it is asked again.
    until: Duration,
    /// When the log was told, if it was.
    told: Option<Duration>,
}

impl Refusals {
    /// That node has given that role no connection, at the time `now`. Whether that is news for the log.
    pub fn note(&mut self, node: NodeId, key: PoolKey, why: Refused, now: Duration) -> bool {
        let until = now + ASK_AGAIN;
        self.until = until;
        // Who takes no connections takes nobody's.
        let same =
            |r: &Refusal| r.node == node && r.why == why && (why == Refused::NoneTaken || r.key == key);
        let was_told = self.known.iter().filter(|r| same(r)).filter_map(|r| r.told).max();
        // Of so many, most have been told of before they were forgotten.
        let news = self.known.len() + 1 < MAX && was_told.is_none_or(|told| told + TELL_AGAIN <= now);
        let told = if news { Some(now) } else { was_told };
        self.known.retain(|r| (r.node, r.key, r.why) != (node, key, why));
        if self.known.len() >= MAX {
            let oldest = self.known.iter().enumerate().min_by_key(|(_, r)| r.until).map(|(number, _)| number);
            oldest.map(|number| self.known.swap_remove(number));
        }
        self.known.push(Refusal { node, key, why, until, told });
        news
    }

    /// That node has given that role one.
    pub fn clear(&mut self, node: NodeId, key: PoolKey) {
        self.known
            .iter_mut()
            .filter(|r| (r.node, r.key) == (node, key))
            .for_each(|r| r.until = Duration::ZERO);
    }

    /// Whether nobody is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The nodes that are not to be asked for a connection of that role yet; `has_idle` knows those where one is at hand.
    pub fn of(&self, key: PoolKey, now: Duration, has_idle: impl Fn(NodeId) -> bool) -> Vec<NodeId> {
        if self.until <= now {
            return Vec::new();
        }
        let stands = |r: &&Refusal| r.why == Refused::NotLetIn || !has_idle(r.node);
        let recent = self.known.iter().filter(|r| r.key == key && now < r.until);
        recent.filter(stands).map(|r| r.node).collect()
    }

    /// Forgets what is over, and who has gone: their numbers may stand for others soon.
    pub fn sweep(&mut self, now: Duration, is_in_use: impl Fn(PoolKey) -> bool) {
        let matters = |r: &Refusal| now < r.until || r.told.is_some_and(|told| now < told + TELL_AGAIN);
        self.known.retain(|r| matters(r) && is_in_use(r.key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(1);
    const KEY: PoolKey = PoolKey(7);

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn none(_: NodeId) -> bool {
        false
    }

    #[test]
    fn a_node_is_asked_again_and_the_log_is_not_filled() {
        let mut refusals = Refusals::default();
        let note = |refusals: &mut Refusals, now| refusals.note(NODE, KEY, Refused::NotLetIn, s(now));
        assert!(refusals.of(KEY, s(5), none).is_empty());
        assert!(note(&mut refusals, 5));
        assert_eq!(refusals.of(KEY, s(5), none), [NODE]);
        assert_eq!(
            refusals.of(KEY, s(5), |_| true),
            [NODE],
            "an older connection is of no use to a new password"
        );
        assert!(refusals.of(PoolKey(8), s(5), none).is_empty());
        assert!(refusals.of(KEY, s(6), none).is_empty());
        assert!(!note(&mut refusals, 6));
        assert_eq!(refusals.of(KEY, s(6), none), [NODE]);
        assert!(note(&mut refusals, 65));
        refusals.sweep(s(124), |_| true);
        assert!(!note(&mut refusals, 124));
        refusals.sweep(s(184), |_| true);
        assert!(note(&mut refusals, 184), "it was forgotten");
        refusals.sweep(s(184), |key| key != KEY);
        assert!(refusals.of(KEY, s(184), none).is_empty(), "the number stands for somebody else");
    }

    #[test]
    fn one_that_takes_no_connections_has_some_still_and_the_log_hears_of_it_once() {
        let (mut refusals, other) = (Refusals::default(), PoolKey(8));
        assert!(refusals.note(NODE, KEY, Refused::NoneTaken, s(0)));
        assert_eq!(refusals.of(KEY, s(0), none), [NODE]);
        assert!(refusals.of(KEY, s(0), |node| node == NODE).is_empty(), "a connection is at hand");
        assert!(refusals.of(other, s(0), none).is_empty(), "perhaps it is that role's limit");
        assert!(!refusals.note(NODE, other, Refused::NoneTaken, s(1)));
        assert!(refusals.note(NodeId(2), KEY, Refused::NoneTaken, s(1)));
        assert_eq!(refusals.of(other, s(1), none), [NODE]);
        refusals.clear(NODE, other);
        assert!(refusals.of(other, s(1), none).is_empty());
        assert_eq!(refusals.of(KEY, s(1), none), [NodeId(2)]);
        assert!(!refusals.note(NODE, other, Refused::NoneTaken, s(59)));
        assert!(refusals.note(NODE, other, Refused::NoneTaken, s(60)));
        // What it says of one role is news of its own.
        assert!(refusals.note(NODE, KEY, Refused::NotLetIn, s(60)));
    }

    #[test]
    fn they_take_no_room_without_bound() {
        for why in [Refused::NotLetIn, Refused::NoneTaken] {
            let mut refusals = Refusals::default();
            for key in 0..10_000 {
                refusals.note(NODE, PoolKey(key), why, s(u64::from(key)));
            }
            assert_eq!(refusals.known.len(), MAX);
            assert_eq!(refusals.of(PoolKey(9_999), s(9_999), none), [NODE], "the last one is");
        }
    }
}
