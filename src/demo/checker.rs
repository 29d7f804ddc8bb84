//! Judges what sessions read: whether they see their own writes, and never go back.

use std::collections::HashMap;

/// What one session knows.
#[derive(Clone, Debug, Default)]
pub struct Checker {
    /// Per key, the last value that this session has written and heard to be committed.
    written: HashMap<i64, i64>,
    /// Per key, the highest value that this session has read.
    read: HashMap<i64, i64>,
}

/// What is wrong with a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// It is older than the session's own write.
    OwnWrite {
        /// What was written.
        written: i64,
        /// What was read.
        read: i64,
    },
    /// It is older than what the session has read before.
    WentBack {
        /// What was read before.
        before: i64,
        /// What was read now.
        now: i64,
    },
}

impl Checker {
    /// The session has written `value`, which is more than any other value of that key before.
    pub fn wrote(&mut self, key: i64, value: i64) {
        let last = self.written.entry(key).or_default();
        *last = value.max(*last);
    }

    /// The session has read `value`.
    ///
    /// # Errors
    /// It should have read a later one.
    pub fn read(&mut self, key: i64, value: i64) -> Result<(), Stale> {
        let written = self.written.get(&key).copied().unwrap_or_default();
        let before = self.read.get(&key).copied().unwrap_or_default();
        let last = self.read.entry(key).or_default();
        *last = value.max(*last);
        if value < written {
            Err(Stale::OwnWrite { written, read: value })
        } else if value < before {
            Err(Stale::WentBack { before, now: value })
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_stale_reads_are_told() {
        let mut checker = Checker::default();
        checker.wrote(1, 5);
        assert_eq!(checker.read(1, 4), Err(Stale::OwnWrite { written: 5, read: 4 }));
        assert_eq!(checker.read(1, 5), Ok(()));
        assert_eq!(checker.read(2, 9), Ok(()));
        assert_eq!(checker.read(2, 8), Err(Stale::WentBack { before: 9, now: 8 }));
        assert_eq!(checker.read(2, 9), Ok(()));
    }
}
