//! What the end of a unit means: for counters, for freshness, for the lease, for the client.

use bytes::Buf;

use super::place::{Place, cancelled};
use super::serve::{Client, Life};
use super::unit::{Cut, Ended, TransactionKind};
use crate::monitor::PollsHandle;
use crate::pool::Lease;
use crate::relay::{Farewell, Outcome, Reached};
use crate::route::Open;
use crate::server::Connection;
use crate::session::Unit;
use crate::session::local;
use crate::session::state::{Bonds, LastRoute, Lost};
use crate::sql::Effects;
use crate::topology::{Role, Topology};
use crate::wire::build::{self, Report};
use crate::wire::server::Status;
use crate::wire::sqlstate;

/// What has ended on a connection, as something that the session has to see again.
pub(super) fn open(polls: &PollsHandle, connection: &Connection) -> Open {
    let Connection { node, epoch, .. } = *connection;
    Open { node, ticket: polls.next(node), server_epoch: epoch, of_standby: connection.is_standby() }
}

impl Client {
    /// What a unit leaves: counters, freshness, and a lease that goes back or stays.
    #[inline]
    pub(super) fn after(&mut self, mut lease: Lease, place: Place, unit: &Unit, outcome: Outcome) -> Ended {
        let hunted = self.handle.rests();
        lease.connection.tainted |= hunted;
        if matches!(outcome, Outcome::Cancelled) {
            return Ended::Early(Box::new(Cut { lease, place, outcome }));
        }
        let is_read = self.transaction == TransactionKind::ReadOnly;
        self.worker.metrics.unit(place.node, is_read, place.why);
        self.session.doubt(unit, self.counted_pins);
        self.count_pins();
        self.worker.polls.flowed(place.node);
        self.session.last = Some(LastRoute { node: place.node, role: place.role, why: place.why });
        let effects = unit.verdict.effects;
        self.defines |= effects.has(Effects::DDL);
        self.sets |= effects.has(Effects::SETTINGS.with(Effects::UNKNOWN_SETTINGS).with(Effects::OPAQUE));
        if effects.has(Effects::OPAQUE) || !unit.is_judged() {
            lease.connection.unsure = Some(self.pid);
        }
        match outcome {
            Outcome::Done(Status::Idle) => {
                self.sets = false;
                let topology = self.worker.topology();
                self.record(&mut lease.connection, &topology);
                self.tell_of_definitions();
                if self.session.bonds == Bonds::InDoubt {
                    return Ended::Early(Box::new(Cut { lease, place, outcome }));
                }
                self.keep_or_give_back_by(lease, &topology);
                Ended::Unit(Life::GoesOn)
            }
            Outcome::Done(_) => {
                self.lease = Some(lease);
                Ended::Unit(Life::GoesOn)
            }
            outcome => Ended::Early(Box::new(Cut { lease, place, outcome })),
        }
    }

    /// Tells the counters what binds the session now.
    pub(super) fn count_pins(&mut self) {
        if self.session.pins != self.counted_pins {
            self.worker.metrics.pinned(self.counted_pins.kinds(), self.session.pins.kinds());
            self.counted_pins = self.session.pins;
        }
    }

    /// The unit did not come to its usual end.
    pub(super) async fn cut_short(&mut self, unit: &Unit, cut: Box<Cut>) -> Life {
        let Cut { mut lease, place, outcome } = *cut;
        if !matches!(outcome, Outcome::Done(_) | Outcome::Cancelled) {
            tracing::debug!(node = ?place.node, why = place.why.label(), ?outcome, "a unit was cut short");
        }
        match outcome {
            // No text tells whether something binds the session now.
            Outcome::Done(_) => self.ask_what_binds(lease, place).await,
            Outcome::Cancelled => {
                // It has left nothing, neither here nor there.
                self.keep_or_give_back(lease);
                self.give_up(unit, &cancelled()).await
            }
            Outcome::ClientGone => {
                self.record(&mut lease.connection, &self.worker.topology());
                self.tell_of_definitions();
                self.worker.pools.borrow_mut().end(lease);
                Life::Ends
            }
            Outcome::TooManyStatements => {
                self.end_lease(lease);
                self.fatal(&Report { severity: build::Severity::Fatal, ..local::too_many() }).await
            }
            Outcome::ServerLost { farewell: Farewell::Fatal, .. } => {
                // PostgreSQL has told the client that its connection ends, and why.
                self.end_lease(lease);
                Life::Ends
            }
            Outcome::ServerLost { error, reached, torn, farewell } => {
                self.end_lease(lease);
                self.worker.polls.kick(place.node);
                let report = Report::error(
                    sqlstate::CONNECTION_FAILURE,
                    format!("the connection to node {} broke: {error}", self.node_name(place.node)),
                )
                .detail(match reached {
                    Reached::Nobody => "Nothing of the statement was sent: it did not take effect.",
                    Reached::Server | Reached::Client => "It is not known whether the statement took effect.",
                });
                self.broke_off(unit, torn, farewell, &report).await
            }
            Outcome::ServerFailed { message, torn } => {
                self.end_lease(lease);
                let report = Report::error(sqlstate::CONNECTION_FAILURE, message)
                    .detail(format!("Node {}.", self.node_name(place.node)));
                self.broke_off(unit, torn, Farewell::None, &report).await
            }
            Outcome::PlanChanged => {
                self.session.status = lease.connection.status;
                if lease.connection.status == Status::Idle {
                    self.keep_or_give_back(lease);
                } else {
                    self.lease = Some(lease);
                }
                self.drop_unit(unit);
                let message = "cached plan must not change result type";
                self.fail(unit, &Report::error(sqlstate::FEATURE_NOT_SUPPORTED, message)).await
            }
            // It was to be run elsewhere, or anew.
            Outcome::Refused(_) | Outcome::InVain { .. } => {
                self.end_lease(lease);
                self.fatal(&Report::fatal(
                    sqlstate::CONNECTION_EXCEPTION,
                    "a refused statement was not run elsewhere",
                ))
                .await
            }
        }
    }

    /// What the transaction has changed of definitions, if it has, everybody is to look up anew.
    fn tell_of_definitions(&mut self) {
        if std::mem::take(&mut self.defines) {
            self.names.catalog().refresh();
        }
    }

    /// What the end of a transaction on a connection means for freshness.
    pub(super) fn record(&mut self, connection: &mut Connection, topology: &Topology) {
        let open = open(&self.worker.polls, connection);
        if self.transaction == TransactionKind::ReadOnly {
            self.session.freshness.read_on(open, topology, self.session.level);
        } else {
            match connection.told.take() {
                Some(lsn) => self.session.freshness.wrote_up_to(lsn, open, topology),
                None => self.session.freshness.wrote(open, topology),
            }
        }
        // What was seen on a standby keeps its session from other standbys only until the next poll, which is soon enough.
        if topology.node(connection.node).is_none_or(|n| n.role != Role::Replica) {
            self.worker.polls.kick_if_resting(connection.node);
        }
    }

    /// A session that is bound to its server keeps the connection between transactions, too.
    pub(super) fn keep_or_give_back(&mut self, lease: Lease) {
        let topology = self.worker.topology();
        self.keep_or_give_back_by(lease, &topology);
    }

    fn keep_or_give_back_by(&mut self, lease: Lease, topology: &Topology) {
        if self.session.pins.is_empty() {
            self.worker.give_back(lease, topology);
        } else {
            self.lease = Some(lease);
        }
    }

    pub(super) fn give_back(&self, lease: Lease) {
        self.worker.give_back(lease, &self.worker.topology());
    }

    pub(super) fn end_lease(&mut self, mut lease: Lease) {
        // Sent but not answered: it may have taken effect.
        self.record(&mut lease.connection, &self.worker.topology());
        self.worker.pools.borrow_mut().end(lease);
        self.session.abandon();
        self.tell_of_definitions();
    }

    /// The server is gone in the middle of a unit.
    async fn broke_off(&mut self, unit: &Unit, torn: bool, farewell: Farewell, report: &Report) -> Life {
        let bound = !self.session.pins.is_empty();
        if torn || bound || !unit.is_whole() {
            return self.fatal(&Report { severity: build::Severity::Fatal, ..report.clone() }).await;
        }
        if self.session.status != Status::Idle {
            // The rest of a transaction must not run as if it had never begun.
            self.session.lose(Lost::Told);
        }
        self.drop_unit(unit);
        if farewell == Farewell::None {
            return self.fail(unit, report).await;
        }
        self.worker.count_error(report);
        self.after_error(unit).await
    }

    /// The unit is not run: the client is told, and may go on.
    pub(super) async fn give_up(&mut self, unit: &Unit, report: &Report) -> Life {
        if !unit.is_whole() {
            return self.fatal(&Report { severity: build::Severity::Fatal, ..report.clone() }).await;
        }
        self.drop_unit(unit);
        self.fail(unit, report).await
    }

    /// Takes a unit out of the input that an exchange has left there.
    fn drop_unit(&mut self, unit: &Unit) {
        if self.pending_unit {
            self.input.advance(unit.len);
        }
    }
}
