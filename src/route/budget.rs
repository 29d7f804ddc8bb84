//! How many reads for which no replica is fresh enough the primary may be given: a token bucket.

use std::time::Duration;

/// Fills at a steady rate, up to one second's worth.
#[derive(Clone, Debug)]
pub struct Budget {
    /// Tokens per second; `None` for no limit.
    rate: Option<f64>,
    tokens: f64,
    filled: Duration,
}

impl Budget {
    /// One worker's share of `per_second`, which `shares` workers divide among them.
    #[must_use]
    pub fn new(per_second: Option<u32>, shares: usize) -> Self {
        let rate = per_second.map(|n| f64::from(n) / f64::from(u32::try_from(shares.max(1)).unwrap_or(1)));
        Self { rate, tokens: rate.unwrap_or_default().max(1.0), filled: Duration::ZERO }
    }

    /// Takes a token if there is one.
    pub fn take(&mut self, now: Duration) -> bool {
        let Some(rate) = self.rate else { return true };
        let passed = now.saturating_sub(self.filled).as_secs_f64();
        self.filled = self.filled.max(now);
        self.tokens = (self.tokens + passed * rate).min(rate.max(1.0));
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_second_is_given_more_than_twice_its_budget(
            rate in 1u32..1000, steps in proptest::collection::vec(0u64..5000, 1..2000)
        ) {
            let mut budget = Budget::new(Some(rate), 1);
            let mut now = Duration::ZERO;
            let mut taken = Vec::new();
            for step in steps {
                now += Duration::from_micros(step);
                if budget.take(now) {
                    taken.push(now);
                }
            }
            for &start in &taken {
                let n = taken.iter().filter(|t| **t >= start && **t < start + Duration::from_secs(1)).count();
                prop_assert!(n <= 2 * rate as usize + 1);
            }
        }
    }

    #[test]
    fn no_limit_is_no_limit() {
        let mut budget = Budget::new(None, 4);
        assert!((0..10_000).all(|_| budget.take(Duration::ZERO)));
        let mut none = Budget::new(Some(0), 1);
        assert!(none.take(Duration::ZERO));
        assert!(!none.take(Duration::from_secs(100)));
    }
}
