//! Opens and closes the ways in.

use std::future::{Future, poll_fn};
use std::net::TcpListener;
use std::pin::Pin;
use std::task::Poll;

use tokio::sync::oneshot;

use crate::client::accept::{Entrance, Opening};
use crate::client::worker::{Job, Shared};

/// An entrance that is open until [`close`] is called; or its worker ends.
#[derive(Debug)]
pub(super) struct Open {
    closing: oneshot::Sender<()>,
    closed: oneshot::Receiver<()>,
}

/// Has worker number `keeper` let clients in.
pub(super) fn open(
    listener: TcpListener,
    entrance: Entrance,
    keeper: usize,
    shared: &Shared,
) -> Option<Open> {
    let (closing, until) = oneshot::channel();
    let (done, closed) = oneshot::channel();
    let job = Job::Open(Opening { listener, entrance, closing: until, closed: done });
    shared.workers.get(keeper)?.jobs.send(job).ok()?;
    Some(Open { closing, closed })
}

/// Waits for one of them to be closed that nobody has asked to.
pub(super) async fn lost(entrances: &mut [Open]) {
    poll_fn(|cx| {
        // It fails as soon as its other end has been dropped, which is the news.
        let any = entrances.iter_mut().any(|open| Pin::new(&mut open.closed).poll(cx).is_ready());
        if any { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Lets nobody in any more; the sockets are closed.
pub(super) async fn close(entrances: Vec<Open>) {
    // All at once: they are told by the drop of the other ends.
    let (closing, closed): (Vec<_>, Vec<_>) =
        entrances.into_iter().map(|Open { closing, closed }| (closing, closed)).unzip();
    drop(closing);
    for closed in closed {
        let _ = closed.await;
    }
}
