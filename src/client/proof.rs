//! Positions that servers tell of themselves: behind a write, so that what its session has to see is known at once; and in
//! front of a read, so that it need not wait for a poll.

use std::time::Duration;

use super::place::Place;
use super::serve::Client;
use super::unit::{At, Ended, TransactionKind};
use super::worker::Worker;
use crate::net::spawn;
use crate::net::timers::timeout;
use crate::pool::Lease;
use crate::relay::{Asks, Outcome, drain};
use crate::route::{Level, RouteHint, Want, Why};
use crate::server::Connection;
use crate::session::Unit;
use crate::session::collect::End;
use crate::sql::Effects;
use crate::topology::Role;
use crate::wire::server::Status;

/// A read that nobody waits for may go on for so long, for the sake of its connection; then it is cancelled.
const PATIENCE: Duration = Duration::from_millis(20);

impl Client {
    /// Whether a replica may be asked in front of a read whether it has replayed what the read must show: nobody sees the
    /// answer of one that has not, and nothing else may come of it.
    pub(super) fn may_prove(&self, unit: &Unit, want: Want) -> bool {
        want == Want::Read(Why::Read)
            && !self.mute
            && unit.is_whole()
            && unit.verdict.effects == Effects::default()
    }

    /// What the server is asked besides the unit.
    pub(super) fn asks(&self, unit: &Unit, place: &Place) -> Asks {
        match place.proof {
            Some(proof) => Asks::Proof(proof),
            None if place.role == Role::Primary && self.ends_a_write(unit) && !self.mute => Asks::Position,
            None => Asks::Nothing,
        }
    }

    /// Whether no transaction is under way behind the unit, which may have written, and a read may follow that has to show it.
    fn ends_a_write(&self, unit: &Unit) -> bool {
        let verdict = &unit.verdict;
        let ends = match self.session.status {
            // What begins a transaction must not have anything run in it that takes a snapshot before the client says so. And
            // a server that takes in COPY data takes in everything.
            Status::Idle => {
                verdict.statements == 1 && !verdict.effects.has(Effects::COPY_IN.with(Effects::TRANSACTION))
            }
            Status::Transaction => verdict.commits,
            Status::Failed => false,
        };
        ends && self.transaction == TransactionKind::MayWrite
            && unit.is_judged()
            && unit.executes
            && !self.session.hides_ascii()
            && !self.session.default_serializable()
            && unit.end == End::Closed
            && !unit.mixed
            && self.session.level != Level::Eventual
            && self.session.route != Some(RouteHint::Primary)
            && self.session.freshness.expects_reads()
            && self.worker.topology().replicas().next().is_some()
    }

    /// Remembers what a server has said that was asked.
    pub(super) fn note_told(&mut self, asked: Asks, server: &mut Connection, outcome: &Outcome) {
        self.mute |= std::mem::take(&mut server.mute);
        if asked == Asks::Position {
            return;
        }
        let (in_vain, told) = (matches!(outcome, Outcome::InVain { .. }), server.told.take());
        if !in_vain && (told.is_none() || matches!(outcome, Outcome::ServerLost { .. })) {
            return;
        }
        let lsn = told.unwrap_or_default();
        let worker = &self.worker;
        let next = worker.polls.next(server.node);
        worker.heard.borrow_mut().note(server.node, server.epoch, lsn, in_vain.then_some(next));
        let epoch = worker.topology().node(server.node).map(|node| node.server_epoch);
        if told.is_some() && epoch == Some(server.epoch) {
            // Whoever waits for that need not wait for a poll.
            worker.polls.heard(server.node, server.asked_at);
            worker.waiters.borrow_mut().wake_up_to(lsn);
        }
        self.worker.metrics.proof(server.node, !in_vain);
    }

    /// Nothing of a read has come to the client: it is to be run anew. The rest of its answer, with so many bytes of the
    /// current message, is not waited for.
    pub(super) fn end_in_vain(&mut self, at: At, pass: usize) -> Ended {
        let mut lease = at.lease;
        lease.connection.tainted |= self.handle.rests();
        if lease.connection.replies.ready_to_come() == 0 {
            self.give_back(lease);
        } else {
            // The role's place among the pools is kept for as long as its connection is out.
            let (worker, role) = (self.worker.clone(), self.identity.clone());
            spawn(async move {
                finish(&worker, lease, pass).await;
                drop(role);
            });
        }
        Ended::Try
    }
}

/// Waits until a read is over that nobody waits for, and sees to it that it is before long.
async fn finish(worker: &Worker, mut lease: Lease, pass: usize) {
    let over = timeout(PATIENCE, drain(&mut lease.connection, pass)).await;
    if matches!(over, Ok(Ok(()))) {
        return worker.give_back(lease, &worker.topology());
    }
    if over.is_err() {
        let Connection { node, pid, ref key, .. } = *lease.connection;
        worker.cancel(node, pid, key).await;
    }
    worker.pools.borrow_mut().end(lease);
}
