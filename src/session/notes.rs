//! What a unit's statements change in the session, each to be done when its completion is seen.

use std::cell::OnceCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use foldhash::fast::RandomState;

use super::pins::Pins;
use super::prepared::{ClientStatements, fold_statement_name};
use super::settings::{fold_name, set_config};
use super::transaction::Change;
use crate::sql::command::{Discard, Isolation, Modes};
use crate::sql::{Command, Dialect, Names, Setting, Statement, statements};
use crate::wire::Frame;
use crate::wire::client::{self, Bind, Parse, tag};

/// A change of the session. A clone shares what it says: one text may be executed many times in a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Of its settings.
    Change(Change),
    /// SAVEPOINT.
    Savepoint(Rc<[u8]>),
    /// RELEASE.
    Release(Rc<[u8]>),
    /// ROLLBACK TO.
    RollbackTo(Rc<[u8]>),
    /// COMMIT, or ROLLBACK: which it was, the command tag tells.
    TransactionEnd,
    /// Of its pins.
    Pins {
        /// They hold from now on.
        add: Pins,
        /// They hold no more.
        remove: Pins,
    },
    /// PREPARE of that name.
    Prepared(Rc<[u8]>),
    /// DEALLOCATE of that name.
    Deallocated(Rc<[u8]>),
    /// DEALLOCATE ALL: the server knows no prepared statement any more, nor does the client.
    DeallocateAll,
    /// DISCARD ALL: nothing is left.
    DiscardAll,
}

/// A note and the statement that it belongs to, counted from 0 by completed statements.
pub type Numbered = (u32, Note);

/// The notes of a unit, in the order of their statements.
///
/// Most units have none, and each has room for them while it runs.
#[derive(Debug, Default)]
pub struct Notes(Option<Box<Left>>);

#[derive(Debug)]
struct Left(VecDeque<Numbered>);

impl Notes {
    /// The next one of the statement of that number, which has completed.
    pub fn take(&mut self, number: u32) -> Option<Note> {
        let Left(left) = &mut **self.0.as_mut()?;
        let (of, _) = left.front()?;
        if *of > number { None } else { left.pop_front().map(|(_, note)| note) }
    }

    /// Whether there is none left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|left| left.0.is_empty())
    }

    /// No statement will complete any more.
    pub fn clear(&mut self) {
        self.0 = None;
    }
}

impl From<VecDeque<Numbered>> for Notes {
    fn from(notes: VecDeque<Numbered>) -> Self {
        Self((!notes.is_empty()).then(|| Box::new(Left(notes))))
    }
}

/// A text that a unit executes, and its notes, read when it is first executed.
struct Text<'a> {
    text: &'a [u8],
    notes: OnceCell<Vec<Note>>,
}

impl<'a> Text<'a> {
    fn new(text: &'a [u8]) -> Rc<Self> {
        Rc::new(Self { text, notes: OnceCell::new() })
    }

    fn notes(&self, names: &dyn Names, dialect: Dialect) -> &[Note] {
        self.notes.get_or_init(|| {
            let mut found = Vec::new();
            if let Some(statement) = statements(self.text, names, dialect).next() {
                note(&statement, |note| found.push(note));
            }
            found
        })
    }
}

/// A portal.
struct Bound<'a> {
    text: Option<Rc<Text<'a>>>,
    /// The only note of the text, where that hangs on a parameter.
    own: Option<Note>,
}

/// A change by `set_config` that takes its value from a parameter; `None` if it does not.
fn with_parameter(change: &Change, bind: &Bind<'_>) -> Option<Note> {
    let Change::Set { name, value, .. } = change else { return None };
    // A dollar quote does not begin with a digit.
    let number = std::str::from_utf8(value.strip_prefix(b"$")?).ok()?.parse().ok()?;
    Some(match bind.parameter(number) {
        Some(Some(value)) => {
            let sql = set_config(name, value).into();
            Note::Change(Change::Set { name: name.clone(), sql, value: value.into() })
        }
        // Null stands for the default.
        Some(None) => Note::Change(Change::Reset(name.clone())),
        // The server will refuse this; if not, it knows more than we do.
        None => Note::Pins { add: Pins::SETTINGS, remove: Pins::default() },
    })
}

/// Reads the notes of a whole unit. `unit` holds its messages.
#[must_use]
pub fn notes(unit: &[u8], names: &dyn Names, dialect: Dialect, prepared: &ClientStatements) -> Notes {
    let mut found = VecDeque::new();
    let mut number = 0;
    // Texts by statement name, then by portal name.
    let mut parsed: HashMap<&[u8], Rc<Text<'_>>, RandomState> = HashMap::default();
    let mut bound: HashMap<&[u8], Bound<'_>, RandomState> = HashMap::default();
    let mut rest = unit;
    while let Ok(Some(frame)) = Frame::peek(rest) {
        let Some(body) = frame.body(rest) else { break };
        match frame.tag {
            tag::QUERY => {
                for statement in statements(client::query(body).unwrap_or_default(), names, dialect) {
                    note(&statement, |note| found.push_back((number, note)));
                    number += u32::from(statement.command != Command::Empty);
                }
            }
            tag::PARSE => {
                if let Some(parse) = Parse::read(body) {
                    parsed.insert(parse.name, Text::new(parse.text));
                }
            }
            tag::BIND => {
                if let Some(bind) = Bind::read(body) {
                    if !parsed.contains_key(bind.statement)
                        && let Some(text) = prepared.text(bind.statement)
                    {
                        parsed.insert(bind.statement, Text::new(text));
                    }
                    let text = parsed.get(bind.statement).cloned();
                    let own = text.as_ref().and_then(|text| match text.notes(names, dialect) {
                        [Note::Change(change)] => with_parameter(change, &bind),
                        _ => None,
                    });
                    bound.insert(bind.portal, Bound { text, own });
                }
            }
            tag::EXECUTE => {
                let portal = crate::wire::frame::cstr(body).map(|(name, _)| name).unwrap_or_default();
                match bound.get(portal) {
                    Some(Bound { own: Some(note), .. }) => found.push_back((number, note.clone())),
                    Some(Bound { text: Some(text), .. }) => {
                        found.extend(text.notes(names, dialect).iter().map(|note| (number, note.clone())));
                    }
                    _ => {}
                }
                number += 1;
            }
            _ => {}
        }
        rest = rest.get(frame.len..).unwrap_or_default();
    }
    found.into()
}

fn note(statement: &Statement<'_>, mut add: impl FnMut(Note)) {
    match statement.command {
        Command::Set(setting) => add(Note::Change(set(setting, statement.text))),
        Command::SetConfig { setting, local: false } => add(Note::Change(set(setting, statement.text))),
        Command::Reset(setting) => add(Note::Change(Change::Reset(fold_name(setting.name).into()))),
        Command::ResetAll => add(Note::Change(Change::ResetAll)),
        Command::SetCharacteristics(modes) => {
            for change in characteristics(modes) {
                add(Note::Change(change));
            }
        }
        Command::Savepoint(name) => add(Note::Savepoint(name.into())),
        Command::Release(name) => add(Note::Release(name.into())),
        Command::RollbackTo(name) => add(Note::RollbackTo(name.into())),
        Command::Commit { .. } | Command::Rollback { .. } => add(Note::TransactionEnd),
        Command::Prepare(name) => add(Note::Prepared(fold_statement_name(name).into())),
        Command::Deallocate(Some(name)) => add(Note::Deallocated(fold_statement_name(name).into())),
        Command::Deallocate(None) => add(Note::DeallocateAll),
        Command::Discard(Discard::All) => add(Note::DiscardAll),
        _ => {}
    }
    let (new, gone) = Pins::change(&statement.command, statement.effects);
    if !new.is_empty() || !gone.is_empty() {
        add(Note::Pins { add: new, remove: gone });
    }
}

fn set(setting: Setting<'_>, text: &[u8]) -> Change {
    Change::Set { name: fold_name(setting.name).into(), sql: text.into(), value: setting.value.into() }
}

/// SET SESSION CHARACTERISTICS sets the defaults of transactions; each mode has its own parameter.
fn characteristics(modes: Modes) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut push = |name: &str, value: &str| {
        changes.push(Change::Set {
            name: name.into(),
            sql: format!("SET {name} TO '{value}'").into_bytes().into(),
            value: value.as_bytes().into(),
        });
    };
    if let Some(read_only) = modes.read_only {
        push("default_transaction_read_only", if read_only { "on" } else { "off" });
    }
    if let Some(isolation) = modes.isolation {
        let value = match isolation {
            Isolation::ReadCommitted => "read committed",
            Isolation::RepeatableRead => "repeatable read",
            Isolation::Serializable => "serializable",
        };
        push("default_transaction_isolation", value);
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::prepared::{Sense, Statements};
    use crate::sql::Catalog;
    use crate::wire::build;
    use bytes::BytesMut;

    fn read(unit: &[u8], prepared: &ClientStatements) -> VecDeque<Numbered> {
        notes(unit, &Catalog::builtin(), Dialect { standard_conforming_strings: true }, prepared)
            .0
            .map(|left| left.0)
            .unwrap_or_default()
    }

    #[test]
    fn each_statement_of_a_query_has_its_number() {
        let mut unit = BytesMut::new();
        build::query(&mut unit, b"; select 1; set Geqo to off; ; savepoint s; reset all");
        let found = read(&unit, &ClientStatements::default());
        assert_eq!(
            found,
            [
                (
                    1,
                    Note::Change(Change::Set {
                        name: "geqo".into(),
                        sql: b"set Geqo to off"[..].into(),
                        value: b"off"[..].into()
                    })
                ),
                (2, Note::Savepoint(b"s"[..].into())),
                (3, Note::Change(Change::ResetAll)),
            ]
        );
    }

    #[test]
    fn an_execute_belongs_to_what_was_bound_to_its_portal() {
        let mut prepared = ClientStatements::default();
        prepared
            .insert(b"old", Statements::default().intern(b"listen x", b"\0\0", Sense::default()))
            .unwrap();
        let mut unit = BytesMut::new();
        build::parse(&mut unit, b"", b"select 1", b"\0\0");
        build::bind(&mut unit, b"p", b"", b"\0\0\0\0\0\0");
        build::bind(&mut unit, b"q", b"old", b"\0\0\0\0\0\0");
        for portal in [b"p\0\0\0\0\0", b"q\0\0\0\0\0"] {
            build::message(&mut unit, tag::EXECUTE, |b| b.extend_from_slice(portal));
        }
        let found = read(&unit, &prepared);
        assert_eq!(found, [(1, Note::Pins { add: Pins::LISTEN, remove: Pins::default() })]);
    }

    #[test]
    fn what_set_config_is_given_as_a_parameter_is_known() {
        let mut unit = BytesMut::new();
        build::parse(&mut unit, b"", b"select set_config('My.tenant', $2, false)", b"\0\0");
        // A parameter that does not matter, and the value; then null; then none.
        for parameters in [
            &b"\0\0\0\x02\0\0\0\x01x\0\0\0\x05it's\\\0\0"[..],
            b"\0\0\0\x02\xff\xff\xff\xff\xff\xff\xff\xff\0\0",
            b"\0\0\0\x01\0\0\0\0\0\0",
        ] {
            build::bind(&mut unit, b"", b"", parameters);
            build::message(&mut unit, tag::EXECUTE, |b| b.extend_from_slice(b"\0\0\0\0\0"));
        }
        let name: Rc<str> = "my.tenant".into();
        let sql = b"SELECT pg_catalog.set_config(E'my.tenant',E'it''s\\\\',false)";
        let set = Change::Set { name: name.clone(), sql: sql[..].into(), value: b"it's\\"[..].into() };
        let pins = Note::Pins { add: Pins::SETTINGS, remove: Pins::default() };
        assert_eq!(
            read(&unit, &ClientStatements::default()),
            [(0, Note::Change(set)), (1, Note::Change(Change::Reset(name))), (2, pins)]
        );
    }

    #[test]
    fn a_note_is_taken_when_its_statement_completes() {
        let notes = [(0, Note::DeallocateAll), (2, Note::TransactionEnd), (2, Note::DiscardAll)];
        let mut notes = Notes::from(VecDeque::from(notes));
        assert_eq!(notes.take(0), Some(Note::DeallocateAll));
        assert_eq!((notes.take(0), notes.take(1)), (None, None));
        assert_eq!(notes.take(2), Some(Note::TransactionEnd));
        assert_eq!((notes.take(2), notes.take(2)), (Some(Note::DiscardAll), None));
        assert!(notes.is_empty());
    }

    /// With a search for each of them this would not end.
    #[test]
    fn each_note_is_taken_from_the_front() {
        let all: VecDeque<_> = (0..500_000).map(|number| (number, Note::TransactionEnd)).collect();
        let mut notes = Notes::from(all);
        for number in 0..500_000 {
            assert_eq!((notes.take(number), notes.take(number)), (Some(Note::TransactionEnd), None));
        }
    }

    /// With a walk over the names at each of them this would not end.
    #[test]
    fn each_message_is_looked_at_once() {
        let mut unit = BytesMut::new();
        for n in 0..200_000 {
            let name = n.to_string();
            build::parse(&mut unit, name.as_bytes(), b"select 1", b"\0\0");
        }
        for n in 0..200_000 {
            let name = n.to_string();
            build::bind(&mut unit, name.as_bytes(), name.as_bytes(), b"\0\0\0\0\0\0");
        }
        for _ in 0..200_000 {
            build::message(&mut unit, tag::EXECUTE, |b| b.extend_from_slice(b"0\0\0\0\0\0"));
        }
        assert_eq!(read(&unit, &ClientStatements::default()), []);
    }

    #[test]
    fn a_text_is_kept_once_however_often_it_is_executed() {
        let text = format!("set a.b to '{}'", "x".repeat(1 << 20));
        let mut prepared = ClientStatements::default();
        prepared
            .insert(b"s", Statements::default().intern(text.as_bytes(), b"\0\0", Sense::default()))
            .unwrap();
        let mut unit = BytesMut::new();
        for _ in 0..10 {
            build::bind(&mut unit, b"", b"s", b"\0\0\0\0\0\0");
            build::message(&mut unit, tag::EXECUTE, |b| b.extend_from_slice(b"\0\0\0\0\0"));
        }
        let found = read(&unit, &prepared);
        let texts = found.iter().map(|(number, note)| match note {
            Note::Change(Change::Set { sql, .. }) => (*number, Rc::as_ptr(sql)),
            other => panic!("{other:?}"),
        });
        let texts: Vec<_> = texts.collect();
        assert_eq!(texts, (0..10).map(|number| (number, texts[0].1)).collect::<Vec<_>>());
    }
}
