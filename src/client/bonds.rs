//! What binds a session to its server, where only the server can tell.

use super::place::Place;
use super::serve::{Client, Life};
use crate::pool::Lease;
use crate::relay::{SettleError, what_binds};
use crate::session::Pins;
use crate::wire::build::Report;
use crate::wire::sqlstate;

impl Client {
    /// Asks the server at the end of a transaction. The client has its answer already; at worst its next unit waits for
    /// ours.
    pub(super) async fn ask_what_binds(&mut self, mut lease: Lease, place: Place) -> Life {
        let was_bound = !self.session.pins.is_empty();
        match what_binds(&mut lease.connection).await {
            Ok(Some(there)) => self.session.told_bonds(there),
            // Bound, say by a lock, is the safe side; it is asked again after the next unit.
            Ok(None) => self.session.pins.add(Pins::ADVISORY_LOCK),
            Err(error) => {
                self.end_lease(lease, place.node);
                self.worker.polls.kick(place.node);
                if !was_bound {
                    return Life::GoesOn;
                }
                let message = match error {
                    SettleError::Refused { message, .. } => message,
                    SettleError::Io(error) => error.to_string(),
                };
                return self.fatal(&Report::fatal(sqlstate::CONNECTION_FAILURE, message)).await;
            }
        }
        self.count_pins();
        self.keep_or_give_back(lease);
        Life::GoesOn
    }
}
