//! Transactions that cannot go on where they began: their server is gone, or it is a replica and must not be.

use bytes::{Buf, BytesMut};

use super::place::cancelled;
use super::reach::Tries;
use super::serve::{Client, Life};
use super::unit::TransactionKind;
use crate::pool::Lease;
use crate::relay::{begin, settle};
use crate::route::{RouteHint, Why};
use crate::session::state::{LastRoute, Lost};
use crate::session::{Unit, local};
use crate::sql::Access;
use crate::sql::command::{Isolation, Modes};
use crate::wire::build::Report;
use crate::wire::server::Status;
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

    /// The server on which the next unit of a transaction on a replica may run: that replica, or the primary if the unit
    /// must not run there and the transaction has done nothing yet. The client has been told of anything else.
    pub(super) async fn stay_or_move(
        &mut self,
        lease: Lease,
        begun: Option<Modes>,
        unit: &Unit,
    ) -> Result<Lease, Life> {
        let binds = unit.verdict.binds();
        let failed = self.session.status == Status::Failed;
        let fits = failed && (unit.verdict.statements <= 1 || !binds);
        // Who has asked for a replica is not taken elsewhere.
        let told = self.route(unit) == Some(RouteHint::Replica);
        match begun.filter(|_| !failed && !told) {
            _ if fits => Ok(lease),
            Some(modes) => match self.move_to_primary(lease, modes, unit).await {
                Ok(moved) => Ok(moved),
                Err(report) => {
                    self.session.lose(Lost::Told);
                    Err(self.give_up(unit, &report).await)
                }
            },
            None if !binds => Ok(lease),
            None => {
                self.end_lease(lease);
                self.session.lose(Lost::Told);
                if !failed {
                    return Err(self.give_up(unit, &binding_on_replica()).await);
                }
                // The first of its statements may end the transaction, and then the others must not run there.
                Err(match self.answer_lost(unit, Lost::Told).await {
                    Some(life) => life,
                    None => Box::pin(self.run(unit)).await,
                })
            }
        }
    }

    /// Goes on with a READ ONLY transaction, in which nothing has run yet, on the primary.
    async fn move_to_primary(&mut self, old: Lease, modes: Modes, unit: &Unit) -> Result<Lease, Report> {
        self.worker.pools.borrow_mut().end(old);
        self.handle.rests();
        let why = match unit.verdict.access() {
            Access::Primary(reason) => Why::Statement(reason),
            Access::Read => Why::Unjudged,
        };
        let (mut lease, place) = self.reach(unit, &mut Tries::on_primary(why)).await?;
        // While a connection was made, say.
        if self.handle.was_meant() {
            self.give_back(lease);
            return Err(cancelled());
        }
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
            self.end_lease(lease);
            return Err(report);
        }
        self.transaction = TransactionKind::MayWrite;
        self.session.last = Some(LastRoute { node: place.node, role: place.role, why });
        Ok(lease)
    }
}

fn binding_on_replica() -> Report {
    Report::error(
        sqlstate::READ_ONLY_TRANSACTION,
        "this statement cannot run in a READ ONLY transaction that has read from a replica",
    )
    .detail("It may bind the session to the replica, or take a lock there that nobody else sees.")
    .hint(
        "Make it the first statement of its transaction, or begin with /* tidegate: route=primary */. A function that does \
         neither can be named in routing.safe_functions.",
    )
}
