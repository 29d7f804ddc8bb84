//! When the next poll of a node is due.

use std::time::Duration;

use crate::topology::{NodeId, Topology};

/// A node's turn among those that are polled one after the other: it is the `place`-th of so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    place: u64,
    of: u64,
}

impl Turn {
    /// Whoever waits for a position waits for any replica to be there. So those that are likely to make it within `wait`
    /// are asked in turn: as often as if there were one of them, however many there are. Others have their turn, too.
    pub(super) fn of(node: NodeId, topology: &Topology, wait: Duration) -> Self {
        let mut turn = Self { place: 0, of: 0 };
        for replica in topology.replicas().filter(|n| n.up && (n.id == node || n.is_promising(wait))) {
            turn.place += u64::from(replica.id < node);
            turn.of += 1;
        }
        turn
    }

    /// When the next poll is due that is to come in turn: at one of the points of a grid that all nodes share.
    pub(super) fn due(self, now: Duration, grid: Duration) -> Duration {
        let grid = nanos(grid).max(1);
        let of = self.of.max(1);
        // Too soon behind the last one, a poll would not tell anything new.
        let first = nanos(now).saturating_add(grid / 4).div_ceil(grid);
        let wait = (self.place + of - first % of) % of;
        Duration::from_nanos(first.saturating_add(wait).saturating_mul(grid))
    }
}

/// When the next poll is due that is to come after `interval`: on a grid that all nodes share, so that one wakeup
/// serves all that are due then.
pub(super) fn due(now: Duration, interval: Duration, grid: Duration) -> Duration {
    let grid = nanos(grid.min(interval)).max(1);
    let now = nanos(now);
    let at = now.saturating_add(nanos(interval)) / grid * grid;
    // Too soon behind the last one, it would not tell anything new.
    Duration::from_nanos(if at < now.saturating_add(grid / 4) { at.saturating_add(grid) } else { at })
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    #[test]
    fn polls_are_due_on_a_grid() {
        let due = |now, interval| super::due(us(now), us(interval), us(2000));
        assert_eq!(due(10_000, 2000), us(12_000));
        assert_eq!(due(10_100, 2000), us(12_000));
        assert_eq!(due(11_500, 2000), us(12_000));
        assert_eq!(due(11_501, 2000), us(14_000));
        assert_eq!(due(10_100, 50_000), us(60_000));
        assert_eq!(due(10_100, 1000), us(11_000));
        assert_eq!(super::due(us(1), Duration::MAX, us(2000)).as_secs(), u64::MAX / 1_000_000_000);
    }

    #[test]
    fn each_has_its_turn() {
        let due = |now, place, of| Turn { place, of }.due(us(now), us(2000));
        for now in [10_100, 11_000, 11_500] {
            // Alone, or counted by nobody: at every point of the grid.
            assert_eq!((due(now, 0, 1), due(now, 0, 0)), (us(12_000), us(12_000)));
            assert_eq!([0, 1, 2].map(|place| due(now, place, 3)), [12_000, 14_000, 16_000].map(us));
        }
        assert_eq!([due(11_501, 0, 2), due(11_501, 1, 2)], [16_000, 14_000].map(us));
    }
}
