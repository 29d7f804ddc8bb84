//! The line in front of the database: so many questions per second, and the rest wait their turn.

use std::time::Duration;

/// A token bucket whose tokens are given out in advance: whoever asks learns at once when it is their turn, or that
/// the line is too long.
#[derive(Clone, Debug)]
pub struct QueryLine {
    /// The time that one question takes up.
    each: Duration,
    /// What may be asked at once after a rest, as the time that it takes up.
    burst: Duration,
    /// The longest that anybody waits.
    longest: Duration,
    /// When all that was given out is used up.
    taken_until: Duration,
}

impl QueryLine {
    /// `per_second` questions (at least 1); a tenth of them may come at once. Nobody waits beyond `longest`.
    #[must_use]
    pub fn new(per_second: u32, longest: Duration) -> Self {
        Self {
            each: Duration::from_secs(1) / per_second.max(1),
            burst: Duration::from_millis(100),
            longest,
            taken_until: Duration::ZERO,
        }
    }

    /// Joins the line: when the question may be asked. `None` if that is too late; then nothing is taken.
    pub fn join(&mut self, now: Duration) -> Option<Duration> {
        let turn = self.taken_until.saturating_sub(self.burst).max(now);
        if turn - now > self.longest {
            return None;
        }
        self.taken_until = self.taken_until.max(now) + self.each;
        Some(turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LONGEST: Duration = Duration::from_millis(500);

    #[test]
    fn a_line_that_is_too_long_turns_away_and_takes_nothing() {
        let mut line = QueryLine::new(10, LONGEST);
        let turns: Vec<_> = (0..9).map(|_| line.join(Duration::ZERO).map(|t| t.as_millis())).collect();
        let given = [0, 0, 100, 200, 300, 400, 500].map(Some);
        assert_eq!(turns, [given.as_slice(), &[None, None]].concat());
        assert_eq!(line.join(Duration::from_millis(100)), Some(Duration::from_millis(600)));
        assert_eq!(line.join(Duration::from_secs(60)), Some(Duration::from_secs(60)));
    }

    proptest! {
        #[test]
        fn no_second_has_more_than_its_share_and_the_order_holds(
            rate in 1u32..2_000, steps in proptest::collection::vec(0u64..3_000, 1..2_000)
        ) {
            let mut line = QueryLine::new(rate, LONGEST);
            let (mut now, mut turns) = (Duration::ZERO, Vec::new());
            for step in steps {
                now += Duration::from_micros(step);
                if let Some(turn) = line.join(now) {
                    prop_assert!(turn >= now && turn - now <= LONGEST);
                    turns.push(turn);
                }
            }
            prop_assert!(turns.is_sorted());
            for (n, &start) in turns.iter().enumerate() {
                let end = turns.partition_point(|t| *t < start + Duration::from_secs(1));
                prop_assert!(end - n <= (rate + rate / 10 + 2) as usize);
            }
        }
    }
}
