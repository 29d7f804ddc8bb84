//! What a unit's statements change in the session, each to be done when its completion is seen.

use super::pins::Pins;
use super::prepared::{ClientStatements, fold_statement_name};
use super::settings::fold_name;
use super::transaction::Change;
use crate::sql::command::{Discard, Isolation, Modes};
use crate::sql::{Command, Dialect, Names, Setting, Statement, statements};
use crate::wire::Frame;
use crate::wire::client::{self, Bind, Parse, tag};

/// A change of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Of its settings.
    Change(Change),
    /// SAVEPOINT.
    Savepoint(Box<[u8]>),
    /// RELEASE.
    Release(Box<[u8]>),
    /// ROLLBACK TO.
    RollbackTo(Box<[u8]>),
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
    Prepared(Box<[u8]>),
    /// DEALLOCATE of that name.
    Deallocated(Box<[u8]>),
    /// DEALLOCATE ALL: the server knows no prepared statement any more, nor does the client.
    DeallocateAll,
    /// DISCARD ALL: nothing is left.
    DiscardAll,
}

/// A note and the statement that it belongs to, counted from 0 by completed statements.
pub type Numbered = (u32, Note);

/// Reads the notes of a whole unit. `unit` holds its messages.
#[must_use]
pub fn notes(unit: &[u8], names: &dyn Names, dialect: Dialect, prepared: &ClientStatements) -> Vec<Numbered> {
    let mut found = Vec::new();
    let mut number = 0;
    // Texts of this unit by statement name, then by portal name: both small, and both cold.
    let mut parsed: Vec<(&[u8], &[u8])> = Vec::new();
    let mut bound: Vec<(&[u8], Option<&[u8]>)> = Vec::new();
    let mut rest = unit;
    while let Ok(Some(frame)) = Frame::peek(rest) {
        let Some(body) = frame.body(rest) else { break };
        match frame.tag {
            tag::QUERY => {
                for statement in statements(client::query(body).unwrap_or_default(), names, dialect) {
                    note(&statement, number, &mut found);
                    number += u32::from(statement.command != Command::Empty);
                }
            }
            tag::PARSE => {
                if let Some(parse) = Parse::read(body) {
                    parsed.push((parse.name, parse.text));
                }
            }
            tag::BIND => {
                if let Some(bind) = Bind::read(body) {
                    let here =
                        parsed.iter().rfind(|(name, _)| *name == bind.statement).map(|(_, text)| *text);
                    bound.push((bind.portal, here.or_else(|| prepared.text(bind.statement))));
                }
            }
            tag::EXECUTE => {
                let portal = crate::wire::frame::cstr(body).map(|(name, _)| name).unwrap_or_default();
                let text = bound.iter().rfind(|(name, _)| *name == portal).and_then(|(_, text)| *text);
                if let Some(statement) = text.and_then(|text| statements(text, names, dialect).next()) {
                    note(&statement, number, &mut found);
                }
                number += 1;
            }
            _ => {}
        }
        rest = rest.get(frame.len..).unwrap_or_default();
    }
    found
}

fn note(statement: &Statement<'_>, number: u32, found: &mut Vec<Numbered>) {
    let mut add = |note| found.push((number, note));
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
    use crate::session::prepared::Statements;
    use crate::sql::Catalog;
    use crate::wire::build;
    use bytes::BytesMut;

    fn read(unit: &[u8], prepared: &ClientStatements) -> Vec<Numbered> {
        notes(unit, &Catalog::builtin(), Dialect { standard_conforming_strings: true }, prepared)
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
        prepared.insert(b"old", Statements::default().intern(b"listen x", b"\0\0", 0)).unwrap();
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
}
