//! One unit runs on its server: what comes before it there, the exchange itself, and what is put back behind it.

use std::future::poll_fn;
use std::io;

use bytes::BytesMut;

use super::place::Place;
use super::serve::Client;
use super::unit::{At, How};
use crate::pool::Lease;
use crate::relay::exchange::ClientSide;
use crate::relay::{Asks, Exchange, Farewell, Outcome, Plan, Reached, SettleError};
use crate::session::notes::{Notes, notes};
use crate::session::pins::Pins;
use crate::session::translate::Sharing;
use crate::session::undo::NamesBefore;
use crate::session::{Unit, Verdict};
use crate::sql::Effects;
use crate::wire::server::Status;

impl Client {
    /// Runs the unit there.
    pub(super) async fn exchange(&mut self, at: &mut At, unit: &Unit) -> Outcome {
        let (lease, how) = (&mut at.lease, at.how);
        lease.connection.told = None;
        // While a connection was made, say. What comes further on tells the server something of the session already.
        if self.is_cancelled() {
            return Outcome::Cancelled;
        }
        let generation = self.names.catalog().generation();
        let mut noted = Notes::default();
        if unit.unread {
            self.session.pins.add(Pins::SETTINGS);
        }
        // What no rollback takes back binds the session even if its statement fails.
        if self.session.status != Status::Failed || unit.verdict.statements > 1 {
            self.session.pins.add(Pins::kept_by_errors(unit.verdict.effects));
        }
        // Where a quote may be part of a character, nobody can say what a text sets.
        if !unit.is_whole() || self.session.hides_ascii() {
            if unit.verdict.is_stateful() {
                self.session.pins.add(Pins::SETTINGS);
            }
        } else if unit.verdict.is_stateful() || self.tracks_transaction(&unit.verdict) {
            let messages = self.input.get(..unit.len).unwrap_or_default();
            noted = notes(messages, &**self.names.get(), self.session.dialect(), &self.session.statements);
        }
        let speaks_of_names = unit.verdict.effects.has(Effects::SQL_PREPARE.with(Effects::DATABASE));
        if speaks_of_names && let Err(error) = Box::pin(self.clear_the_way(lease, unit)).await {
            return unprepared(error, speaks_of_names);
        }
        if unit.named && self.session.statements.are_older_than(generation) {
            // A replica that has yet to show that it is far enough is not to tell columns.
            if at.place.proof.is_some() && self.names_doubted(unit, generation) {
                return Outcome::InVain { pass: 0 };
            }
            match Box::pin(self.check_shapes(lease, unit, generation)).await {
                Ok(true) => {}
                Ok(false) => return Outcome::PlanChanged,
                Err(error) => return unprepared(error, speaks_of_names),
            }
        }
        let speaks_of_statements = unit.named || unit.verdict.begin.is_some();
        let reading = self.session.settings.reading_key();
        if speaks_of_statements && self.session.statements.may_be_read_otherwise(reading) {
            self.handle.runs(lease.connection.node, lease.connection.pid, &lease.connection.key);
            match Box::pin(self.parse_as_prepared(lease, unit, at.place.proof.is_some())).await {
                Ok(true) => {}
                Ok(false) => return Outcome::InVain { pass: 0 },
                Err(error) => return unprepared(error, speaks_of_names),
            }
            if self.is_cancelled() {
                return Outcome::Cancelled;
            }
        }
        let before = if how.may_heal() && unit.named {
            let messages = self.input.get(..unit.len).unwrap_or_default();
            NamesBefore::read(messages, &self.session.statements)
        } else {
            None
        };
        let plan = self.plan(unit, lease, &at.place, how, generation);
        let connection = &mut lease.connection;
        connection.asked_at = self.worker.about_now();
        self.handle.runs(connection.node, connection.pid, &connection.key);
        let scratch = {
            // Only where messages of ours come in between the unit and its answer are put together anew.
            let adds = unit.named || !matches!(plan.asks, Asks::Nothing);
            let scratch = || if adds { self.worker.buffers.borrow_mut().take() } else { BytesMut::new() };
            (scratch(), scratch())
        };
        let mut exchange = Exchange::new(
            ClientSide { stream: &mut self.stream, input: &mut self.input, session: &mut self.session },
            connection,
            &self.worker.statements,
            &self.worker.buffers,
            plan,
            &mut noted,
            scratch,
        );
        let ran = if exchange.set_up() {
            poll_fn(|cx| exchange.poll_run(cx, unit)).await
        } else {
            Box::pin(exchange.settle_and_run(unit)).await
        };
        let outcome = exchange.outcome(ran);
        self.pending_unit = !exchange.has_taken();
        let asked = exchange.asked();
        let (to_server, to_client) = exchange.into_scratch();
        let mut buffers = self.worker.buffers.borrow_mut();
        if unit.named || asked != Asks::Nothing {
            buffers.give(to_server);
            buffers.give(to_client);
        }
        if connection.input.is_empty() {
            buffers.give(std::mem::take(&mut connection.input));
        }
        drop(buffers);
        if asked != Asks::Nothing {
            self.note_told(asked, connection, &outcome);
        }
        if let Some(before) = before.filter(|_| how.heals(&outcome)) {
            before.put_back(&mut self.session.statements);
        }
        outcome
    }

    /// Whether a cancel has come before the server was told anything. In a transaction it comes to nothing then: the server
    /// would have to fail it.
    fn is_cancelled(&self) -> bool {
        self.handle.was_meant() && self.session.status == Status::Idle
    }

    /// What SQL PREPARE and its kin, and commands about databases, need before they run.
    async fn clear_the_way(&mut self, lease: &mut Lease, unit: &Unit) -> Result<(), SettleError> {
        self.reveal_names(lease, unit).await?;
        self.vacate_databases(lease, unit).await
    }

    /// Changes of settings that wait for a commit must hear of it.
    fn tracks_transaction(&self, verdict: &Verdict) -> bool {
        verdict.effects.has(Effects::TRANSACTION)
            && (verdict.statements > 1 || !self.session.changes.is_empty() || {
                // A savepoint matters only if a setting is changed after it, which cannot be known yet.
                self.session.status == Status::Transaction
            })
    }

    fn plan(&self, unit: &Unit, lease: &Lease, place: &Place, how: How, generation: u64) -> Plan {
        Plan {
            may_heal: how.may_heal(),
            is_read: how.is_read(),
            statement_limit: u32::try_from(self.worker.settings().prepared_statements).unwrap_or(u32::MAX),
            sharing: self.sharing(unit, lease, generation),
            generation,
            user: self.pid,
            asks: self.asks(unit, place),
        }
    }

    fn sharing(&self, unit: &Unit, lease: &Lease, generation: u64) -> Sharing {
        const CHANGES: Effects = Effects::SETTINGS
            .with(Effects::UNKNOWN_SETTINGS)
            .with(Effects::DDL)
            .with(Effects::TEMPORARY)
            .with(Effects::OPAQUE);
        // It names no statement.
        if unit.simple {
            return Sharing::Nobody;
        }
        let unsure = lease.connection.unsure.is_some_and(|user| user == self.pid);
        let changed = self.sets || self.defines || unsure;
        let own = changed || unit.verdict.of_session || unit.verdict.effects.has(CHANGES);
        if own || !self.session.pins.is_empty() || !unit.is_judged() {
            Sharing::Nobody
        } else {
            Sharing::Generation { home: self.key.number(), generation }
        }
    }
}

/// What the end of a server means that was asked for something before a unit was sent to it. What it was told of the session
/// for a unit that `speaks_of_names` is gone with it.
fn unprepared(error: SettleError, speaks_of_names: bool) -> Outcome {
    let reached = if speaks_of_names { Reached::Server } else { Reached::Nobody };
    let error = match error {
        SettleError::Io(error) => error,
        SettleError::Refused { sqlstate, message } if sqlstate.starts_with("57P") => {
            io::Error::other(message)
        }
        refused @ SettleError::Refused { .. } => {
            return Outcome::ServerFailed { message: refused.to_string(), torn: false };
        }
    };
    Outcome::ServerLost { error, reached, torn: false, farewell: Farewell::None }
}
