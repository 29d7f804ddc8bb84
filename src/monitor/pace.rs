//! When the next poll of a node is due.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::polls::Pause;
use crate::topology::{NodeId, Role, Topology};

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

/// So many units to a poll, which costs as much as two of them: it is to cost a hundredth of what it is for.
const UNITS: u32 = 200;

/// A primary that is in use is polled this many times as far apart as one that somebody waits for, at most: what it tells
/// is what a session needs first that reads soon after a write.
const PRIMARY_AT_MOST: u32 = 8;

/// How long a node counts as in use after its last unit.
const BUSY_FOR: Duration = Duration::from_millis(20);

/// What flows to a node, as its polls go by it where nobody waits for them.
#[derive(Debug)]
pub(super) struct Usage {
    /// How many units had ended on it at the last poll, and when that was.
    units: u64,
    last: Duration,
    busy_until: Duration,
}

impl Usage {
    /// From now on.
    pub(super) fn new(units: u64, now: Duration) -> Self {
        Self { units, last: now, busy_until: Duration::ZERO }
    }

    /// The node has been polled, and `units` have ended on it by now. In what time, of those that are allowed, the next poll
    /// is worth its cost, and how deep the monitor may sleep until then.
    pub(super) fn polled(
        &mut self,
        units: u64,
        now: Duration,
        role: Role,
        allowed: RangeInclusive<Duration>,
    ) -> (Duration, Pause) {
        let flowed = units.wrapping_sub(self.units);
        let since = now.saturating_sub(self.last);
        (self.units, self.last) = (units, now);
        if flowed > 0 {
            self.busy_until = now.saturating_add(BUSY_FOR);
        }
        let (short, mut long) = allowed.into_inner();
        let in_use = now < self.busy_until;
        if role == Role::Primary && in_use {
            long = long.min(short.saturating_mul(PRIMARY_AT_MOST));
        }
        let interval = by_flow(flowed, since).max(short).min(long);
        match () {
            () if !in_use => (interval, Pause::Rest),
            () if interval <= short => (interval, Pause::Short),
            () => (interval, Pause::Long),
        }
    }
}

/// The time in which [`UNITS`] flow, by those that have ended in the time `since` the last poll.
fn by_flow(units: u64, since: Duration) -> Duration {
    let units = u32::try_from(units).unwrap_or(u32::MAX);
    since.saturating_mul(UNITS).checked_div(units).unwrap_or(Duration::MAX)
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
    fn polls_cost_a_small_part_of_what_flows() {
        for (units, since, interval) in [(200, 7, 7), (400, 10, 5), (1, 50, 10_000), (25_000, 1_000, 8)] {
            assert_eq!(by_flow(units, Duration::from_millis(since)), Duration::from_millis(interval));
        }
        assert_eq!(by_flow(0, Duration::from_millis(1)), Duration::MAX);
        assert_eq!(by_flow(9, Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn a_primary_in_use_is_polled_soon_and_one_at_rest_is_rung_for() {
        let allowed = ms(2)..=ms(50);
        let mut units = 0;
        let mut usage = Usage::new(units, ms(1_000));
        let mut polled = |role, at, more| {
            units += more;
            usage.polled(units, ms(at), role, allowed.clone())
        };
        assert_eq!(polled(Role::Primary, 1_050, 0), (ms(50), Pause::Rest));
        assert_eq!(polled(Role::Primary, 1_100, 1), (ms(16), Pause::Long));
        // Between its turns, too: nobody rings for it yet.
        assert_eq!(polled(Role::Primary, 1_116, 0), (ms(16), Pause::Long));
        assert_eq!(polled(Role::Primary, 1_132, 0), (ms(50), Pause::Rest));
        assert_eq!(polled(Role::Replica, 1_182, 1), (ms(50), Pause::Long));
        assert_eq!(polled(Role::Replica, 1_192, 500), (ms(4), Pause::Long));
        assert_eq!(polled(Role::Replica, 1_196, 10_000), (ms(2), Pause::Short));
        assert_eq!(polled(Role::Replica, 1_246, 0), (ms(50), Pause::Rest));
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
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
