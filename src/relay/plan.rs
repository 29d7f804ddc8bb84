//! How a unit is to be run.

use crate::lsn::Proof;
use crate::server::Connection;
use crate::session::translate::{Sharing, Translator};
use crate::session::{Session, Statements};
use crate::wire::client::function_call;
use crate::wire::server::Status;

/// What the server is asked besides the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// Nothing.
    Nothing,
    /// Behind the unit: how far its WAL goes.
    Position,
    /// In front of the unit: whether it has replayed as much. Unless it has, nobody is to see its answer.
    Proof(Proof),
}

/// `pg_current_wal_insert_lsn()`: functions of PostgreSQL's own keep their numbers (`catalog/pg_proc.dat`).
pub(super) const INSERTED: [u8; 15] = function_call(2852);

/// `pg_last_wal_replay_lsn()`.
pub(super) const REPLAYED: [u8; 15] = function_call(3821);

/// How a unit is to be run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The client may be answered by another node instead, as long as it has seen nothing.
    pub may_heal: bool,
    /// The unit is proven to be a read: what is pipelined behind a failed setting does no harm.
    pub is_read: bool,
    /// The most prepared statements per server connection.
    pub statement_limit: u32,
    /// The client's process id.
    pub user: u32,
    /// The generation of the database's definitions.
    pub generation: u64,
    /// With whom the unit's prepared statements are shared.
    pub sharing: Sharing,
    /// What the server is asked besides.
    pub asks: Asks,
}

/// What turns the session's messages into the server's.
pub(super) fn translator<'a>(
    session: &'a mut Session,
    server: &'a mut Connection,
    table: &'a mut Statements,
    plan: Plan,
) -> Translator<'a> {
    Translator {
        client: &mut session.statements,
        server: &mut server.statements,
        table,
        replies: &mut server.replies,
        limit: plan.statement_limit as usize,
        settings: &session.settings,
        sharing: plan.sharing,
        generation: plan.generation,
        aborted: server.status == Status::Failed,
    }
}
