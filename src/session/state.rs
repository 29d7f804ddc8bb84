//! Everything that is kept of one client between its units.

use std::rc::Rc;

use super::collect::Unit;
use super::freshness::Freshness;
use super::notes::Note;
use super::pins::Pins;
use super::prepared::ClientStatements;
use super::reported::Reported;
use super::settings::{Full, SettingsMap};
use super::transaction::Changes;
use crate::lsn::Token;
use crate::route::{Level, RouteHint, Why};
use crate::sql::{Dialect, Effects};
use crate::topology::{NodeId, Role};
use crate::wire::server::Status;

/// Where the previous unit ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastRoute {
    /// The node.
    pub node: NodeId,
    /// What it was then.
    pub role: Role,
    /// Why it was chosen.
    pub why: Why,
}

/// A transaction whose server is gone: nothing but its end may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The client does not know yet: its next statement is answered with the reason.
    Untold,
    /// The client knows.
    Told,
}

/// One client's session.
#[derive(Debug)]
pub struct Session {
    /// What its reads must show.
    pub level: Level,
    /// The level that `RESET tidegate.consistency` goes back to.
    pub default_level: Level,
    /// `SET tidegate.route`.
    pub route: Option<RouteHint>,
    /// What it has written and read.
    pub freshness: Freshness,
    /// Its prepared statements.
    pub statements: ClientStatements,
    /// Its settings.
    pub settings: Rc<SettingsMap>,
    /// What it started with.
    pub base: Rc<SettingsMap>,
    /// Changes of settings that wait for their transaction's end.
    pub changes: Changes,
    /// Changes of settings that its servers report.
    pub reported: Reported,
    /// What binds it to a server.
    pub pins: Pins,
    /// What no longer binds it once the transaction under way has committed.
    pub unbound: Pins,
    /// How far `pins` can be gone by.
    pub bonds: Bonds,
    /// Its transaction's status, as the client knows it.
    pub status: Status,
    /// Its transaction's server is gone.
    pub lost: Option<Lost>,
    /// A pipeline has failed: what comes is dropped up to its Sync.
    pub skipping: bool,
    /// Where its previous unit ran.
    pub last: Option<LastRoute>,
}

/// Whether it is known what binds a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bonds {
    /// Its pins say so.
    #[default]
    Known,
    /// Its pins may say too much or too little: its server can tell when no transaction is under way.
    InDoubt,
}

/// What the server connection must learn from a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerChange {
    /// Nothing.
    None,
    /// It has no prepared statements any more.
    NoStatements,
    /// It has neither prepared statements nor settings any more.
    Bare,
}

impl Session {
    /// A session that has just logged in with the settings `base`; `round` tells where its reads begin.
    #[must_use]
    pub fn new(base: Rc<SettingsMap>, level: Level, round: u16) -> Self {
        Self {
            level,
            default_level: level,
            route: None,
            freshness: Freshness::new(round),
            statements: ClientStatements::default(),
            settings: base.clone(),
            base,
            changes: Changes::default(),
            reported: Reported::default(),
            pins: Pins::default(),
            unbound: Pins::default(),
            bonds: Bonds::default(),
            status: Status::Idle,
            lost: None,
            skipping: false,
            last: None,
        }
    }

    /// How its server reads literals.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        Dialect { standard_conforming_strings: !self.settings.marks().escaped_strings }
    }

    /// Whether its texts cannot be judged: in its client encoding a quote may be part of a character.
    #[must_use]
    pub fn hides_ascii(&self) -> bool {
        self.settings.marks().hides_ascii
    }

    /// Whether a plain BEGIN of this session is READ ONLY.
    #[must_use]
    pub fn default_read_only(&self) -> bool {
        self.settings.marks().read_only
    }

    /// Whether every transaction of this session is SERIALIZABLE, which no standby takes.
    #[must_use]
    pub fn default_serializable(&self) -> bool {
        self.settings.marks().serializable
    }

    /// A statement has completed with that command tag: makes its change. `server` is what is in force on the
    /// server connection that ran it.
    pub fn note(&mut self, note: Note, tag: &[u8], server: &mut Rc<SettingsMap>) -> ServerChange {
        match note {
            Note::Change(change) => {
                self.reported.note(&change);
                self.changes.change(change);
            }
            Note::Savepoint(name) => self.changes.savepoint(name),
            Note::Release(name) => self.changes.release(&name),
            Note::RollbackTo(name) => {
                // Whether it was before the savepoint or behind it is not remembered: bound is the safe side.
                self.unbound = Pins::default();
                self.changes.rollback_to(&name);
            }
            Note::TransactionEnd if tag.starts_with(b"COMMIT") => self.commit(server),
            Note::TransactionEnd => {
                self.unbound = Pins::default();
                self.changes.rollback();
            }
            Note::Pins { add, remove } => {
                self.pins.add(add);
                self.unbound.remove(add);
                self.unbound.add(remove);
            }
            Note::Prepared(name) => {
                if self.statements.bind(&name).is_err() {
                    // More than we follow: from here on only its own server knows what there is.
                    self.pins.add(Pins::SETTINGS);
                }
            }
            Note::Deallocated(name) => {
                self.statements.unbind(&name);
            }
            Note::DeallocateAll => {
                self.statements.clear();
                return ServerChange::NoStatements;
            }
            Note::DiscardAll => {
                self.statements.clear();
                self.changes.rollback();
                self.reported.note_all();
                self.settings = self.base.clone();
                return ServerChange::Bare;
            }
        }
        ServerChange::None
    }

    /// A unit has ended, on a session that was bound by `before`.
    pub fn doubt(&mut self, unit: &Unit, before: Pins) {
        let effects = unit.verdict.effects;
        let told = |pins: Pins| pins.of_both(Pins::TOLD_BY_SERVER);
        // What a transaction has made may be gone with it, or at its end; what was tried for may not have been got.
        let changed = told(self.pins) != told(before);
        let released = effects.has(Effects::RELEASES) && !self.pins.is_empty();
        // What prepared statements have left was not looked for while there were any.
        let freed = self.pins.is_empty() && !before.is_empty();
        // Code that is not known to be harmless, or text that nobody has read, may have done anything.
        let hidden = effects.has(Effects::HIDDEN) || !unit.is_judged();
        if changed || released || freed || hidden {
            self.bonds = Bonds::InDoubt;
        }
    }

    /// A server has told what of [`Pins::TOLD_BY_SERVER`] is there.
    pub fn told_bonds(&mut self, there: Pins) {
        self.pins.remove(Pins::TOLD_BY_SERVER);
        self.pins.add(there);
        self.unbound = Pins::default();
        self.bonds = Bonds::Known;
    }

    /// The transaction, implicit or not, has committed.
    fn commit(&mut self, server: &mut Rc<SettingsMap>) {
        self.pins.remove(std::mem::take(&mut self.unbound));
        if self.changes.any_change() {
            let base = self.base.clone();
            // On the server RESET goes back to its own default, not to what the session started with.
            let result = self.changes.clone().commit(Rc::make_mut(server), &SettingsMap::default());
            let result = result.and(self.changes.commit(Rc::make_mut(&mut self.settings), &base));
            if result == Err(Full) {
                // More than we follow: from here on only its own server knows what is set.
                self.pins.add(Pins::SETTINGS);
            }
        } else {
            self.changes.rollback();
        }
    }

    /// The server of the transaction is gone, and with it the transaction.
    pub fn lose(&mut self, lost: Lost) {
        self.status = Status::Failed;
        self.lost = Some(lost);
        self.abandon();
    }

    /// What was under way on a server that is gone has no effect.
    pub fn abandon(&mut self) {
        self.unbound = Pins::default();
        self.reported = Reported::default();
        self.changes.rollback();
    }

    /// The client has ended the transaction that was lost.
    pub fn end_lost(&mut self) {
        self.status = Status::Idle;
        self.lost = None;
    }

    /// A unit has ended: the server is ready again. `server` is what is in force on its connection.
    pub fn ready(&mut self, status: Status, failed: bool, server: &mut Rc<SettingsMap>) {
        self.status = status;
        if status == Status::Idle && (!self.changes.is_empty() || !self.unbound.is_empty()) {
            if failed {
                self.unbound = Pins::default();
                self.changes.rollback();
            } else {
                self.commit(server);
            }
        }
        if self.pins.has(Pins::SQL_PREPARE) && !self.statements.is_bound() {
            self.pins.remove(Pins::SQL_PREPARE);
        }
        if status == Status::Idle && !self.reported.is_empty() {
            self.follow_reports(server);
        }
    }

    /// Makes what a function has set the session's own, so that it goes with it and stays with nobody else.
    fn follow_reports(&mut self, server: &mut Rc<SettingsMap>) {
        for (name, value) in self.reported.take() {
            if self.settings.value(name) == Some(&*value) && server.value(name) == Some(&*value) {
                continue;
            }
            let settings = Rc::make_mut(&mut self.settings).set_startup(name, &value);
            if settings.and(Rc::make_mut(server).set_startup(name, &value)).is_err() {
                self.pins.add(Pins::SETTINGS);
            }
        }
    }

    /// Takes another map with the same settings in place of its own.
    pub fn share_settings(&mut self, equal: &Rc<SettingsMap>) {
        if Rc::ptr_eq(&self.base, &self.settings) {
            self.base = equal.clone();
        }
        self.settings = equal.clone();
    }

    /// What `SHOW tidegate.token` says.
    #[must_use]
    pub fn token(&self) -> Token {
        self.freshness.need()
    }
}
