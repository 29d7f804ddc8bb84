//! Clients come in: a worker waits for them between its other work, and gives each to the worker that is to have it.
//!
//! No thread of its own: that would be woken for each client, and would wake a worker for each.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, TcpStream};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;

use super::resident::admit;
use super::worker::{Job, Worker};
use crate::net::listen::Listener;
use crate::net::timers::sleep;
use crate::net::yield_now;

/// Mostly too many files are open when no client can be accepted: by then some may be closed.
const PAUSE: Duration = Duration::from_millis(50);

/// How often the log says that no client can be accepted.
const TOLD_EVERY: Duration = Duration::from_secs(30);

/// So many come in before those who are in have their turn.
const AT_ONCE: usize = 4;

/// By which door a client has come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entrance {
    /// `listen`: the primary and its replicas as one database.
    Usual,
    /// `listen_replica`: a standby.
    Replica,
}

/// An entrance that is to be kept open.
#[derive(Debug)]
pub struct Opening {
    /// Where clients come in; it does not block.
    pub listener: std::net::TcpListener,
    /// What they come in by there.
    pub entrance: Entrance,
    /// It is closed when the other end of this is dropped.
    pub closing: oneshot::Receiver<()>,
    /// Dropped when it is closed.
    pub closed: oneshot::Sender<()>,
}

/// How a client has come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its address.
    pub address: IpAddr,
    /// Its door.
    pub entrance: Entrance,
}

/// What a look at the door has brought.
enum Look {
    /// There may be more.
    More,
    Closing,
}

/// Lets clients in until the entrance is closed.
pub(super) async fn accept(worker: Rc<Worker>, opening: Opening) {
    let Opening { listener, entrance, mut closing, closed: _closed } = opening;
    let listener = match Listener::new(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot let clients in"),
    };
    let mut told: Option<Duration> = None;
    loop {
        match poll_fn(|cx| look(&worker, &listener, entrance, &mut closing, cx)).await {
            Ok(Look::More) => yield_now().await,
            Ok(Look::Closing) => return,
            // It has gone while it stood in the kernel's line.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                // An operator needs to know, not to be drowned.
                let now = worker.now();
                if told.is_none_or(|told| now.saturating_sub(told) >= TOLD_EVERY) {
                    told = Some(now);
                    tracing::error!(%error, ?entrance, "cannot accept clients");
                }
                sleep(PAUSE).await;
            }
        }
    }
}

fn look(
    worker: &Rc<Worker>,
    listener: &Listener,
    entrance: Entrance,
    closing: &mut oneshot::Receiver<()>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Look>> {
    if Pin::new(closing).poll(cx).is_ready() {
        return Poll::Ready(Ok(Look::Closing));
    }
    for _ in 0..AT_ONCE {
        let (stream, address) = std::task::ready!(listener.poll_accept(cx))?;
        deal(worker, stream, Origin { address: address.ip().to_canonical(), entrance });
    }
    Poll::Ready(Ok(Look::More))
}

/// Gives a client to the worker that is to have it.
fn deal(worker: &Rc<Worker>, stream: TcpStream, origin: Origin) {
    let placement = worker.settings().client_placement;
    let Some(number) = worker.shared.worker_for_newcomer(placement) else { return };
    let Some(door) = worker.shared.workers.get(number) else { return };
    door.load.fetch_add(1, Ordering::Relaxed);
    door.newcomers.fetch_add(1, Ordering::Relaxed);
    if number == worker.number {
        return admit(worker.clone(), stream, origin);
    }
    if door.jobs.send(Job::Client(stream, origin)).is_err() {
        door.load.fetch_sub(1, Ordering::Relaxed);
        tracing::error!("a worker is gone; its client is dropped");
    }
}
