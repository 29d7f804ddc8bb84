//! What the database has said about roles, believed for a bounded time.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::role_secret::RoleSecret;

/// A role whose login has failed is believed for so long after it was asked for: nobody can have the same name asked
/// for more often.
pub const DOUBTED_TTL: Duration = Duration::from_secs(1);

/// A role as the database has it; `None` if there is none of that name.
pub type Known = Option<RoleSecret>;

/// Answers by role name. Names of no role are kept too, so that strangers cannot have them asked for again and again.
pub struct VerifierCache {
    entries: HashMap<Arc<str>, Entry>,
    /// The names by the number of their answer: the oldest first.
    by_age: BTreeMap<u64, Arc<str>>,
    answers: u64,
    ttl: Duration,
    capacity: usize,
}

struct Entry {
    number: u64,
    /// When it was asked for, not when the answer came: what changed in between may be missing.
    asked: Duration,
    /// When a login failed by it.
    doubted: Option<Duration>,
    known: Known,
}

impl Entry {
    fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.asked)
    }
}

impl VerifierCache {
    /// For `capacity` names (at least 1), each believed for `ttl` after it was asked for.
    #[must_use]
    pub fn new(ttl: Duration, capacity: usize) -> Self {
        Self { entries: HashMap::new(), by_age: BTreeMap::new(), answers: 0, ttl, capacity: capacity.max(1) }
    }

    /// What a login may go by without asking; `None` if the database is to be asked.
    #[must_use]
    pub fn believed(&self, user: &str, now: Duration) -> Option<Known> {
        let entry = self.entries.get(user)?;
        let ttl = if entry.doubted.is_some() { self.ttl.min(DOUBTED_TTL) } else { self.ttl };
        (entry.age(now) < ttl).then(|| entry.known.clone())
    }

    /// What a login may go by when the database cannot be asked: a doubted answer too, but none that is too old.
    #[must_use]
    pub fn last_resort(&self, user: &str, now: Duration) -> Option<Known> {
        let entry = self.entries.get(user)?;
        (entry.age(now) < self.ttl).then(|| entry.known.clone())
    }

    /// A login by what is known has failed: it may have changed.
    pub fn doubt(&mut self, user: &str, now: Duration) {
        if let Some(entry) = self.entries.get_mut(user) {
            entry.doubted = Some(now);
        }
    }

    /// Takes in the answer to what was asked at `asked`. When there is no room, the oldest answer goes.
    pub fn store(&mut self, user: &str, asked: Duration, known: Known) {
        self.answers += 1;
        let number = self.answers;
        let name: Arc<str> = user.into();
        let old = self.entries.remove(user);
        if let Some(old) = &old {
            self.by_age.remove(&old.number);
        }
        while self.entries.len() >= self.capacity {
            let Some((_, oldest)) = self.by_age.pop_first() else { break };
            self.entries.remove(&oldest);
        }
        // A login that failed after this was asked for tells something that the answer may not.
        let doubted = old.and_then(|old| old.doubted).filter(|at| *at >= asked);
        self.by_age.insert(number, name.clone());
        self.entries.insert(name, Entry { number, asked, doubted, known });
    }

    /// Drops what nobody may go by any more: no secret stays longer than it is of use.
    pub fn forget_old(&mut self, now: Duration) {
        let Self { entries, by_age, ttl, .. } = self;
        entries.retain(|_, entry| {
            let keep = entry.age(now) < *ttl;
            if !keep {
                by_age.remove(&entry.number);
            }
            keep
        });
    }
}

impl fmt::Debug for VerifierCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifierCache({})", self.entries.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TTL: Duration = Duration::from_secs(10);

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn role(password: &str) -> Known {
        Some(RoleSecret::new(Some(password), true, None, Duration::ZERO))
    }

    #[test]
    fn an_answer_is_believed_for_its_time_and_a_doubted_one_for_a_second() {
        let mut cache = VerifierCache::new(TTL, 10);
        assert_eq!(cache.believed("anna", at(0)), None);
        cache.store("anna", at(0), role("a"));
        cache.store("nobody", at(0), None);
        assert_eq!(cache.believed("anna", at(9_999)), Some(role("a")));
        assert_eq!(cache.believed("nobody", at(9_999)), Some(None));
        assert_eq!(cache.believed("anna", at(10_000)), None);
        cache.doubt("anna", at(500));
        assert_eq!(cache.believed("anna", at(999)), Some(role("a")), "not more often than once a second");
        assert_eq!(cache.believed("anna", at(1_000)), None);
        assert_eq!(cache.last_resort("anna", at(9_999)), Some(role("a")));
        assert_eq!(cache.last_resort("anna", at(10_000)), None);
        cache.store("anna", at(1_000), role("b"));
        assert_eq!(cache.believed("anna", at(10_999)), Some(role("b")));
    }

    #[test]
    fn a_doubt_outlives_an_answer_that_was_asked_for_before_it() {
        let mut cache = VerifierCache::new(TTL, 10);
        cache.store("anna", at(0), role("a"));
        cache.doubt("anna", at(2_000));
        cache.store("anna", at(1_999), role("a"));
        assert_eq!(cache.believed("anna", at(2_999)), None);
        cache.store("anna", at(3_000), role("b"));
        assert_eq!(cache.believed("anna", at(12_999)), Some(role("b")));
    }

    #[test]
    fn the_oldest_go_and_what_is_old_is_forgotten() {
        let mut cache = VerifierCache::new(TTL, 2);
        for (n, name) in ["a", "b", "a", "c"].into_iter().enumerate() {
            cache.store(name, at(n as u64), role(name));
        }
        let there = |cache: &VerifierCache, name| cache.believed(name, at(5)).is_some();
        assert!(there(&cache, "a") && !there(&cache, "b") && there(&cache, "c"));
        cache.forget_old(at(10_002));
        assert_eq!(format!("{cache:?}"), "VerifierCache(1)");
        assert_eq!(cache.by_age.len(), 1);
        assert_eq!(cache.last_resort("c", at(10_002)), Some(role("c")));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Pass(u64),
        Login(u8),
        Fail(u8),
        Forget,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0u64..4_000).prop_map(Step::Pass),
            (0u8..8).prop_map(Step::Login),
            (0u8..8).prop_map(Step::Fail),
            Just(Step::Forget),
        ];
        proptest::collection::vec(step, 1..400)
    }

    proptest! {
        /// Against a database whose every answer is the time at which it was asked.
        #[test]
        fn nobody_goes_by_what_is_too_old_and_no_name_is_asked_for_too_often(steps in steps()) {
            let mut cache = VerifierCache::new(TTL, 5);
            let mut now = Duration::ZERO;
            let mut asked: HashMap<String, Duration> = HashMap::new();
            let mut failed: HashMap<String, Duration> = HashMap::new();
            for step in steps {
                match step {
                    Step::Pass(ms) => now += at(ms),
                    Step::Fail(n) => {
                        cache.doubt(&n.to_string(), now);
                        failed.insert(n.to_string(), now);
                    }
                    Step::Forget => cache.forget_old(now),
                    Step::Login(n) => {
                        let name = n.to_string();
                        let last = asked.get(&name).copied();
                        match cache.believed(&name, now) {
                            Some(known) => {
                                let last = last.unwrap();
                                prop_assert_eq!(known, role(&last.as_millis().to_string()));
                                prop_assert!(now - last < TTL);
                                let fell_since = failed.get(&name).is_some_and(|f| *f >= last);
                                prop_assert!(!fell_since || now - last < DOUBTED_TTL);
                            }
                            None => {
                                // Only what was pushed out may be asked for sooner, and nobody remembers its doubts.
                                if !cache.entries.contains_key(name.as_str()) {
                                    failed.remove(&name);
                                } else if let Some(last) = last {
                                    prop_assert!(now - last >= DOUBTED_TTL);
                                }
                                cache.store(&name, now, role(&now.as_millis().to_string()));
                                asked.insert(name, now);
                            }
                        }
                    }
                }
                prop_assert!(cache.entries.len() <= 5);
                prop_assert_eq!(cache.entries.len(), cache.by_age.len());
            }
        }
    }
}
