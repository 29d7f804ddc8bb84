//! State that cannot move to another server, and binds a session to the one it is on.

use crate::sql::{Command, Effects, command::Discard};

/// Kinds of state that a server connection holds for a session: a set of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pins(u16);

impl Pins {
    /// Temporary tables.
    pub const TEMPORARY: Self = Self(1);
    /// Session-level advisory locks.
    pub const ADVISORY_LOCK: Self = Self(1 << 1);
    /// LISTEN.
    pub const LISTEN: Self = Self(1 << 2);
    /// Cursors WITH HOLD.
    pub const HOLD_CURSOR: Self = Self(1 << 3);
    /// LOAD.
    pub const LOAD: Self = Self(1 << 4);
    /// SQL PREPARE.
    pub const SQL_PREPARE: Self = Self(1 << 5);
    /// A setting changed, and it cannot be told which.
    pub const SETTINGS: Self = Self(1 << 6);
    /// `setseed`.
    pub const SEED: Self = Self(1 << 7);
    /// A function of another database's making (dblink and its kin) that keeps connections.
    pub const EXTERNAL: Self = Self(1 << 8);

    /// A replication connection.
    pub const REPLICATION: Self = Self(1 << 9);

    /// Those of which a server can tell whether they are there: see [`crate::relay::what_binds`].
    pub const TOLD_BY_SERVER: Self =
        Self(Self::TEMPORARY.0 | Self::ADVISORY_LOCK.0 | Self::LISTEN.0 | Self::HOLD_CURSOR.0);

    /// How many kinds there are.
    pub const KINDS: usize = 10;

    /// The names of all kinds, in the order of their bits.
    pub const ALL_NAMES: [&'static str; Self::KINDS] = [
        "temporary",
        "advisory_lock",
        "listen",
        "hold_cursor",
        "load",
        "sql_prepare",
        "settings",
        "seed",
        "external",
        "replication",
    ];

    /// Whether nothing binds the session.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Adds those of `other`.
    pub fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Takes those of `other` away.
    pub fn remove(&mut self, other: Self) {
        self.0 &= !other.0;
    }

    /// Whether any of `other` is there.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Those that both have.
    #[must_use]
    pub const fn of_both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What a statement with these effects leaves on its server.
    #[must_use]
    pub fn of(effects: Effects) -> Self {
        let mut pins = Self::default();
        for (effect, pin) in [
            (Effects::TEMPORARY, Self::TEMPORARY),
            (Effects::ADVISORY_LOCK, Self::ADVISORY_LOCK),
            (Effects::HOLD_CURSOR, Self::HOLD_CURSOR),
            (Effects::LOAD, Self::LOAD),
            (Effects::UNKNOWN_SETTINGS, Self::SETTINGS),
            (Effects::SEED, Self::SEED),
            (Effects::EXTERNAL, Self::EXTERNAL),
        ] {
            if effects.has(effect) {
                pins.add(pin);
            }
        }
        pins
    }

    /// Of what a text with these effects leaves on its server, what stays there even if it fails.
    #[must_use]
    pub fn kept_by_errors(effects: Effects) -> Self {
        let mut pins = Self::of(effects);
        pins.0 &= Self::ADVISORY_LOCK.0 | Self::SEED.0 | Self::LOAD.0 | Self::EXTERNAL.0;
        pins
    }

    /// What a statement binds and what it sets free: `(added, removed)`.
    #[must_use]
    pub fn change(command: &Command<'_>, effects: Effects) -> (Self, Self) {
        let none = Self::default();
        match command {
            Command::Listen(_) => (Self::LISTEN, none),
            Command::Unlisten(None) => (none, Self::LISTEN),
            Command::Unlisten(Some(_)) => (none, none),
            Command::Prepare(_) => (Self::SQL_PREPARE, none),
            Command::Deallocate(None) => (none, Self::SQL_PREPARE),
            Command::Discard(Discard::Temp) => (none, Self::TEMPORARY),
            // LOAD cannot be undone, and DISCARD ALL does not reset a seed.
            Command::Discard(Discard::All) => {
                let mut freed = Self(u16::MAX);
                freed.remove(Self::LOAD);
                freed.remove(Self::SEED);
                freed.remove(Self::EXTERNAL);
                (none, freed)
            }
            _ => (Self::of(effects), none),
        }
    }

    /// The indices in [`Self::ALL_NAMES`] of those that are there.
    pub fn kinds(self) -> impl Iterator<Item = usize> {
        (0..Self::KINDS).filter(move |kind| self.0 & (1 << kind) != 0)
    }

    /// The names of those that are there, for metrics and `SHOW tidegate.pins`.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        self.kinds().filter_map(|kind| Self::ALL_NAMES.get(kind).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_binds_and_what_frees() {
        let mut pins = Pins::default();
        let (added, _) = Pins::change(&Command::Listen(b"x"), Effects::LISTEN);
        pins.add(added);
        pins.add(Pins::of(Effects::TEMPORARY.with(Effects::SEED)));
        assert_eq!(pins.names().collect::<Vec<_>>(), ["temporary", "listen", "seed"]);
        let (_, freed) = Pins::change(&Command::Discard(Discard::All), Effects::SETTINGS);
        pins.remove(freed);
        assert_eq!(pins.names().collect::<Vec<_>>(), ["seed"]);
    }
}
