//! One unit: judged, placed, run, and run again elsewhere where that is provably safe.

use std::time::Duration;

use bytes::{Buf, BytesMut};

use super::accept::Entrance;
use super::place::{Look, Place, cancelled};
use super::reach::Tries;
use super::serve::{Client, Life};
use crate::pool::Lease;
use crate::pool::pools::Step;
use crate::relay::heal::Refusal;
use crate::relay::{Outcome, Reached};
use crate::route::Why;
use crate::session::Unit;
use crate::session::collect::End;
use crate::session::local;
use crate::session::pins::Pins;
use crate::session::state::Bonds;
use crate::sql::{Access, Effects, Reason};
use crate::topology::{NodeId, Role};
use crate::wire::Frame;
use crate::wire::build::{self, Report};
use crate::wire::client;
use crate::wire::server::{Status, tag as server_tag};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// On the server that its session has, and nowhere else.
    Bound,
    /// On a server that was found for it.
    Placed {
        /// If the server refuses it, or dies, before the client has seen anything of the answer, it runs elsewhere.
        may_heal: bool,
        /// It is known to be a read.
        is_read: bool,
    },
}

impl How {
    pub(super) fn may_heal(self) -> bool {
        matches!(self, Self::Placed { may_heal: true, .. })
    }

    pub(super) fn is_read(self) -> bool {
        matches!(self, Self::Placed { is_read: true, .. })
    }

    /// Whether another node is to run a unit that has ended like that.
    pub(super) fn heals(self, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Refused(_) | Outcome::InVain { .. } => true,
            Outcome::ServerLost { reached, .. } => self.may_heal() && *reached != Reached::Client,
            _ => false,
        }
    }
}

/// Where a unit runs.
#[derive(Debug)]
pub(super) struct At {
    pub(super) lease: Lease,
    pub(super) place: Place,
    pub(super) how: How,
    /// What bound the session before.
    pins: Pins,
}

/// What keeps a unit from running at once.
enum Slow {
    /// Its session is in a transaction on that replica, where the unit must not run.
    Stays(Lease),
    /// There is no place for it yet, or no connection to that place; it was looked for at that time.
    Found(Result<(Look, Option<Step>), Report>, Duration),
}

/// What a unit has come to.
pub(super) enum Ended {
    /// It is over.
    Unit(Life),
    /// Nothing: it has to be tried elsewhere.
    Try,
    /// It did not come to its usual end, or something is to be asked of the server.
    Early(Box<Cut>),
}

/// A unit that did not come to its usual end.
#[derive(Debug)]
pub(super) struct Cut {
    pub(super) lease: Lease,
    pub(super) place: Place,
    pub(super) outcome: Outcome,
}

impl Client {
    /// Runs the unit at the start of the input.
    ///
    /// What seldom happens is boxed wherever it is awaited: a berth has room for the rarest step all its life. What
    /// happens with each unit is awaited in one place, the exchange; all before and behind it are plain functions.
    pub(super) async fn unit(&mut self, unit: &Unit) -> Life {
        self.pending_unit = true;
        self.handle.begins();
        if self.may_need_no_server(unit)
            && let Some(life) = Box::pin(self.answer_locally(unit)).await
        {
            return life;
        }
        if self.merely_listens(unit)
            && let Some(life) = Box::pin(self.read_elsewhere(unit)).await
        {
            return life;
        }
        self.run(unit).await
    }

    /// Runs the unit on the server that the session has, or else on one that it finds for it.
    pub(super) async fn run(&mut self, unit: &Unit) -> Life {
        let bound = self.lease.is_some();
        let mut tries = if bound { Tries::default() } else { self.tries(unit) };
        loop {
            let mut at = match self.start(unit, &tries) {
                Ok(at) => at,
                Err(slow) => match Box::pin(self.start_in_time(unit, &mut tries, slow)).await {
                    Ok(at) => at,
                    Err(life) => return life,
                },
            };
            let outcome = self.exchange(&mut at, unit).await;
            match self.end(at, unit, outcome, &mut tries) {
                Ended::Unit(life) => return life,
                Ended::Try if self.handle.was_meant() => {
                    return Box::pin(self.give_up(unit, &cancelled())).await;
                }
                Ended::Try => {}
                Ended::Early(cut) => return Box::pin(self.cut_short(unit, cut)).await,
            }
        }
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
        let leaves = || unit.verdict.effects.has(Effects::HIDDEN.with(Effects::OPAQUE));
        let listens = self.session.pins == Pins::LISTEN && self.session.bonds == Bonds::Known;
        listens
            && self.lease.is_some()
            && self.session.status == Status::Idle
            && unit.is_read()
            && unit.is_whole()
            && !leaves()
    }

    /// A read of a session that merely listens: on a replica, if one may serve it now; `None` if it is to run where the
    /// session is bound. Never on another connection to that server, which this session might wait for in vain: it holds one
    /// itself.
    async fn read_elsewhere(&mut self, unit: &Unit) -> Option<Life> {
        let mut tries = self.tries(unit);
        let (lease, place) = self.reach_replica(unit, &tries).await?;
        // What binds the session does not bind it to this connection.
        let (bound, pins) = (self.lease.take(), std::mem::take(&mut self.session.pins));
        let counted = std::mem::take(&mut self.counted_pins);
        let mut at = self.placed(unit, lease, place);
        let outcome = self.exchange(&mut at, unit).await;
        let life = match self.end(at, unit, outcome, &mut tries) {
            Ended::Unit(life) => Some(life),
            Ended::Try => None,
            Ended::Early(cut) => Some(self.cut_short(unit, cut).await),
        };
        self.lease = bound;
        self.session.pins.add(pins);
        self.counted_pins = counted;
        life
    }

    /// Where the unit runs, if that takes no wait.
    #[inline]
    fn start(&mut self, unit: &Unit, tries: &Tries) -> Result<At, Box<Slow>> {
        if let Some(lease) = self.lease.take() {
            return if self.must_not_stay(unit, &lease) {
                Err(Box::new(Slow::Stays(lease)))
            } else {
                Ok(self.stays(unit, lease))
            };
        }
        let now = self.worker.now();
        match self.find(unit, tries, now) {
            Ok((Look::Go(place), Some(Step::Lease(lease)))) => {
                let since = tries.unproven().unwrap_or(now);
                self.worker.metrics.added_latency(now.saturating_sub(since));
                Ok(self.placed(unit, lease, place))
            }
            found => Err(Box::new(Slow::Found(found, now))),
        }
    }

    /// Where the unit runs, if that does take a wait. Whatever else becomes of it has been told to the client.
    async fn start_in_time(&mut self, unit: &Unit, tries: &mut Tries, slow: Box<Slow>) -> Result<At, Life> {
        let reached = match *slow {
            Slow::Stays(lease) => {
                let begun = self.begun.take();
                let lease = self.stay_or_move(lease, begun, unit).await?;
                return Ok(self.stays(unit, lease));
            }
            Slow::Found(Ok(found), now) => {
                let began = tries.unproven().unwrap_or(now);
                self.reach_in_time(unit, tries, began, found).await
            }
            Slow::Found(Err(report), _) => Err(report),
        };
        match reached {
            Ok((lease, place)) => Ok(self.placed(unit, lease, place)),
            Err(report) => Err(self.give_up(unit, &report).await),
        }
    }

    /// Whether the next unit of a transaction on a replica must not run there, or may not.
    fn must_not_stay(&self, unit: &Unit, lease: &Lease) -> bool {
        (unit.verdict.binds() || unit.verdict.read_write)
            && self.session.status != Status::Idle
            && self.entrance == Entrance::Usual
            && self.role(lease.connection.node) == Role::Replica
    }

    /// The next unit of a transaction, or of a session that is bound to its server.
    fn stays(&mut self, unit: &Unit, lease: Lease) -> At {
        // A Sync alone leaves the transaction as it began.
        if unit.any {
            self.begun = None;
        }
        let node = lease.connection.node;
        let role = self.role(node);
        let mut why = Why::Pinned;
        if self.session.status == Status::Idle {
            self.transaction = self.kind_of(unit, role);
        } else if let Some(last) = self.session.last {
            if self.transaction == TransactionKind::ReadOnly && last.role == Role::Primary {
                // On the primary, SET TRANSACTION READ WRITE may have made a writer of it.
                self.transaction = TransactionKind::MayWrite;
            }
            why = last.why;
        }
        let place = Place { server_epoch: lease.connection.epoch, node, role, why, proof: None };
        At { lease, place, how: How::Bound, pins: self.session.pins }
    }

    /// A unit that has found its server.
    fn placed(&mut self, unit: &Unit, lease: Lease, place: Place) -> At {
        let how = self.how(unit, &place);
        At { lease, place, how, pins: self.session.pins }
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
        How::Placed { may_heal, is_read: unit.is_read() && !self.session.hides_ascii() }
    }

    /// What has come of a unit that ran there.
    #[inline]
    fn end(&mut self, at: At, unit: &Unit, outcome: Outcome, tries: &mut Tries) -> Ended {
        let done = matches!(outcome, Outcome::Done(_));
        if !done && at.how != How::Bound && self.is_to_be_tried(&at, unit, &outcome, tries) {
            if let Outcome::InVain { pass } = outcome {
                return self.end_in_vain(at, pass);
            }
            // Where it was refused, whatever a function did before stays on that connection: it ends, too.
            self.worker.pools.borrow_mut().end(at.lease);
            self.handle.rests();
            // Nothing has come of it that could bind the session to that server.
            self.session.pins = at.pins;
            return Ended::Try;
        }
        self.after(at.lease, at.place, unit, outcome)
    }

    /// Whether the client has seen nothing of a unit, and it has to be tried elsewhere.
    fn is_to_be_tried(&mut self, at: &At, unit: &Unit, outcome: &Outcome, tries: &mut Tries) -> bool {
        let node = at.place.node;
        let unsent = matches!(outcome, Outcome::ServerLost { reached: Reached::Nobody, .. });
        match outcome {
            Outcome::Refused(Refusal::NotARead) => {
                self.learn(unit);
                tries.forced = Some(Why::Healed);
            }
            Outcome::InVain { .. } => {
                tries.ran_in_vain(self.worker.about_now());
                return true;
            }
            Outcome::Refused(_) => tries.avoid(node),
            Outcome::ServerLost { .. } if at.how.heals(outcome) => {
                self.worker.polls.kick(node);
                tries.avoid(node);
            }
            // A pooled connection that has just ended: even a write has not run there.
            Outcome::ServerLost { .. } if unsent && tries.may_take_another() => {
                self.worker.polls.kick(node);
            }
            _ => return false,
        }
        // What was cancelled is not tried again.
        if !self.handle.was_meant() {
            if unsent {
                self.worker.metrics.retaken(node);
            } else {
                self.worker.metrics.healed(node);
            }
        }
        true
    }

    fn kind_of(&self, unit: &Unit, role: Role) -> TransactionKind {
        let judged = || !self.session.hides_ascii() && (unit.is_read() || self.begins_read_only(unit));
        let read = role == Role::Replica || judged();
        if read { TransactionKind::ReadOnly } else { TransactionKind::MayWrite }
    }

    pub(super) fn role(&self, node: NodeId) -> Role {
        self.worker.topology().node(node).map_or(Role::Unknown, |n| n.role)
    }

    pub(super) fn node_name(&self, node: NodeId) -> String {
        self.worker.topology().node(node).map_or_else(String::new, |n| n.name.to_string())
    }
}
