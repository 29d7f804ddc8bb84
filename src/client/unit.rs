//! One unit: judged, placed, run, and run again elsewhere where that is provably safe.

use std::io;

use bytes::{Buf, BytesMut};

use super::accept::Entrance;
use super::place::{Place, cancelled};
use super::reach::Tries;
use super::serve::{Client, Life};
use crate::pool::Lease;
use crate::relay::exchange::{ClientSide, Farewell, Plan};
use crate::relay::heal::Refusal;
use crate::relay::{Exchange, Outcome, Reached, SettleError};
use crate::route::{RouteHint, Want, Why};
use crate::session::collect::End;
use crate::session::local;
use crate::session::notes::{Notes, notes};
use crate::session::pins::Pins;
use crate::session::state::Bonds;
use crate::session::translate::Sharing;
use crate::session::undo::NamesBefore;
use crate::session::{Unit, Verdict};
use crate::sql::{Access, Effects, Reason};
use crate::topology::{NodeId, Role};
use crate::wire::Frame;
use crate::wire::build::{self, Report};
use crate::wire::client;
use crate::wire::server::{Status, tag as server_tag};
use crate::wire::sqlstate;

/// What the transaction that is under way counts as when it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum TransactionKind {
    /// It may have written.
    #[default]
    MayWrite,
    /// It cannot have written.
    ReadOnly,
}

/// How a unit runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct How {
    /// If the server refuses it, or dies, before the client has seen anything of the answer, it runs elsewhere.
    may_heal: bool,
    /// It is known to be a read.
    is_read: bool,
}

impl How {
    /// Whether another node is to run a unit that has ended like that.
    fn heals(self, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Refused(_) => true,
            Outcome::ServerLost { reached, .. } => self.may_heal && *reached != Reached::Client,
            _ => false,
        }
    }
}

impl Client {
    /// Runs the unit at the start of the input.
    ///
    /// What seldom happens is boxed wherever it is awaited: a client's task has room for its rarest step all its life.
    pub(super) async fn unit(&mut self, unit: &Unit) -> Life {
        self.pending_unit = true;
        self.handle.begins();
        if self.may_need_no_server(unit)
            && let Some(life) = Box::pin(self.answer_locally(unit)).await
        {
            return life;
        }
        if self.lease.is_some() {
            return if self.merely_listens(unit) {
                Box::pin(self.read_elsewhere(unit)).await
            } else {
                self.run_on_lease(unit).await
            };
        }
        self.run_placed(unit).await
    }

    fn may_need_no_server(&self, unit: &Unit) -> bool {
        self.session.lost.is_some()
            || !unit.any
            || unit.only_closes
            || unit.verdict.access() == Access::Primary(Reason::SessionState)
    }

    /// Units that need no server.
    async fn answer_locally(&mut self, unit: &Unit) -> Option<Life> {
        if let Some(lost) = self.session.lost {
            return self.answer_lost(unit, lost).await;
        }
        if !unit.is_whole() || self.session.status == Status::Failed {
            return None;
        }
        let mut out = BytesMut::new();
        if !unit.any {
            if self.lease.is_some() {
                return None;
            }
            build::ready_for_query(&mut out, self.session.status);
        } else if unit.only_closes && self.session.pins.is_empty() {
            let mut rest = self.input.get(..unit.len).unwrap_or_default();
            while let Ok(Some(frame)) = Frame::peek(rest) {
                if let Some(client::Target::Statement(name)) = frame.body(rest).and_then(client::target) {
                    if name.is_empty() {
                        self.session.statements.drop_unnamed();
                    }
                    self.session.statements.remove(name);
                    build::bare(&mut out, server_tag::CLOSE_COMPLETE);
                }
                rest = rest.get(frame.len..).unwrap_or_default();
            }
            if unit.end == End::Closed {
                build::ready_for_query(&mut out, self.session.status);
            }
        } else if unit.verdict.access() == Access::Primary(Reason::SessionState) {
            let topology = self.worker.topology();
            let names = self.names.get();
            let messages = self.input.get(..unit.len).unwrap_or_default();
            let nodes = local::Nodes { topology: &topology, now: self.worker.now() };
            let mut table = self.worker.statements.borrow_mut();
            local::answer(messages, &mut self.session, &**names, nodes, &mut table, &mut out)?;
        } else {
            return None;
        }
        self.input.advance(unit.len);
        Some(self.say(&out).await)
    }

    /// Whether the unit is a read of a session that nothing but LISTEN binds: its server only has to be there.
    fn merely_listens(&self, unit: &Unit) -> bool {
        let leaves = unit.verdict.effects.has(Effects::HIDDEN.with(Effects::OPAQUE));
        let listens = self.session.pins == Pins::LISTEN && self.session.bonds == Bonds::Known;
        listens && self.session.status == Status::Idle && unit.is_read() && unit.is_whole() && !leaves
    }

    /// A read of a session that merely listens: on a replica, if one may serve it now, else where the session is bound. Never
    /// on another connection to that server, which this session might wait for in vain: it holds one itself.
    async fn read_elsewhere(&mut self, unit: &Unit) -> Life {
        let mut tries = self.tries(unit);
        let Some((mut lease, place)) = self.reach_replica(unit, &tries).await else {
            return self.run_on_lease(unit).await;
        };
        // What binds the session does not bind it to this connection.
        let (bound, pins) = (self.lease.take(), std::mem::take(&mut self.session.pins));
        let counted = std::mem::take(&mut self.counted_pins);
        let how = self.how(unit, &place);
        let outcome = self.exchange(&mut lease, unit, how).await;
        let seen = self.seen(outcome, lease, place, unit, how, &mut tries);
        let life = match seen {
            Some((lease, outcome)) => Some(self.after(lease, place, unit, outcome).await),
            None => None,
        };
        self.lease = bound;
        self.session.pins.add(pins);
        self.counted_pins = counted;
        match life {
            Some(life) => life,
            None => self.run_on_lease(unit).await,
        }
    }

    /// The next unit of a transaction, or of a session that is bound to its server.
    async fn run_on_lease(&mut self, unit: &Unit) -> Life {
        let Some(mut lease) = self.lease.take() else { return Life::Ends };
        // A Sync alone leaves the transaction as it began.
        let begun = if unit.any { self.begun.take() } else { None };
        let mut role = self.role(lease.connection.node);
        let restless = unit.verdict.binds() || unit.verdict.read_write;
        if role == Role::Replica
            && restless
            && self.session.status != Status::Idle
            && self.entrance == Entrance::Usual
        {
            lease = match Box::pin(self.stay_or_move(lease, begun, unit)).await {
                Ok(lease) => lease,
                Err(life) => return life,
            };
            role = self.role(lease.connection.node);
        }
        let node = lease.connection.node;
        if self.session.status == Status::Idle {
            self.transaction = self.kind_of(unit, role);
        } else if self.transaction == TransactionKind::ReadOnly
            && self.session.last.is_some_and(|l| l.role == Role::Primary)
        {
            // On the primary, SET TRANSACTION READ WRITE may have made a writer of it.
            self.transaction = TransactionKind::MayWrite;
        }
        let place = Place {
            server_epoch: lease.connection.epoch,
            node,
            role,
            why: if self.session.status == Status::Idle {
                Why::Pinned
            } else {
                self.session.last.map_or(Why::Pinned, |l| l.why)
            },
        };
        let outcome = self.exchange(&mut lease, unit, How::default()).await;
        self.after(lease, place, unit, outcome).await
    }

    /// A unit that finds its own server.
    pub(super) async fn run_placed(&mut self, unit: &Unit) -> Life {
        let mut tries = self.tries(unit);
        let report = loop {
            let now = self.worker.now();
            let (mut lease, place) = match self.reach(unit, &mut tries, now).await {
                Ok(reached) => reached,
                // What is matched on would keep its room in the task through an await in here.
                Err(report) => break report,
            };
            let how = self.how(unit, &place);
            let pins = self.session.pins;
            let outcome = self.exchange(&mut lease, unit, how).await;
            if let Some((lease, outcome)) = self.seen(outcome, lease, place, unit, how, &mut tries) {
                return self.after(lease, place, unit, outcome).await;
            }
            // Nothing has come of it that could bind the session to that server.
            self.session.pins = pins;
            if self.handle.was_meant() {
                break cancelled();
            }
        };
        Box::pin(self.give_up(unit, &report)).await
    }

    /// How a unit runs at that place, outside of any transaction.
    fn how(&mut self, unit: &Unit, place: &Place) -> How {
        self.transaction = self.kind_of(unit, place.role);
        let alone = place.role == Role::Replica && unit.is_judged() && unit.verdict.statements == 1;
        self.begun = unit.verdict.begin.filter(|_| alone);
        // Healing needs that we chose the replica, that no transaction block is open, and that the
        // whole unit can be sent again (FACTS 3.4).
        let may_heal = place.role == Role::Replica
            && place.why == Why::Read
            && unit.is_whole()
            && !unit.verdict.effects.has(Effects::EXTERNAL.with(Effects::ADVISORY_LOCK).with(Effects::SEED));
        How { may_heal, is_read: unit.is_read() && !self.session.hides_ascii() }
    }

    /// What the client has seen of a unit; `None` if that is nothing, and it has to be tried elsewhere.
    fn seen(
        &mut self,
        outcome: Outcome,
        lease: Lease,
        place: Place,
        unit: &Unit,
        how: How,
        tries: &mut Tries,
    ) -> Option<(Lease, Outcome)> {
        let healed = how.heals(&outcome);
        let unsent = matches!(outcome, Outcome::ServerLost { reached: Reached::Nobody, .. });
        match outcome {
            Outcome::Refused(Refusal::NotARead) => {
                self.learn(unit);
                tries.forced = Some(Why::Healed);
            }
            Outcome::Refused(_) => tries.avoid(place.node),
            Outcome::ServerLost { .. } if healed => {
                self.worker.polls.kick(place.node);
                tries.avoid(place.node);
            }
            // A pooled connection that has just ended: even a write has not run there.
            Outcome::ServerLost { .. } if unsent && tries.may_take_another() => {
                self.worker.polls.kick(place.node);
            }
            outcome => return Some((lease, outcome)),
        }
        // What was cancelled is not tried again.
        if !self.handle.was_meant() {
            if unsent {
                self.worker.metrics.retaken(place.node);
            } else {
                self.worker.metrics.healed(place.node);
            }
        }
        // Where it was refused, whatever a function did before stays on that connection: it ends, too.
        self.worker.pools.borrow_mut().end(lease);
        self.handle.rests();
        None
    }

    fn plan(&self, unit: &Unit, lease: &Lease, how: How, generation: u64) -> Plan {
        Plan {
            may_heal: how.may_heal,
            is_read: how.is_read,
            statement_limit: self.worker.settings().prepared_statements,
            sharing: self.sharing(unit, lease, generation),
            generation,
            user: self.pid,
        }
    }

    /// What the unit asks for, before freshness comes into it.
    pub(super) fn want(&self, unit: &Unit, route: Option<RouteHint>) -> Result<Want, Report> {
        if self.entrance == Entrance::Replica {
            return Ok(Want::Replica);
        }
        let verdict = &unit.verdict;
        let serializable = self.session.default_serializable();
        let begins_read_only = self.begins_read_only(unit);
        let access = verdict.access();
        let is_read = unit.is_read();
        if route == Some(RouteHint::Primary) {
            return Ok(Want::Primary(Why::Hint));
        }
        if route == Some(RouteHint::Replica) {
            if is_read || begins_read_only {
                return Ok(Want::Replica);
            }
            let unknown = !self.catalog.is_known() && self.catalog_would_matter(access);
            if unit.is_whole()
                && !unknown
                && !matches!(access, Access::Primary(Reason::SessionState | Reason::Transaction))
            {
                return Err(Report::error(
                    sqlstate::READ_ONLY_TRANSACTION,
                    "this statement is not known to be a read, and was told to go to a replica",
                )
                .hint("SET tidegate.route = auto, or take the routing comment away."));
            }
        }
        if !unit.is_judged() || verdict.texts == 0 || self.session.hides_ascii() {
            return Ok(Want::Primary(Why::Unjudged));
        }
        if begins_read_only {
            return Ok(Want::Read(Why::ReadOnlyTransaction));
        }
        match access {
            // No standby takes a SERIALIZABLE transaction, not even one of a single statement.
            Access::Read if serializable => Ok(Want::Primary(Why::Statement(Reason::Transaction))),
            Access::Read if self.is_learned(unit) => Ok(Want::Primary(Why::Learned)),
            Access::Read => Ok(Want::Read(Why::Read)),
            Access::Primary(_) if !self.catalog.is_known() && self.catalog_would_matter(access) => {
                Ok(Want::Primary(Why::CatalogUnknown))
            }
            Access::Primary(reason) => Ok(Want::Primary(Why::Statement(reason))),
        }
    }

    fn catalog_would_matter(&self, access: Access) -> bool {
        matches!(access, Access::Primary(Reason::UnknownFunction | Reason::Relation))
    }

    fn begins_read_only(&self, unit: &Unit) -> bool {
        let (read_only, serializable) =
            (self.session.default_read_only(), self.session.default_serializable());
        unit.is_judged() && unit.verdict.begins_read_only(read_only, serializable)
    }

    fn kind_of(&self, unit: &Unit, role: Role) -> TransactionKind {
        let judged = || !self.session.hides_ascii() && (unit.is_read() || self.begins_read_only(unit));
        let read = role == Role::Replica || judged();
        if read { TransactionKind::ReadOnly } else { TransactionKind::MayWrite }
    }

    /// Runs the unit on a lease.
    async fn exchange(&mut self, lease: &mut Lease, unit: &Unit, how: How) -> Outcome {
        // While a connection was made, say. What comes further on tells the server something of the session already.
        if self.is_cancelled() {
            return Outcome::Cancelled;
        }
        let generation = self.catalog.generation();
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
            match Box::pin(self.check_shapes(lease, unit, generation)).await {
                Ok(true) => {}
                Ok(false) => return Outcome::PlanChanged,
                Err(error) => return unprepared(error, speaks_of_names),
            }
        }
        let before = (how.may_heal && unit.named).then(|| {
            NamesBefore::read(self.input.get(..unit.len).unwrap_or_default(), &self.session.statements)
        });
        let plan = self.plan(unit, lease, how, generation);
        let connection = &mut lease.connection;
        self.handle.runs(connection.node, connection.pid, &connection.key);
        let scratch = {
            let mut buffers = self.worker.buffers.borrow_mut();
            if connection.input.capacity() == 0 {
                connection.input = buffers.take();
            }
            // Only where messages of ours come in between the unit and its answer are put together anew.
            let mut scratch = || if unit.named { buffers.take() } else { BytesMut::new() };
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
        let ran = exchange.run(unit).await;
        let outcome = exchange.outcome(ran);
        self.pending_unit = !exchange.has_taken();
        let (to_server, to_client) = exchange.into_scratch();
        let mut buffers = self.worker.buffers.borrow_mut();
        if unit.named {
            buffers.give(to_server);
            buffers.give(to_client);
        }
        if connection.input.is_empty() {
            buffers.give(std::mem::take(&mut connection.input));
        }
        drop(buffers);
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

    pub(super) fn role(&self, node: NodeId) -> Role {
        self.worker.topology().node(node).map_or(Role::Unknown, |n| n.role)
    }

    pub(super) fn node_name(&self, node: NodeId) -> String {
        self.worker.topology().node(node).map_or_else(String::new, |n| n.name.to_string())
    }

    fn sharing(&self, unit: &Unit, lease: &Lease, generation: u64) -> Sharing {
        const CHANGES: Effects = Effects::SETTINGS
            .with(Effects::UNKNOWN_SETTINGS)
            .with(Effects::DDL)
            .with(Effects::TEMPORARY)
            .with(Effects::OPAQUE);
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
