//! A session on its way from one worker to another: what it shares with others over here is its own meanwhile.

use std::rc::Rc;

use super::freshness::Freshness;
use super::prepared::{ClientStatements, NOBODYS, Sense, SharedStatement, Statements, Told, Unnamed};
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

/// The prepared statements of a client on its way from one worker to another.
#[derive(Debug)]
pub struct PackedStatements {
    named: Vec<(Box<[u8]>, PackedStatement)>,
    generation: u64,
    unnamed: Unnamed,
}

#[derive(Debug)]
struct PackedStatement {
    text: Box<[u8]>,
    types: Box<[u8]>,
    sense: Sense,
    reading: Option<SettingsMap>,
    told: Option<Told>,
}

/// With more statements than this, or more bytes of them, a client stays where it is: to pack them takes time.
const MOST_PACKED: (usize, usize) = (256, 256 * 1024);

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

impl ClientStatements {
    /// Whether they may go to another worker: none stands on the session's own server, and they are not many.
    #[must_use]
    pub fn may_move(&self) -> bool {
        self.kept.as_ref().is_none_or(|kept| {
            kept.bound.is_empty() && kept.named.len() <= MOST_PACKED.0 && kept.bytes <= MOST_PACKED.1
        })
    }

    /// Packs them for another worker; those that [`Self::is_bound`] are lost.
    #[must_use]
    pub fn pack(self) -> PackedStatements {
        let kept = self.kept.unwrap_or_default();
        let pack = |(name, statement): (_, SharedStatement)| {
            let packed = PackedStatement {
                text: statement.text.clone(),
                types: statement.types.clone(),
                sense: statement.sense,
                reading: statement.reading.as_deref().cloned(),
                told: statement.told.get(),
            };
            (name, packed)
        };
        let named = kept.named.into_iter().map(pack).collect();
        PackedStatements { named, generation: kept.generation, unnamed: self.unnamed }
    }

    /// Unpacks them on the worker whose statements `table` has, and where `home` stands for the role and database.
    #[must_use]
    pub fn unpack(packed: PackedStatements, table: &mut Statements, home: u64) -> Self {
        let mut unpacked = Self { kept: None, unnamed: packed.unnamed };
        if unpacked.unnamed.number != 0 {
            unpacked.unnamed.number = table.number();
        }
        if !packed.named.is_empty() {
            let kept = unpacked.kept.get_or_insert_default();
            kept.generation = packed.generation;
            for (name, statement) in packed.named {
                let statement = statement.unpack(table, home);
                kept.bytes += statement.weight();
                kept.reading = kept.reading.and(&statement);
                kept.named.insert(name, statement);
            }
        }
        unpacked
    }
}

impl PackedStatement {
    fn unpack(self, table: &mut Statements, home: u64) -> SharedStatement {
        let shared = (self.sense.home != NOBODYS).then(|| {
            let sense = Sense { home, ..self.sense };
            table.intern_read_by(&self.text, &self.types, sense, self.reading.as_ref())
        });
        // Those who share one were all told the same of it. By definitions that have changed since, clients over there may
        // have been told otherwise.
        let agrees = |shared: &SharedStatement| match (self.told, shared.told.get()) {
            (Some(here), Some(there)) => here.shape == there.shape,
            _ => true,
        };
        let statement = shared
            .filter(agrees)
            .unwrap_or_else(|| table.own_read_by(&self.text, &self.types, self.reading.as_ref()));
        if let Some(here) = self.told {
            let there = statement.told.get().unwrap_or(here);
            let generation = here.generation.max(there.generation);
            statement.told.set(Some(Told { generation, ..there }));
        }
        statement
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

    #[test]
    fn statements_mean_the_same_on_another_worker() {
        let sense = |home, generation| Sense { home, settings: 1, generation };
        let (mut here, mut there) = (Statements::default(), Statements::default());
        // Numbers and names stand for something else over there.
        for text in [&b"select 3"[..], b"select 4", b"select 5"] {
            there.own(text, b"\0\0");
        }
        let known = there.intern(b"select 1", b"\0\0", sense(9, 1));
        let other = there.intern(b"select 2", b"\0\0", sense(9, 1));
        assert!(other.describe(22, 1));
        let mut client = ClientStatements::default();
        client.begin(1);
        for (name, text) in [(&b"a"[..], &b"select 1"[..]), (b"b", b"select 2")] {
            let statement = here.intern(text, b"\0\0", sense(4, 1));
            assert!(statement.describe(11, 1));
            client.insert(name, statement).unwrap();
        }
        client.insert(b"c", here.own(b"select now()", b"\0\0")).unwrap();
        client.set_unnamed(here.number(), b"select $1", b"\0\0");
        let taken = there.number();
        assert!(client.may_move());
        let moved = ClientStatements::unpack(client.pack(), &mut there, 9);
        let get = |name: &[u8]| moved.get(name).unwrap();
        // The same as others have over there; but not where they were told otherwise.
        assert!(Rc::ptr_eq(get(b"a"), &known) && !known.describe(12, 1));
        assert!(!Rc::ptr_eq(get(b"b"), &other) && get(b"b").describe(11, 1) && !get(b"b").describe(22, 1));
        assert!(other.describe(22, 1));
        assert_eq!(moved.text(b"b"), Some(&b"select 2"[..]));
        let again = there.own(b"select now()", b"\0\0");
        assert!(!Rc::ptr_eq(get(b"c"), &again) && again.name != get(b"c").name);
        assert_eq!((moved.len(), moved.text(b"")), (3, Some(&b"select $1"[..])));
        assert!(moved.unnamed.number > taken);
        assert!(!moved.are_older_than(1) && moved.are_older_than(2));
        // A client without any takes no room for them.
        let none = ClientStatements::unpack(ClientStatements::default().pack(), &mut there, 9);
        assert!(none.kept.is_none() && none.unnamed.number == 0);
    }

    #[test]
    fn many_statements_keep_a_client_where_it_is() {
        let mut table = Statements::default();
        let mut client = ClientStatements::default();
        for n in 0..MOST_PACKED.0 {
            client.insert(format!("{n}").as_bytes(), table.own(b"select 1", b"")).unwrap();
        }
        assert!(client.may_move());
        client.insert(b"one more", table.own(b"select 1", b"")).unwrap();
        assert!(!client.may_move());
        let mut client = ClientStatements::default();
        client.insert(b"long", table.own(&vec![b' '; MOST_PACKED.1 + 1], b"")).unwrap();
        assert!(!client.may_move());
        let mut client = ClientStatements::default();
        client.bind(b"by sql").unwrap();
        assert!(!client.may_move());
    }
}
