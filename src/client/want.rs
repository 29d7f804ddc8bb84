//! What a unit asks for, before freshness comes into it.

use super::accept::Entrance;
use super::serve::Client;
use crate::route::{RouteHint, Want, Why};
use crate::session::Unit;
use crate::sql::{Access, Names, Reason};
use crate::wire::build::Report;
use crate::wire::sqlstate;

impl Client {
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
            let unknown = !self.names.catalog().is_known() && self.catalog_would_matter(access);
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
        if !unit.is_judged() || !verdict.has_text() || self.session.hides_ascii() {
            return Ok(Want::Primary(Why::Unjudged));
        }
        if begins_read_only {
            // What comes later in it may call a function. Behind a read from a replica one that nothing is known of is refused,
            // and before the first look at the catalog those are all but PostgreSQL's own.
            let known = self.names.get().knows_users();
            return Ok(if known || self.worker.topology().primary.is_none() {
                Want::Read(Why::ReadOnlyTransaction)
            } else {
                Want::Primary(Why::CatalogUnknown)
            });
        }
        match access {
            // No standby takes a SERIALIZABLE transaction, not even one of a single statement.
            Access::Read if serializable => Ok(Want::Primary(Why::Statement(Reason::Transaction))),
            Access::Read if self.is_learned(unit) => Ok(Want::Primary(Why::Learned)),
            Access::Read => Ok(Want::Read(Why::Read)),
            Access::Primary(_) if !self.names.catalog().is_known() && self.catalog_would_matter(access) => {
                Ok(Want::Primary(Why::CatalogUnknown))
            }
            Access::Primary(reason) => Ok(Want::Primary(Why::Statement(reason))),
        }
    }

    fn catalog_would_matter(&self, access: Access) -> bool {
        matches!(access, Access::Primary(Reason::UnknownFunction | Reason::Relation))
    }

    pub(super) fn begins_read_only(&self, unit: &Unit) -> bool {
        let (read_only, serializable) =
            (self.session.default_read_only(), self.session.default_serializable());
        unit.is_judged() && unit.verdict.begins_read_only(read_only, serializable)
    }
}
