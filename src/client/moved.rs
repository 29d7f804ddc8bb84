//! Transactions that cannot go on where they began: their server is gone, or it is a replica and must not be.

use bytes::{Buf, BytesMut};

use super::lease::{NoLease, lease};
use super::serve::{Client, Life};
use super::unit::TransactionKind;
use crate::pool::Lease;
use crate::relay::{begin, settle};
use crate::route::Why;
use crate::session::state::{LastRoute, Lost};
use crate::session::{Unit, local};
use crate::sql::Access;
use crate::sql::command::{Isolation, Modes};
use crate::wire::build::Report;
use crate::wire::sqlstate;

const SERVER_LOST: &str = "the server connection broke, and the transaction with it";

impl Client {
    /// A unit of a transaction whose server is gone.
    pub(super) async fn answer_lost(&mut self, unit: &Unit, lost: Lost) -> Option<Life> {
        if !unit.is_whole() {
            return Some(self.fatal(&Report::fatal(sqlstate::CONNECTION_FAILURE, SERVER_LOST)).await);
        }
        if lost == Lost::Untold && unit.any {
            self.session.lost = Some(Lost::Told);
            self.input.advance(unit.len);
            let report = Report::error(sqlstate::CONNECTION_FAILURE, SERVER_LOST);
            return Some(self.fail(unit, &report).await);
        }
        let mut out = BytesMut::new();
        let names = self.names.get();
        let messages = self.input.get(..unit.len).unwrap_or_default();
        let table = &self.worker.statements;
        let answer =
            local::answer_lost(messages, &mut self.session, &**names, &mut table.borrow_mut(), &mut out);
        if answer == local::LostAnswer::Over {
            // The client goes on behind its end in the same breath; the server says no more than a warning to that.
            return None;
        }
        self.input.advance(unit.len);
        Some(self.say(&out).await)
    }

    /// Goes on with a READ ONLY transaction, in which nothing has run yet, on the primary.
    pub(super) async fn move_to_primary(
        &mut self,
        old: Lease,
        modes: Modes,
        unit: &Unit,
    ) -> Result<Lease, Report> {
        let node = old.connection.node;
        old.connection.close();
        self.worker.pools.borrow_mut().seat(node, old.permit);
        self.handle.rests();
        let why = match unit.verdict.access() {
            Access::Primary(reason) => Why::Statement(reason),
            Access::Read => Why::Unjudged,
        };
        let place = self.place(unit, Some(why), &[], self.worker.now()).await?;
        let taken = lease(&self.worker, place.node, self.key, &self.identity, &self.handle).await;
        let mut lease = taken.map_err(|error| match error {
            NoLease::Refused(report) => report,
            NoLease::Unreachable(why) => Report::error(sqlstate::CANNOT_CONNECT, why),
        })?;
        let isolation = match modes.isolation {
            Some(Isolation::ReadCommitted) => " ISOLATION LEVEL READ COMMITTED",
            Some(Isolation::RepeatableRead) => " ISOLATION LEVEL REPEATABLE READ",
            Some(Isolation::Serializable) => " ISOLATION LEVEL SERIALIZABLE",
            None => "",
        };
        let mode = if modes.read_only == Some(true) { " READ ONLY" } else { "" };
        let mut ready = settle(&mut lease.connection, &self.session.settings, self.pid).await;
        if ready.is_ok() {
            ready = begin(&mut lease.connection, &format!("BEGIN{isolation}{mode}")).await;
        }
        if let Err(error) = ready {
            let report = Report::error(sqlstate::CONNECTION_FAILURE, error.to_string());
            self.end_lease(lease, place.node);
            return Err(report);
        }
        self.transaction = TransactionKind::MayWrite;
        self.session.last = Some(LastRoute { node: place.node, role: place.role, why });
        Ok(lease)
    }
}

pub(super) fn binding_on_replica() -> Report {
    Report::error(
        sqlstate::READ_ONLY_TRANSACTION,
        "this statement cannot run in a READ ONLY transaction that has read from a replica",
    )
    .detail("It would bind the session to the replica, or take a lock there that nobody else sees.")
    .hint("Make it the first statement of its transaction, or begin with /* tidegate: route=primary */.")
}
