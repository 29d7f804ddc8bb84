//! The texts and names in a unit that has to be looked at once more.

use std::collections::HashSet;
use std::rc::Rc;

use super::serve::Client;
use super::worker::vacate;
use crate::pool::Lease;
use crate::relay::{SettleError, describe, fail_transaction, forget, owns, reveal, settle};
use crate::session::pins::Pins;
use crate::session::prepared::fold_statement_name;
use crate::session::{ClientStatements, SharedStatement, Unit};
use crate::sql::{Command, Dialect, Names, fingerprint, statements};
use crate::wire::Frame;
use crate::wire::client::{self, Parse, tag};
use crate::wire::frame::HEADER;
use crate::wire::server::Status;

impl Client {
    pub(super) fn learn(&mut self, unit: &Unit) {
        let mut learned = self.worker.learned.borrow_mut();
        self.each_fingerprint(unit, |fingerprint| learned.insert(fingerprint));
    }

    pub(super) fn is_learned(&self, unit: &Unit) -> bool {
        let learned = self.worker.learned.borrow();
        if learned.is_empty() {
            return false;
        }
        let mut found = false;
        self.each_fingerprint(unit, |fingerprint| found |= learned.contains(fingerprint));
        found
    }

    fn each_fingerprint(&self, unit: &Unit, mut found: impl FnMut(u64)) {
        each_text(self.input.get(..unit.len).unwrap_or_default(), |name, text| {
            let kept = || self.session.statements.known(name).map(|(text, known)| known.fingerprint(text));
            if let Some(fingerprint) = text.map(fingerprint).or_else(kept) {
                found(fingerprint);
            }
        });
    }

    fn each_command(&self, unit: &Unit, found: impl FnMut(Command<'_>)) {
        let messages = self.input.get(..unit.len).unwrap_or_default();
        let names = self.names.get();
        each_command(messages, &self.session.statements, &**names, self.session.dialect(), found);
    }

    /// SQL is about to speak of statements that the client has prepared by messages: the server must know them by the
    /// client's names, and the session stays with it from now on.
    pub(super) async fn reveal_names(&mut self, lease: &mut Lease, unit: &Unit) -> Result<(), SettleError> {
        let mut found: Vec<(Vec<u8>, SharedStatement)> = Vec::new();
        let mut seen = HashSet::new();
        self.each_command(unit, |command| {
            let (Command::Prepare(name) | Command::Execute(name) | Command::Deallocate(Some(name))) = command
            else {
                return;
            };
            let name = fold_statement_name(name);
            if let Some(statement) = self.session.statements.get(&name)
                && seen.insert(name.clone())
            {
                found.push((name, statement.clone()));
            }
        });
        if found.is_empty() {
            return Ok(());
        }
        for (name, statement) in found {
            if lease.connection.status == Status::Idle {
                let settings = &self.session.settings;
                let settings = statement.parsed_by(settings).map_or_else(|| settings.clone(), Rc::new);
                settle(&mut lease.connection, &settings, self.pid).await?;
            }
            if reveal(&mut lease.connection, &name, &statement).await?
                && self.session.statements.bind_text(&name, &statement.text).is_ok()
            {
                self.session.statements.remove(&name);
                self.session.pins.add(Pins::SQL_PREPARE);
            }
        }
        Ok(())
    }

    /// Nobody else may be connected to the databases that this unit drops, renames or copies: those of a role that may
    /// do so are vacated.
    pub(super) async fn vacate_databases(
        &mut self,
        lease: &mut Lease,
        unit: &Unit,
    ) -> Result<(), SettleError> {
        let mut found = Vec::new();
        self.each_command(unit, |command| {
            if let Command::Database(name) = command {
                found.push(String::from_utf8_lossy(&fold_statement_name(name)).into_owned());
            }
        });
        // None of these commands runs in a transaction.
        if found.is_empty() || lease.connection.status != Status::Idle {
            return Ok(());
        }
        settle(&mut lease.connection, &self.session.settings, self.pid).await?;
        for database in found {
            if owns(&mut lease.connection, &database).await? {
                vacate(&self.worker.shared, &database).await;
            }
        }
        Ok(())
    }

    /// Whether the unit uses a statement of which the client was told columns that it may no longer have.
    pub(super) fn names_doubted(&self, unit: &Unit, generation: u64) -> bool {
        let mut found = false;
        each_text(self.input.get(..unit.len).unwrap_or_default(), |name, _| {
            found |= self.session.statements.get(name).is_some_and(|s| s.is_in_doubt(generation));
        });
        found
    }

    /// Definitions have changed since the session prepared its statements. Of those in this unit that the server has yet
    /// to parse: whether their results are still what the client was told. Otherwise the transaction under way, if
    /// there is one, has failed.
    pub(super) async fn check_shapes(
        &mut self,
        lease: &mut Lease,
        unit: &Unit,
        generation: u64,
    ) -> Result<bool, SettleError> {
        let mut doubted: Vec<SharedStatement> = Vec::new();
        // Each is prepared once, however often the unit names it: a second time would fail.
        let mut seen = HashSet::new();
        let (session, server) = (&self.session, &mut lease.connection);
        each_text(self.input.get(..unit.len).unwrap_or_default(), |name, text| {
            let statement = session.statements.get(name).filter(|_| text.is_none());
            if let Some(statement) = statement.filter(|s| s.is_in_doubt(generation)) {
                let new = !server.statements.knows(statement.id) && seen.insert(statement.id);
                doubted.extend(new.then(|| statement.clone()));
            }
        });
        if doubted.is_empty() || server.status == Status::Failed {
            return Ok(true);
        }
        for statement in doubted {
            if server.status == Status::Idle {
                let settings = &self.session.settings;
                let settings = statement.parsed_by(settings).map_or_else(|| settings.clone(), Rc::new);
                settle(server, &settings, self.pid).await?;
            }
            match describe(server, &statement).await? {
                Some(shape) if statement.describe(shape, generation) => {
                    let settings = &self.session.settings;
                    if !statement.is_meant_under(settings) || statement.parsed_by(settings).is_some() {
                        // It means something else than it has just been parsed as.
                        forget(server, &statement).await?;
                    } else {
                        server.statements.insert(statement);
                    }
                }
                Some(_) => {
                    forget(server, &statement).await?;
                    if server.status == Status::Transaction {
                        fail_transaction(server).await?;
                    }
                    return Ok(false);
                }
                // What it speaks of is gone, say: the server itself will tell.
                None => {}
            }
        }
        Ok(true)
    }

    /// The session's settings are others than those by which statements of this unit were read when they were prepared, or of the
    /// transaction that it begins. PostgreSQL reads a statement once; so a server that does not know such a one yet gets it by
    /// the settings of then. `false` if that server is not to parse any, being `unproven`.
    ///
    /// Only between transactions: there, nothing of this can be undone, fail the client's transaction, or take its snapshot.
    pub(super) async fn parse_as_prepared(
        &mut self,
        lease: &mut Lease,
        unit: &Unit,
        unproven: bool,
    ) -> Result<bool, SettleError> {
        let (session, server) = (&mut self.session, &mut lease.connection);
        let unknown = session.pins.has(Pins::SETTINGS) || server.unsure == Some(self.pid);
        if server.status != Status::Idle || unknown {
            return Ok(true);
        }
        let mut names = HashSet::new();
        if unit.verdict.begin.is_some() {
            names.extend(session.statements.read_otherwise(&session.settings, MOST_FOR_TRANSACTION));
        }
        each_name(self.input.get(..unit.len).unwrap_or_default(), |name| {
            if session.statements.get(name).is_some_and(|s| s.is_read_otherwise(&session.settings)) {
                names.insert(name.into());
            }
        });
        for name in names {
            let Some(mut statement) = session.statements.get(&name).cloned() else { continue };
            if !statement.is_own() {
                // It may be read anew, by the settings of whoever runs it then.
                let own = self.worker.statements.borrow_mut().own_copy(&statement);
                if session.statements.insert(&name, own.clone()).is_err() {
                    continue;
                }
                statement = own;
            }
            if server.statements.knows(statement.id) {
                continue;
            }
            let Some(settings) = statement.parsed_by(&session.settings) else { continue };
            if unproven {
                return Ok(false);
            }
            match settle(server, &settings.into(), self.pid).await {
                Ok(()) => {}
                // Another machine may not know a time zone that this one does. The connection is good for this unit still.
                Err(SettleError::Refused { .. }) => break,
                Err(broken) => return Err(broken),
            }
            // What it speaks of may be gone: the server itself will tell.
            if reveal(server, &statement.name, &statement).await? {
                server.statements.insert(statement);
            }
        }
        Ok(true)
    }
}

/// So many statements a server gets before a transaction begins that may run them.
const MOST_FOR_TRANSACTION: usize = 32;

/// The names of the statements that a unit binds or asks about, as far as it has come.
fn each_name<'a>(messages: &'a [u8], mut found: impl FnMut(&'a [u8])) {
    let mut rest = messages;
    while let Ok(Some(frame)) = Frame::peek(rest) {
        let Some(body) = frame.body(rest).or_else(|| rest.get(HEADER..)) else { break };
        match (frame.tag, body) {
            (tag::BIND, _) => {
                if let Some(bind) = client::Bind::read(body) {
                    found(bind.statement);
                }
            }
            (tag::DESCRIBE, [b'S', name @ .., 0]) => found(name),
            _ => {}
        }
        rest = rest.get(frame.len..).unwrap_or_default();
    }
}

/// Every command of a unit, those of prepared statements that it binds included: once, however often it does.
fn each_command(
    messages: &[u8],
    prepared: &ClientStatements,
    names: &dyn Names,
    dialect: Dialect,
    mut found: impl FnMut(Command<'_>),
) {
    let mut seen = HashSet::new();
    each_text(messages, |name, text| {
        if text.is_none() && !seen.insert(name) {
            return;
        }
        let text = text.or_else(|| prepared.text(name)).unwrap_or_default();
        for statement in statements(text, names, dialect) {
            found(statement.command);
        }
    });
}

/// Every text of a unit, or the name of the statement that stands for one.
fn each_text<'a>(messages: &'a [u8], mut found: impl FnMut(&'a [u8], Option<&'a [u8]>)) {
    let mut rest = messages;
    // What an earlier unit has left as the unnamed one is not what a Bind behind a Parse of this one means.
    let mut unnamed = false;
    while let Ok(Some(frame)) = Frame::peek(rest) {
        let Some(body) = frame.body(rest) else { break };
        match frame.tag {
            tag::QUERY => found(b"", client::query(body)),
            tag::PARSE => {
                if let Some(parse) = Parse::read(body) {
                    unnamed |= parse.name.is_empty();
                    found(parse.name, Some(parse.text));
                }
            }
            tag::BIND => {
                let bind = client::Bind::read(body);
                if let Some(bind) = bind.filter(|bind| !(unnamed && bind.statement.is_empty())) {
                    found(bind.statement, None);
                }
            }
            _ => {}
        }
        rest = rest.get(frame.len..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Statements;
    use crate::session::prepared::Sense;
    use crate::sql::Catalog;
    use crate::wire::build;
    use bytes::BytesMut;

    #[test]
    fn a_bind_of_what_the_unit_parses_does_not_mean_an_earlier_text() {
        let mut unit = BytesMut::new();
        build::bind(&mut unit, b"", b"", b"\0\0\0\0\0\0");
        let texts = |unit: &[u8]| {
            let mut found = Vec::new();
            each_text(unit, |_, text| found.push(text.map(<[u8]>::to_vec)));
            found
        };
        assert_eq!(texts(&unit), [None]);
        let bind = unit.split();
        build::parse(&mut unit, b"", b"select 1", b"\0\0");
        unit.extend_from_slice(&bind);
        assert_eq!(texts(&unit), [Some(b"select 1".to_vec())]);
    }

    #[test]
    fn a_text_that_is_bound_over_and_over_is_read_once() {
        let mut prepared = ClientStatements::default();
        let statement = Statements::default().intern(b"execute a", b"\0\0", Sense::default());
        prepared.insert(b"s", statement).unwrap();
        let mut unit = BytesMut::new();
        build::parse(&mut unit, b"", b"deallocate b", b"\0\0");
        for name in [b"s", b"s", b"s"] {
            build::bind(&mut unit, b"", name, b"\0\0\0\0\0\0");
        }
        let mut found = Vec::new();
        each_command(&unit, &prepared, &Catalog::builtin(), Dialect::default(), |command| {
            found.push(format!("{command:?}"));
        });
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
