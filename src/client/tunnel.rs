//! Replication connections: pg_basebackup, pg_receivewal, standbys, logical consumers. Each has a server connection of
//! its own on the primary, and what it says there is passed on as it is.

use std::future::poll_fn;
use std::task::Poll;

use bytes::BytesMut;
use tokio::io::copy_bidirectional_with_sizes;

use super::cancel::Handle;
use super::handshake::{self, Arrival};
use super::lease::{self, NoLease};
use super::worker::Worker;
use crate::auth::LoginError;
use crate::net::Stream;
use crate::pool::{Identity, Permit, Seat};
use crate::server::Connection;
use crate::server::dial::DialError;
use crate::session::Pins;
use crate::wire::build::{Report, Severity};
use crate::wire::sqlstate;

/// Bytes that are copied at once: a base backup is large.
const COPY: usize = 64 * 1024;

/// Serves a replication connection from its login to its end. `out` is what it is to be told first.
///
/// # Errors
/// What the client is to be told: it is not let in.
pub async fn tunnel(
    worker: &Worker,
    stream: &mut Stream,
    input: &mut BytesMut,
    arrival: Arrival,
    out: &mut BytesMut,
    (pid, key): (u32, &[u8]),
    handle: &Handle,
) -> Result<(), Report> {
    let (mut server, _permit) = connect(worker, &arrival, handle).await?;
    handshake::welcome(out, &mut server.parameters, pid, key);
    handle.runs(server.node, server.pid, &server.key);
    let _counted = Counted::new(worker);
    let passed = async {
        stream.write_all(out).await?;
        server.stream.write_all(input).await?;
        copy_bidirectional_with_sizes(stream, &mut server.stream, COPY, COPY).await.map(|_| ())
    };
    let leave = poll_fn(|cx| {
        handle.listen(cx.waker());
        if handle.is_leaving() { Poll::Ready(()) } else { Poll::Pending }
    });
    tokio::select! {
        // However it ends: both sides see the end of their connection.
        _ = passed => {}
        () = leave => {}
    }
    handle.rests();
    Ok(())
}

async fn connect(
    worker: &Worker,
    arrival: &Arrival,
    handle: &Handle,
) -> Result<(Connection, Permit), Report> {
    let (node, epoch) = {
        let topology = worker.topology();
        let primary = topology.primary.and_then(|id| topology.node(id));
        let primary =
            primary.ok_or_else(|| Report::fatal(sqlstate::CANNOT_CONNECT_NOW, "no primary is reachable"))?;
        (primary.id, primary.server_epoch)
    };
    let asked = &arrival.asked;
    let identity =
        Identity { user: asked.user.clone(), role: arrival.role, database: asked.database.clone() };
    // It takes one of pool.size for itself.
    let (key, identity) = worker.pools.borrow_mut().key(identity);
    let permit = match lease::seat(worker, node, key, handle).await {
        Ok(Seat::Permit(permit)) => permit,
        Ok(Seat::Lease(idle)) => {
            idle.connection.close();
            idle.permit
        }
        Err(NoLease::Refused(report) | NoLease::NotLetIn(report)) => {
            return Err(Report { severity: Severity::Fatal, ..report });
        }
        Err(NoLease::Unreachable(why)) => return Err(Report::fatal(sqlstate::CANNOT_CONNECT, why)),
    };
    let dialled = lease::connect(worker, node, epoch, &identity, &asked.replication).await;
    match dialled {
        Ok(connection) => Ok((connection, permit)),
        Err(DialError::Login(LoginError::Refused(refusal))) => {
            Err(Report::fatal(refusal.sqlstate, refusal.message))
        }
        Err(error) => Err(Report::fatal(sqlstate::CANNOT_CONNECT, error.to_string())),
    }
}

/// Counts a replication connection as bound to its server as long as it lives.
struct Counted<'a>(&'a Worker);

impl<'a> Counted<'a> {
    fn new(worker: &'a Worker) -> Self {
        worker.metrics.pinned([], Pins::REPLICATION.kinds());
        Self(worker)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.metrics.pinned(Pins::REPLICATION.kinds(), []);
    }
}
