//! What the names in a statement stand for: answered by a database's catalog.

/// What is known of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every object of that name may be used in a read on a replica.
    Safe,
    /// Some object of that name must not be used on a replica.
    Unsafe,
    /// No object of that name is known.
    Unknown,
}

/// Answers what a name stands for. Names come as PostgreSQL folds them: lower case unless quoted,
/// cut to 63 bytes.
pub trait Names {
    /// A number that no other set of names has: what was found with these names holds as long as it is the same.
    /// 0 stands for names that may change.
    fn version(&self) -> u64 {
        0
    }

    /// A name used as a function: `Unknown` sends the statement to the primary.
    fn function(&self, name: &[u8]) -> Verdict;

    /// Any other name: only `Unsafe` (unlogged table, sequence, a view or RLS table that reaches a
    /// volatile function) sends the statement to the primary.
    fn relation(&self, name: &[u8]) -> Verdict;

    /// Whether some function or procedure of that name contains code that changes settings of the session.
    fn sets(&self, _name: &[u8]) -> bool {
        false
    }

    /// Whether some function or procedure of that name contains code that may leave what binds a session to its server:
    /// locks, temporary tables, cursors, LISTEN.
    fn binds(&self, _name: &[u8]) -> bool {
        false
    }

    /// Whether writing to some relation of that name runs code (triggers, defaults, checks) that changes settings of the
    /// session or may leave what binds it.
    fn hides(&self, _name: &[u8]) -> bool {
        false
    }

    /// Whether a function of that name may have come since these names were read: it may do anything.
    fn may_be_new(&self, _name: &[u8]) -> bool {
        false
    }

    /// Whether some function of the user's of that name is unsafe, whatever is known of PostgreSQL's own.
    fn is_users(&self, _name: &[u8]) -> bool {
        false
    }

    /// Whether the user's functions are known at all.
    fn knows_users(&self) -> bool {
        true
    }

    /// Whether this word, as written without quotes, can be told at a glance to be [`Verdict::Safe`] as a relation.
    fn is_plain(&self, _word: &[u8]) -> bool {
        false
    }

    /// The same for a name behind a dot: neither as a relation nor as [`Self::attribute`] does it matter, and as a
    /// function it would be no special one.
    fn is_plain_attribute(&self, _word: &[u8]) -> bool {
        false
    }

    /// A name behind a dot that is not called: `t.f` is `f(t)` if `t` has no column `f`, and
    /// `(1).f` is `f(1)`. Only `Unsafe` sends the statement to the primary.
    fn attribute(&self, name: &[u8]) -> Verdict {
        match self.function(name) {
            Verdict::Unsafe => Verdict::Unsafe,
            Verdict::Safe | Verdict::Unknown => Verdict::Safe,
        }
    }

    /// An operator, as written: only `Unsafe` sends the statement to the primary.
    fn operator(&self, _symbol: &[u8]) -> Verdict {
        Verdict::Safe
    }
}
