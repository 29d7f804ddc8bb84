//! Prepared statements: the names that clients use, and the ones that they have on servers.
//!
//! A statement is known to servers under a name of ours, which all sessions share that mean the same by it: the same text
//! and parameter types in the same [`Sense`]. So it is parsed once per server connection.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::rc::{Rc, Weak};

use foldhash::fast::RandomState;

use super::known::Findings;
use super::settings::SettingsMap;

/// The most prepared statements that one client may have.
pub const MAX_PER_CLIENT: usize = 16_384;

/// The most bytes of text, and of settings by which that is read, that the prepared statements of one client may have.
pub const MAX_BYTES_PER_CLIENT: usize = 64 * 1024 * 1024;

/// The first letters of every server-side name.
pub const PREFIX: &[u8] = b"tidegate_";

/// A statement that servers know under one name.
#[derive(Debug)]
pub struct Shared {
    /// Its number, unique in this worker.
    pub id: u64,
    /// Its name on servers.
    pub name: Box<[u8]>,
    /// Its text.
    pub text: Box<[u8]>,
    /// Count and oids of the parameter types as in its Parse message.
    pub types: Box<[u8]>,
    /// What was found out about its text.
    pub findings: Findings,
    pub(super) sense: Sense,
    /// See [`SettingsMap::reading`]; `None` if nobody knows by what it was read.
    pub(super) reading: Option<Rc<SettingsMap>>,
    pub(super) told: Cell<Option<Told>>,
}

/// By what a text means what it means, its names and its literals: statements of one text are the same only where this is
/// the same, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sense {
    /// The role that logged in and the database.
    pub home: u64,
    /// [`super::SettingsMap::plan_key`].
    pub settings: u64,
    /// The generation of the database's definitions.
    pub generation: u64,
}

/// What clients were told of a statement's result, by which they read its rows from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// See [`crate::wire::server::row_shape`].
    pub(super) shape: u64,
    /// When that was last seen to be so: the generation of the database's definitions.
    pub(super) generation: u64,
}

/// The [`Sense::home`] of statements that are shared with nobody: no role in a database has this number.
pub(super) const NOBODYS: u64 = u64::MAX;

impl Shared {
    /// Whether, parsed by these settings, it is what all mean by it who share it.
    #[must_use]
    pub fn is_meant_under(&self, settings: &SettingsMap) -> bool {
        self.is_own() || self.sense.settings == settings.plan_key()
    }

    /// Whether these settings have statements read otherwise than it was read when it was prepared.
    #[must_use]
    pub fn is_read_otherwise(&self, settings: &SettingsMap) -> bool {
        self.reading.as_ref().is_some_and(|reading| reading.reading_key() != settings.reading_key())
    }

    /// The settings by which a server is to parse it, if others than these, which are in force.
    #[must_use]
    pub fn parsed_by(&self, settings: &SettingsMap) -> Option<SettingsMap> {
        let reading = self.reading.as_ref().filter(|_| self.is_read_otherwise(settings))?;
        let parsed_by = settings.reading_as(reading);
        (parsed_by.reading_key() != settings.reading_key()).then_some(parsed_by)
    }

    /// Whether it is shared with nobody.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.sense.home == NOBODYS
    }

    /// So many bytes it counts for.
    pub(super) fn weight(&self) -> usize {
        self.text.len() + self.reading.as_ref().map_or(0, |reading| reading.bytes())
    }

    /// A server describes the result. `false` if clients were told otherwise before: PostgreSQL refuses to run such a
    /// statement ("cached plan must not change result type").
    pub fn describe(&self, shape: u64, generation: u64) -> bool {
        let told = self.told.get().unwrap_or(Told { shape, generation });
        if told.shape == shape {
            self.told.set(Some(Told { shape, generation }));
        }
        told.shape == shape
    }

    /// Whether its result may no longer be what clients were told, for a server that has yet to parse it.
    #[must_use]
    pub fn is_in_doubt(&self, generation: u64) -> bool {
        self.told.get().is_some_and(|told| told.generation != generation)
    }
}

/// A statement together with everyone who uses it.
pub type SharedStatement = Rc<Shared>;

/// A name in SQL, as the protocol has it: folded unless quoted.
#[must_use]
pub fn fold_statement_name(name: &[u8]) -> Vec<u8> {
    match name {
        [b'"', inner @ .., b'"'] => {
            let mut out = Vec::with_capacity(inner.len());
            let mut quote = false;
            for &byte in inner {
                quote = byte == b'"' && !quote;
                if !quote {
                    out.push(byte);
                }
            }
            out
        }
        _ => name.to_ascii_lowercase(),
    }
}

/// All statements of one worker, found by what they are.
#[derive(Debug, Default)]
pub struct Statements {
    by_key: HashMap<u64, Vec<Weak<Shared>>, RandomState>,
    hasher: RandomState,
    next: u64,
    sweep_at: usize,
    /// By what the last new one is read: most are read like that.
    reading: Rc<SettingsMap>,
}

impl Statements {
    /// The statement of that text and types, in that sense; made if it is new.
    pub fn intern(&mut self, text: &[u8], types: &[u8], sense: Sense) -> SharedStatement {
        self.intern_read_by(text, types, sense, None)
    }

    /// The same, with the settings by which it is read.
    pub fn intern_read_by(
        &mut self,
        text: &[u8],
        types: &[u8],
        sense: Sense,
        settings: Option<&SettingsMap>,
    ) -> SharedStatement {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(text);
        hasher.write(types);
        sense.hash(&mut hasher);
        let key = hasher.finish();
        let same = |s: &Shared| *s.text == *text && *s.types == *types && s.sense == sense;
        if let Some(all) = self.by_key.get_mut(&key) {
            if let Some(known) = all.iter().filter_map(Weak::upgrade).find(|s| same(s)) {
                return known;
            }
            // Whoever prepares and closes one text over and over leaves nothing behind.
            all.retain(|s| s.strong_count() > 0);
        } else {
            self.sweep();
        }
        self.next += 1;
        let mut name = PREFIX.to_vec();
        name.extend_from_slice(format!("{:x}", self.next).as_bytes());
        let reading = settings.map(|settings| self.reading(settings));
        let made = Rc::new(Shared {
            id: self.next,
            name: name.into(),
            text: text.into(),
            types: types.into(),
            findings: Findings::default(),
            sense,
            reading,
            told: Cell::new(None),
        });
        self.by_key.entry(key).or_default().push(Rc::downgrade(&made));
        made
    }

    /// A statement of that text and types that is shared with nobody.
    pub fn own(&mut self, text: &[u8], types: &[u8]) -> SharedStatement {
        self.own_read_by(text, types, None)
    }

    /// The same, with the settings by which it is read.
    pub fn own_read_by(
        &mut self,
        text: &[u8],
        types: &[u8],
        settings: Option<&SettingsMap>,
    ) -> SharedStatement {
        let sense = Sense { home: NOBODYS, settings: 0, generation: self.number() };
        self.intern_read_by(text, types, sense, settings)
    }

    /// The same statement for one client alone.
    pub fn own_copy(&mut self, statement: &Shared) -> SharedStatement {
        let own = self.own_read_by(&statement.text, &statement.types, statement.reading.as_deref());
        own.told.set(statement.told.get());
        own
    }

    fn reading(&mut self, settings: &SettingsMap) -> Rc<SettingsMap> {
        let reading = settings.reading();
        if *self.reading != reading {
            self.reading = reading.into();
        }
        self.reading.clone()
    }

    /// A number for an unnamed statement, unique in this worker.
    pub fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// How many are known, those no longer used included until the next sweep.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Forgets what nobody uses any more, whenever the table has doubled.
    fn sweep(&mut self) {
        if self.by_key.len() < self.sweep_at.max(1024) {
            return;
        }
        self.by_key.retain(|_, all| {
            all.retain(|s| s.strong_count() > 0);
            !all.is_empty()
        });
        self.sweep_at = self.by_key.len() * 2;
    }
}

/// The unnamed statement of a client.
#[derive(Clone, Debug, Default)]
pub struct Unnamed {
    /// Its number; 0 if there is none.
    pub number: u64,
    /// Boxed, as many clients never have one. Its room stays when there is none any more.
    said: Option<Box<Said>>,
}

/// What is known of an unnamed statement.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// Its text.
    pub text: Vec<u8>,
    /// Count and oids of the parameter types as in its Parse message.
    pub types: Vec<u8>,
    /// What was found out about its text.
    findings: Findings,
}

impl Unnamed {
    /// What is known of it; `None` if there is none.
    #[must_use]
    pub fn said(&self) -> Option<&Said> {
        self.said.as_deref().filter(|_| self.number != 0)
    }
}

/// A statement on the session's own server.
#[derive(Debug)]
pub(super) struct Bound {
    /// Empty where SQL prepared it.
    text: Box<[u8]>,
    findings: Findings,
}

/// The prepared statements of one client.
#[derive(Debug, Default)]
pub struct ClientStatements {
    /// Many clients never have any.
    pub(super) kept: Option<Box<Kept>>,
    /// The unnamed one.
    pub unnamed: Unnamed,
}

/// Those that have names.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) named: HashMap<Box<[u8]>, SharedStatement, RandomState>,
    /// Those that stand on the session's own server under the client's names: prepared by SQL, and all that came
    /// behind the first of these.
    pub(super) bound: HashMap<Box<[u8]>, Bound, RandomState>,
    pub(super) bytes: usize,
    /// The generation of definitions in which the first of the named ones was prepared.
    pub(super) generation: u64,
    pub(super) reading: Readings,
}

/// By which settings the named statements of a client were read when they were prepared: [`SettingsMap::reading_key`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Readings {
    #[default]
    None,
    All(u64),
    Different,
}

impl Readings {
    pub(super) fn and(self, statement: &Shared) -> Self {
        match (self, statement.reading.as_ref().map(|reading| reading.reading_key())) {
            (_, None) => self,
            (Self::None, Some(key)) => Self::All(key),
            (Self::All(known), Some(key)) if known == key => self,
            _ => Self::Different,
        }
    }
}

/// The client has [`MAX_PER_CLIENT`] prepared statements already, or [`MAX_BYTES_PER_CLIENT`] of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

impl ClientStatements {
    /// The statement of that name; the unnamed one is not among them.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&SharedStatement> {
        self.kept.as_ref()?.named.get(name)
    }

    /// The text of the statement of that name, or of the unnamed one.
    #[must_use]
    pub fn text(&self, name: &[u8]) -> Option<&[u8]> {
        self.known(name).map(|(text, _)| text)
    }

    /// The same, and what was found out about it.
    #[must_use]
    pub fn known(&self, name: &[u8]) -> Option<(&[u8], &Findings)> {
        if name.is_empty() {
            return self.unnamed.said().map(|said| (&*said.text, &said.findings));
        }
        let kept = self.kept.as_ref()?;
        if let Some(statement) = kept.named.get(name) {
            return Some((&statement.text, &statement.findings));
        }
        kept.bound.get(name).filter(|b| !b.text.is_empty()).map(|b| (&*b.text, &b.findings))
    }

    /// The client's name for the statement that servers know by that name.
    #[must_use]
    pub fn client_name(&self, server_name: &[u8]) -> Option<&[u8]> {
        let kept = self.kept.as_ref()?;
        kept.named.iter().find(|(_, s)| *s.name == *server_name).map(|(name, _)| &**name)
    }

    /// Whether any stands on the session's own server under the client's name.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| !kept.bound.is_empty())
    }

    /// SQL has prepared a statement.
    ///
    /// # Errors
    /// There are too many.
    pub fn bind(&mut self, name: &[u8]) -> Result<(), TooMany> {
        self.unbind(name);
        self.bind_text(name, b"").map(|_| ())
    }

    /// A statement of that text is sent to the session's own server. Whether it is new: one that is there stays.
    ///
    /// # Errors
    /// There are too many.
    pub fn bind_text(&mut self, name: &[u8], text: &[u8]) -> Result<bool, TooMany> {
        let kept = self.kept.get_or_insert_default();
        if kept.bound.contains_key(name) {
            return Ok(false);
        }
        let bytes = kept.bytes + text.len();
        if kept.bound.len() >= MAX_PER_CLIENT || bytes > MAX_BYTES_PER_CLIENT {
            return Err(TooMany);
        }
        kept.bytes = bytes;
        kept.bound.insert(name.into(), Bound { text: text.into(), findings: Findings::default() });
        Ok(true)
    }

    /// A statement is gone from the session's own server; its text is returned.
    pub fn unbind(&mut self, name: &[u8]) -> Option<Box<[u8]>> {
        let kept = self.kept.as_mut()?;
        let Bound { text, .. } = kept.bound.remove(name)?;
        kept.bytes -= text.len();
        Some(text)
    }

    /// Whether definitions may have changed since the first of these was prepared.
    #[must_use]
    pub fn are_older_than(&self, generation: u64) -> bool {
        self.kept.as_ref().is_some_and(|kept| !kept.named.is_empty() && kept.generation != generation)
    }

    /// Whether any of these may be read otherwise by the settings of that [`SettingsMap::reading_key`] than when it was prepared.
    #[must_use]
    pub fn may_be_read_otherwise(&self, key: u64) -> bool {
        let readings = self.kept.as_ref().map_or(Readings::None, |kept| kept.reading);
        readings != Readings::None && readings != Readings::All(key)
    }

    /// Notes the generation of definitions in which the next statement is prepared.
    pub fn begin(&mut self, generation: u64) {
        let kept = self.kept.get_or_insert_default();
        if kept.named.is_empty() {
            kept.generation = generation;
        }
    }

    /// Adds a statement.
    ///
    /// # Errors
    /// There are too many.
    pub fn insert(&mut self, name: &[u8], statement: SharedStatement) -> Result<(), TooMany> {
        let kept = self.kept.get_or_insert_default();
        let old = kept.named.get(name).map(|old| old.weight());
        let bytes = kept.bytes + statement.weight() - old.unwrap_or_default();
        if (old.is_none() && kept.named.len() >= MAX_PER_CLIENT) || bytes > MAX_BYTES_PER_CLIENT {
            return Err(TooMany);
        }
        kept.bytes = bytes;
        let readings = if kept.named.is_empty() { Readings::None } else { kept.reading };
        kept.reading = readings.and(&statement);
        kept.named.insert(name.into(), statement);
        Ok(())
    }

    /// The names of those that these settings would have read otherwise, at most so many.
    #[must_use]
    pub fn read_otherwise(&self, settings: &SettingsMap, most: usize) -> Vec<Box<[u8]>> {
        let kept = self.kept.iter().flat_map(|kept| &kept.named);
        kept.filter(|(_, s)| s.is_read_otherwise(settings)).map(|(name, _)| name.clone()).take(most).collect()
    }

    /// Remembers the unnamed statement.
    pub fn set_unnamed(&mut self, number: u64, text: &[u8], types: &[u8]) {
        self.unnamed.number = number;
        let said = self.unnamed.said.get_or_insert_default();
        said.findings = Findings::default();
        said.text.clear();
        said.text.extend_from_slice(text);
        said.types.clear();
        said.types.extend_from_slice(types);
    }

    /// Forgets the unnamed statement, as a simple Query does.
    pub fn drop_unnamed(&mut self) {
        self.unnamed.number = 0;
    }

    /// Takes a statement away; `None` if there is none of that name.
    pub fn remove(&mut self, name: &[u8]) -> Option<SharedStatement> {
        let kept = self.kept.as_mut()?;
        let gone = kept.named.remove(name)?;
        kept.bytes -= gone.weight();
        Some(gone)
    }

    /// Takes all away, as DEALLOCATE ALL does.
    pub fn clear(&mut self) {
        self.kept = None;
        self.drop_unnamed();
    }

    /// How many named ones there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.named.len())
    }

    /// Whether there is no named one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_statement_has_one_name_and_another_has_another() {
        let mut table = Statements::default();
        let sense = |home, settings, generation| Sense { home, settings, generation };
        let a = table.intern(b"select $1", b"\0\0", sense(1, 1, 1));
        let b = table.intern(b"select $1", b"\0\0", sense(1, 1, 1));
        assert!(Rc::ptr_eq(&a, &b));
        for (text, types, other) in [
            (&b"select $2"[..], &b"\0\0"[..], sense(1, 1, 1)),
            (b"select $1", b"\0\x01\0\0\0\x17", sense(1, 1, 1)),
            (b"select $1", b"\0\0", sense(2, 1, 1)),
            (b"select $1", b"\0\0", sense(1, 2, 1)),
            (b"select $1", b"\0\0", sense(1, 1, 2)),
        ] {
            assert_ne!(table.intern(text, types, other).name, a.name);
        }
    }

    #[test]
    fn what_nobody_uses_is_forgotten() {
        let mut table = Statements::default();
        for n in 0..10_000 {
            table.intern(format!("select {n}").as_bytes(), b"\0\0", Sense::default());
        }
        assert!(table.len() <= 2048, "{}", table.len());
    }

    #[test]
    fn one_text_prepared_and_closed_over_and_over_is_kept_once() {
        let mut table = Statements::default();
        for _ in 0..1000 {
            table.intern(b"select 1", b"\0\0", Sense::default());
            let kept: usize = table.by_key.values().map(Vec::len).sum();
            assert_eq!(kept, 1);
        }
    }
}
