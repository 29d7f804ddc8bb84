//! Clients come in, on a thread of their own for each entrance: one call of the operating system for each, and a crowd
//! of them does not hold up the polls.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::SockRef;

use crate::client::worker::{Entrance, Job, Shared};

/// Mostly too many files are open when no client can be accepted: by then some may be closed.
const PAUSE: Duration = Duration::from_millis(50);

/// An entrance that is open until this is closed.
#[derive(Debug)]
pub(super) struct Open {
    listener: Arc<TcpListener>,
    closing: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// Lets clients in.
///
/// # Errors
/// There is no room for a thread.
pub(super) fn open(listener: TcpListener, entrance: Entrance, shared: &Shared) -> io::Result<Open> {
    let (listener, closing) = (Arc::new(listener), Arc::new(AtomicBool::new(false)));
    let body = {
        let (listener, closing, shared) = (listener.clone(), closing.clone(), shared.clone());
        move || {
            while !closing.load(Ordering::Acquire) {
                match listener.accept() {
                    Ok((stream, _)) => deal(stream, entrance, &shared),
                    Err(_) if closing.load(Ordering::Acquire) => {}
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a client");
                        thread::sleep(PAUSE);
                    }
                }
            }
        }
    };
    let thread = thread::Builder::new().name("accept".to_owned()).spawn(body)?;
    Ok(Open { listener, closing, thread })
}

impl Open {
    /// Lets nobody in any more; the socket is closed.
    pub(super) fn close(self) {
        self.closing.store(true, Ordering::Release);
        // Ends the wait of whoever waits for a client on it.
        if SockRef::from(&*self.listener).shutdown(Shutdown::Both).is_ok() {
            // A thread that has panicked waits for nobody any more.
            let _ = self.thread.join();
        }
    }
}

/// Gives a client to the worker that has the fewest.
fn deal(stream: TcpStream, entrance: Entrance, shared: &Shared) {
    if let Some(door) = shared.workers.iter().min_by_key(|d| d.load.load(Ordering::Relaxed)) {
        door.load.fetch_add(1, Ordering::Relaxed);
        if door.jobs.send(Job::Client(stream, entrance)).is_err() {
            tracing::error!("a worker is gone; its client is dropped");
        }
    }
}
