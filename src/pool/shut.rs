//! Standbys that have just taken no new connection: full, or shutting down.
//!
//! Such a one has few connections busy, and so looks idle: without this, the round would prefer it, and each read would try to
//! make a connection in vain. It is no more than a preference: where no other replica may serve, it is asked.

use std::time::Duration;

use super::pools::PoolKey;
use crate::topology::NodeId;

/// For so long others are preferred.
const RECENT: Duration = Duration::from_secs(1);

/// The log says so again after this long.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// No more than this many are remembered, the last ones: the others' reads find out by themselves.
const MAX: usize = 256;

/// Who has got no connection where, lately.
#[derive(Debug, Default)]
pub struct Shut {
    refused: Vec<(NodeId, PoolKey, Duration)>,
    /// The last one.
    last: Option<Duration>,
    /// When the log was told of a node.
    told: Vec<(NodeId, Duration)>,
}

impl Shut {
    /// That node has taken no connection of that role, at the time `now`. Whether that is news for the log.
    pub fn note(&mut self, node: NodeId, key: PoolKey, now: Duration) -> bool {
        self.last = Some(now);
        self.refused.retain(|(n, k, at)| (*n, *k) != (node, key) && now < *at + RECENT);
        if self.refused.len() >= MAX {
            self.refused.remove(0);
        }
        self.refused.push((node, key, now));
        let news = !self.told.iter().any(|(n, at)| *n == node && now < *at + TELL_AGAIN);
        if news {
            self.told.retain(|(n, _)| *n != node);
            self.told.push((node, now));
        }
        news
    }

    /// It has taken one.
    pub fn clear(&mut self, node: NodeId, key: PoolKey) {
        self.refused.retain(|(n, k, _)| (*n, *k) != (node, key));
    }

    /// Whether that node has taken no connection of that role lately.
    #[must_use]
    #[inline]
    pub fn is_shut(&self, node: NodeId, key: PoolKey, now: Duration) -> bool {
        self.last.is_some_and(|last| now < last + RECENT)
            && self.refused.iter().any(|(n, k, at)| (*n, *k) == (node, key) && now < *at + RECENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn it_is_for_a_moment_and_the_log_hears_of_each_node_once() {
        let (mut shut, key, other) = (Shut::default(), PoolKey(7), PoolKey(8));
        assert!(!shut.is_shut(NodeId(1), key, ms(0)));
        assert!(shut.note(NodeId(1), key, ms(0)));
        assert!(shut.is_shut(NodeId(1), key, ms(999)) && !shut.is_shut(NodeId(1), key, ms(1000)));
        assert!(!shut.is_shut(NodeId(1), other, ms(0)) && !shut.is_shut(NodeId(2), key, ms(0)));
        assert!(!shut.note(NodeId(1), other, ms(500)) && shut.note(NodeId(2), key, ms(500)));
        assert!(shut.is_shut(NodeId(1), key, ms(999)) && !shut.is_shut(NodeId(1), key, ms(1000)));
        shut.clear(NodeId(1), other);
        assert!(!shut.is_shut(NodeId(1), other, ms(600)) && shut.is_shut(NodeId(2), key, ms(600)));
        assert!(shut.note(NodeId(1), key, ms(60_000)));
    }

    #[test]
    fn it_takes_no_room_without_bound() {
        let mut shut = Shut::default();
        for key in 0..10_000 {
            shut.note(NodeId(1), PoolKey(key), ms(5));
        }
        assert_eq!((shut.refused.len(), shut.told.len()), (MAX, 1));
        assert!(shut.is_shut(NodeId(1), PoolKey(9_999), ms(5)));
    }
}
