//! The prepared statements that one server connection knows, and which of them makes room for another.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use foldhash::fast::RandomState;

use super::prepared::SharedStatement;

struct Known {
    statement: SharedStatement,
    used: u64,
    /// The use by which it stands in the queue.
    queued: u64,
}

/// The statements that one server connection knows.
#[derive(Default)]
pub struct ServerStatements {
    known: HashMap<u64, Known, RandomState>,
    /// Every statement's number behind a use of it, which need not be the last: so a use costs nothing here. One that
    /// comes to the front and was used since goes back to where its last use belongs. Those of statements that are
    /// gone stay until they come to the front, or are more than the others.
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    clock: u64,
    /// The number of the unnamed statement that it holds; 0 if none.
    pub unnamed: u64,
}

impl ServerStatements {
    /// Whether it knows the statement, which counts as a use.
    pub fn touch(&mut self, id: u64) -> bool {
        self.clock += 1;
        match self.known.get_mut(&id) {
            Some(known) => {
                known.used = self.clock;
                true
            }
            None => false,
        }
    }

    /// Whether it knows the statement.
    #[must_use]
    pub fn knows(&self, id: u64) -> bool {
        self.known.contains_key(&id)
    }

    /// It will know the statement from now on.
    pub fn insert(&mut self, statement: SharedStatement) {
        self.clock += 1;
        let (id, used) = (statement.id, self.clock);
        self.known.insert(id, Known { statement, used, queued: used });
        if self.queue.len() >= 2 * self.known.len() + 16 {
            self.queue
                .retain(|Reverse((queued, id))| self.known.get(id).is_some_and(|k| k.queued == *queued));
        }
        self.queue.push(Reverse((used, id)));
    }

    /// It does not know the statement (any more).
    pub fn remove(&mut self, id: u64) {
        self.known.remove(&id);
    }

    /// It knows none, as after DEALLOCATE ALL.
    pub fn clear(&mut self) {
        self.known.clear();
        self.queue.clear();
        self.unnamed = 0;
    }

    /// Takes out the one that was not used for longest, if more than `limit` are known.
    pub fn evict(&mut self, limit: usize) -> Option<SharedStatement> {
        if self.known.len() <= limit {
            return None;
        }
        loop {
            let Reverse((queued, id)) = self.queue.pop()?;
            let Some(known) = self.known.get_mut(&id).filter(|known| known.queued == queued) else {
                continue;
            };
            if known.used == queued {
                return self.known.remove(&id).map(|known| known.statement);
            }
            known.queued = known.used;
            self.queue.push(Reverse((known.used, id)));
        }
    }

    /// How many are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

impl std::fmt::Debug for ServerStatements {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerStatements").field("known", &self.known.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Statements;
    use crate::session::prepared::Sense;
    use proptest::prelude::*;

    fn statements(count: usize) -> Vec<SharedStatement> {
        let mut table = Statements::default();
        (0..count)
            .map(|n| table.intern(format!("select {n}").as_bytes(), b"\0\0", Sense::default()))
            .collect()
    }

    #[test]
    fn a_server_forgets_what_was_not_used_for_longest() {
        let all = statements(4);
        let mut server = ServerStatements::default();
        for s in &all {
            server.insert(s.clone());
        }
        assert!(server.touch(all[0].id));
        let out: Vec<_> = std::iter::from_fn(|| server.evict(1)).map(|s| s.id).collect();
        assert_eq!(out, [all[1].id, all[2].id, all[3].id]);
        assert!(server.touch(all[0].id));
    }

    /// With a walk over all statements for each that makes room this would not end.
    #[test]
    fn no_walk_over_all_statements_finds_the_one_that_goes() {
        let all = statements(30_001);
        let mut server = ServerStatements::default();
        for s in &all {
            server.insert(s.clone());
        }
        for s in all.iter().cycle().take(200_000) {
            assert_eq!(server.evict(30_000).map(|old| old.id), Some(s.id));
            server.insert(s.clone());
        }
    }

    #[test]
    fn what_is_gone_leaves_nothing_behind() {
        let all = statements(3);
        let mut server = ServerStatements::default();
        for s in all.iter().cycle().take(10_000) {
            server.insert(s.clone());
            server.remove(s.id);
            assert!(server.queue.len() <= 18, "{}", server.queue.len());
        }
    }

    proptest! {
        #[test]
        fn the_order_of_use_is_kept(
            steps in proptest::collection::vec((0usize..4, 0usize..8), 1..200),
        ) {
            let all = statements(8);
            let mut server = ServerStatements::default();
            let mut order: Vec<u64> = Vec::new();
            for (what, n) in steps {
                let id = all[n].id;
                let knew = order.contains(&id);
                match what {
                    0 | 1 if !knew => {
                        server.insert(all[n].clone());
                        order.push(id);
                    }
                    0 | 1 => {
                        prop_assert!(server.touch(id));
                        order.retain(|other| *other != id);
                        order.push(id);
                    }
                    2 => {
                        server.remove(id);
                        order.retain(|other| *other != id);
                    }
                    _ => {
                        let gone = (order.len() > 3).then(|| order.remove(0));
                        prop_assert_eq!(server.evict(3).map(|s| s.id), gone);
                    }
                }
                prop_assert_eq!(server.len(), order.len());
            }
        }
    }
}
