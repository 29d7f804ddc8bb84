//! A client goes from one worker to another, between two units.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::accept::Entrance;
use super::cancel::worker_of;
use super::enter::{Counted, Entered, Registered};
use super::keyring;
use super::serve::{AtRest, Client, Found};
use super::worker::{Job, Present, Worker, WorkerDoor};
use crate::monitor::CatalogCell;
use crate::net::Released;
use crate::pool::Identity;
use crate::session::{PackedSession, Session};

/// A client on its way.
#[derive(Debug)]
pub struct Transfer {
    stream: Released,
    entrance: Entrance,
    session: PackedSession,
    identity: Identity,
    catalog: Arc<CatalogCell>,
    mute: bool,
    key: Box<[u8]>,
    key_of_role: keyring::Entered,
    place: OnTheWay,
}

/// A client that no worker has counts still, and has its process id still.
#[derive(Debug)]
struct OnTheWay {
    clients: Arc<AtomicUsize>,
    workers: Arc<[WorkerDoor]>,
    pid: u32,
    moves: u32,
    /// Nobody has taken it over yet.
    adrift: bool,
}

impl Drop for OnTheWay {
    fn drop(&mut self) {
        if self.adrift {
            self.clients.fetch_sub(1, Ordering::AcqRel);
            forget(&self.workers, self.pid);
        }
    }
}

/// Tells the worker that has given a client its process id that it is gone.
pub(super) fn forget(workers: &[WorkerDoor], pid: u32) {
    if let Some(door) = workers.get(worker_of(pid)) {
        // One that is gone need not know.
        let _ = door.jobs.send(Job::Forget(pid));
    }
}

impl Client {
    /// Whether it can go to another worker now: it rests, and nothing of it is anywhere but here.
    fn may_move(&self) -> bool {
        let at_rest = self.lease.is_none() && self.input.is_empty() && self.skip == 0;
        let plain = self.found == Found::Here && self.begun.is_none() && !self.sets && !self.defines;
        at_rest
            && plain
            && self.counted_pins.is_empty()
            && self.handle.may_move()
            && self.session.may_move()
            && self.stream.may_move()
    }
}

/// Sends a client that rests to worker number `to`. It is given back if it cannot go now.
pub(super) fn send(worker: &Rc<Worker>, client: Box<Entered>, to: usize) -> Option<Box<Entered>> {
    let Some(door) = worker.shared.workers.get(to) else { return Some(client) };
    if !client.client.may_move() || door.jobs.is_closed() {
        return Some(client);
    }
    let Entered { client, key_of_role, registered } = *client;
    let (pid, moves) = registered.move_out();
    let moves = moves.wrapping_add(1);
    worker.handles.borrow_mut().remove(pid);
    let place = OnTheWay {
        clients: worker.shared.clients.clone(),
        workers: worker.shared.workers.clone(),
        pid,
        moves,
        adrift: true,
    };
    let stream = match client.stream.release() {
        Ok(stream) => stream,
        Err(error) => {
            tracing::error!(%error, "a client cannot go to another worker, and is dropped");
            return None;
        }
    };
    let transfer = Transfer {
        stream,
        entrance: client.entrance,
        session: client.session.pack(),
        identity: Identity::clone(&client.identity),
        catalog: client.names.catalog().clone(),
        mute: client.mute,
        key: client.handle.key().into(),
        key_of_role,
        place,
    };
    door.load.fetch_add(1, Ordering::Relaxed);
    if door.jobs.send(Job::Arrival(transfer.into())).is_err() {
        door.load.fetch_sub(1, Ordering::Relaxed);
        tracing::error!("a worker is gone; its client is dropped");
        return None;
    }
    worker.metrics.client_moved();
    // Behind that: who looks for the client there finds it.
    if worker_of(pid) == worker.number {
        worker.handles.borrow_mut().note_away(pid, to, moves);
    } else if let Some(home) = worker.shared.workers.get(worker_of(pid)) {
        let _ = home.jobs.send(Job::Away(pid, to, moves));
    }
    None
}

/// Makes a client this worker's own.
pub(super) fn take(worker: &Rc<Worker>, transfer: Transfer) -> Option<Box<Entered>> {
    let Transfer { stream, entrance, session, identity, catalog, mute, key, key_of_role, mut place } =
        transfer;
    // From here on it counts as long as this lives.
    place.adrift = false;
    let counted = Counted::moved_in(Present(worker.clone()));
    let handle = worker.handles.borrow_mut().comes(place.pid, key);
    let registered = Registered::new(counted, place.pid, place.moves);
    if worker.shared.draining.load(Ordering::Relaxed) {
        handle.leave();
    }
    let stream = match stream.settle() {
        Ok(stream) => stream,
        Err(error) => {
            tracing::error!(%error, "a client that comes from another worker cannot be served");
            return None;
        }
    };
    let (key, identity) = worker.pools.borrow_mut().key(identity);
    let names = worker.databases.borrow_mut().by(&identity.database, catalog);
    let session = Session::unpack(session, &mut worker.statements.borrow_mut(), key.number());
    let worker = worker.clone();
    let at_rest = AtRest { worker, stream, entrance, session, identity, key, handle, names, pid: place.pid };
    let client = Client { mute, found: Found::Arriving, ..at_rest.into() };
    Some(Box::new(Entered { client, registered, key_of_role }))
}
