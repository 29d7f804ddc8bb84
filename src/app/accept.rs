//! Opens and closes the ways in.

use std::net::TcpListener;

use tokio::sync::oneshot;

use crate::client::accept::{Entrance, Opening};
use crate::client::worker::{Job, Shared};

/// An entrance that is open until this is closed.
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

impl Open {
    /// Lets nobody in any more; the socket is closed.
    pub(super) async fn close(self) {
        drop(self.closing);
        // It fails as soon as its other end has been dropped, which is the news.
        let _ = self.closed.await;
    }
}
