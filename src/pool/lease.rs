//! A server connection lent to a client.

use super::limits::Permit;
use super::pools::PoolKey;
use crate::server::Connection;

/// A server connection together with the right to have it. Dropping it closes the connection;
/// [`super::Pools::give_back`] keeps it.
#[derive(Debug)]
pub struct Lease {
    /// The connection; boxed, as a lease changes hands with every unit.
    pub connection: Box<Connection>,
    /// Whom it is logged in as.
    pub key: PoolKey,
    /// The right to have it.
    pub permit: Permit,
}

/// What a client that waits is given.
#[derive(Debug)]
pub enum Seat {
    /// A connection that another client has given back.
    Lease(Lease),
    /// The right to make one.
    Permit(Permit),
}
