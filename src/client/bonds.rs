//! What binds a session to its server, where only the server can tell.

use super::accept::Entrance;
use super::place::Place;
use super::serve::{Client, Life};
use crate::pool::Lease;
use crate::relay::{SettleError, what_binds};
use crate::session::Pins;
use crate::session::state::Bonds;
use crate::topology::Role;
use crate::wire::build::Report;
use crate::wire::sqlstate;

impl Client {
    /// Asks the server at the end of a transaction. The client has its answer already; at worst its next unit waits for
    /// ours.
    pub(super) async fn ask_what_binds(&mut self, mut lease: Lease, place: Place) -> Life {
        let was_bound = !self.session.pins.is_empty();
        let mut told = what_binds(&mut lease.connection).await;
        if matches!(told, Ok(None)) {
            // A cancel request that came late, say.
            told = what_binds(&mut lease.connection).await;
        }
        if place.role == Role::Replica && self.entrance == Entrance::Usual && !was_bound {
            // Nobody is bound to a replica: writes could not follow. What was left there ends with the connection.
            self.session.bonds = Bonds::Known;
            match told {
                Ok(Some(there)) if there.is_empty() => self.keep_or_give_back(lease),
                Ok(_) | Err(_) => self.end_lease(lease),
            }
            return Life::GoesOn;
        }
        match told {
            Ok(Some(there)) => self.session.told_bonds(there),
            // Bound, say by a lock, is the safe side; it is asked again after the next unit.
            Ok(None) => self.session.pins.add(Pins::ADVISORY_LOCK),
            Err(error) => return self.lost_bonds(lease, place, was_bound, error).await,
        }
        self.count_pins();
        self.keep_or_give_back(lease);
        Life::GoesOn
    }

    /// The server is gone, and with it whatever bound the session to it.
    async fn lost_bonds(&mut self, lease: Lease, place: Place, was_bound: bool, error: SettleError) -> Life {
        self.session.bonds = Bonds::Known;
        self.end_lease(lease);
        self.worker.polls.kick(place.node);
        if !was_bound {
            return Life::GoesOn;
        }
        let message = match error {
            SettleError::Refused { message, .. } => message,
            SettleError::Io(error) => error.to_string(),
        };
        self.fatal(&Report::fatal(sqlstate::CONNECTION_FAILURE, message)).await
    }
}
