//! The closed list of reasons for a route: metric label, log field, admin column, `SHOW tidegate.last_route`.

use crate::sql::Reason;

/// Why a unit went where it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// A read, on a replica that is fresh enough for its session.
    Read,
    /// A transaction that was declared read only, on a replica.
    ReadOnlyTransaction,
    /// A hint told so.
    Hint,
    /// The text is not proven to be a read.
    Statement(Reason),
    /// The session is bound to the primary by state that cannot move.
    Pinned,
    /// This text was refused by a standby before.
    Learned,
    /// A standby refused this unit just now, and the primary ran it.
    Healed,
    /// No replica had replayed what the session must see.
    NotFresh,
    /// No replica is up.
    NoReplica,
    /// The database's catalog has not been read yet.
    CatalogUnknown,
    /// The unit was too large, or was flushed before its Sync, so that it could not be judged as a whole.
    Unjudged,
}

impl Why {
    /// Every value, in the order of [`Why::index`].
    pub const ALL: [Self; 19] = [
        Self::Read,
        Self::ReadOnlyTransaction,
        Self::Hint,
        Self::Pinned,
        Self::Learned,
        Self::Healed,
        Self::NotFresh,
        Self::NoReplica,
        Self::CatalogUnknown,
        Self::Unjudged,
        Self::Statement(Reason::Write),
        Self::Statement(Reason::Lock),
        Self::Statement(Reason::Function),
        Self::Statement(Reason::UnknownFunction),
        Self::Statement(Reason::Relation),
        Self::Statement(Reason::SessionState),
        Self::Statement(Reason::Transaction),
        Self::Statement(Reason::Unrecognised),
        Self::Statement(Reason::Mixed),
    ];

    /// Its place in [`Why::ALL`], for tables of counters.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::Read => 0,
            Self::ReadOnlyTransaction => 1,
            Self::Hint => 2,
            Self::Pinned => 3,
            Self::Learned => 4,
            Self::Healed => 5,
            Self::NotFresh => 6,
            Self::NoReplica => 7,
            Self::CatalogUnknown => 8,
            Self::Unjudged => 9,
            Self::Statement(Reason::Write) => 10,
            Self::Statement(Reason::Lock) => 11,
            Self::Statement(Reason::Function) => 12,
            Self::Statement(Reason::UnknownFunction) => 13,
            Self::Statement(Reason::Relation) => 14,
            Self::Statement(Reason::SessionState) => 15,
            Self::Statement(Reason::Transaction) => 16,
            Self::Statement(Reason::Unrecognised) => 17,
            Self::Statement(Reason::Mixed) => 18,
        }
    }

    /// The label in metrics, logs and `SHOW tidegate.last_route`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::ReadOnlyTransaction => "read_only_transaction",
            Self::Hint => "hint",
            Self::Statement(reason) => reason.label(),
            Self::Pinned => "pinned",
            Self::Learned => "learned",
            Self::Healed => "healed",
            Self::NotFresh => "not_fresh",
            Self::NoReplica => "no_replica",
            Self::CatalogUnknown => "catalog_unknown",
            Self::Unjudged => "unjudged",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_is_the_place_in_all_and_labels_differ() {
        let mut labels = std::collections::HashSet::new();
        for (place, why) in Why::ALL.into_iter().enumerate() {
            assert_eq!(why.index(), place);
            assert!(labels.insert(why.label()));
        }
    }
}
