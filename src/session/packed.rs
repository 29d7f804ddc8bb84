//! A session on its way from one worker to another: what it shares with others over here is its own meanwhile.

use std::rc::Rc;

use super::freshness::Freshness;
use super::prepared::{ClientStatements, PackedStatements, Statements};
use super::settings::SettingsMap;
use super::state::{Bonds, LastRoute, Session};
use crate::route::{Level, RouteHint};
use crate::wire::server::Status;

/// All of a session that [`Session::may_move`].
#[derive(Debug)]
pub struct PackedSession {
    level: Level,
    default_level: Level,
    route: Option<RouteHint>,
    freshness: Freshness,
    statements: PackedStatements,
    settings: SettingsMap,
    /// `None` where it has the settings that it started with.
    base: Option<SettingsMap>,
    last: Option<LastRoute>,
}

impl Session {
    /// Whether it can go to another worker now: no transaction is under way, and nothing binds it to a server, as far as is
    /// known for certain.
    #[must_use]
    pub fn may_move(&self) -> bool {
        let idle = self.status == Status::Idle && self.lost.is_none() && !self.skipping;
        let free = self.pins.is_empty() && self.unbound.is_empty() && self.bonds == Bonds::Known;
        idle && free && self.changes.is_empty() && self.reported.is_empty() && self.statements.may_move()
    }

    /// Packs one that [`Self::may_move`].
    #[must_use]
    pub fn pack(self) -> PackedSession {
        debug_assert!(self.may_move());
        let is_changed = !Rc::ptr_eq(&self.settings, &self.base);
        PackedSession {
            level: self.level,
            default_level: self.default_level,
            route: self.route,
            freshness: self.freshness,
            statements: self.statements.pack(),
            base: is_changed.then(|| (*self.base).clone()),
            settings: Rc::unwrap_or_clone(self.settings),
            last: self.last,
        }
    }

    /// Unpacks one on a worker: see [`ClientStatements::unpack`].
    #[must_use]
    pub fn unpack(packed: PackedSession, table: &mut Statements, home: u64) -> Self {
        let settings = Rc::new(packed.settings);
        let base = packed.base.map_or_else(|| settings.clone(), Rc::new);
        Self {
            level: packed.level,
            default_level: packed.default_level,
            route: packed.route,
            freshness: packed.freshness,
            statements: ClientStatements::unpack(packed.statements, table, home),
            settings,
            last: packed.last,
            ..Self::new(base, packed.default_level, 0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::pins::Pins;
    use crate::session::transaction::Change;

    fn session() -> Session {
        let mut base = SettingsMap::default();
        base.set("application_name", b"SET application_name = 'a'", b"'a'").unwrap();
        Session::new(Rc::new(base), Level::Session, 3)
    }

    #[test]
    fn settings_and_level_come_along() {
        let mut session = session();
        session.level = Level::Eventual;
        session.route = Some(RouteHint::Primary);
        let mut table = Statements::default();
        let plain = Session::unpack(self::session().pack(), &mut table, 1);
        assert!(Rc::ptr_eq(&plain.settings, &plain.base) && *plain.base == *session.base);
        Rc::make_mut(&mut session.settings).set("search_path", b"SET search_path = s", b"s").unwrap();
        let (settings, base) = (session.settings.clone(), session.base.clone());
        let moved = Session::unpack(session.pack(), &mut table, 1);
        assert!(*moved.settings == *settings && *moved.base == *base && settings != base);
        assert_eq!((moved.level, moved.default_level), (Level::Eventual, Level::Session));
        assert_eq!((moved.route, moved.status), (Some(RouteHint::Primary), Status::Idle));
    }

    #[test]
    fn what_is_under_way_or_bound_keeps_a_session_where_it_is() {
        assert!(session().may_move());
        let stays: [fn(&mut Session); 7] = [
            |s| s.status = Status::Transaction,
            |s| s.pins.add(Pins::LISTEN),
            |s| s.unbound.add(Pins::LISTEN),
            |s| s.bonds = Bonds::InDoubt,
            |s| s.skipping = true,
            |s| s.changes.change(Change::Reset("search_path".into())),
            |s| s.reported.report(b"TimeZone", b"UTC"),
        ];
        for change in stays {
            let mut session = session();
            change(&mut session);
            assert!(!session.may_move());
        }
    }
}
