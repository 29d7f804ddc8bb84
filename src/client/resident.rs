//! A client's task: it comes in, lives while it has something to do, and rests.

use std::net::TcpStream;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::accept::Origin;
use super::berth::{Berth, Leaves};
use super::enter::{self, Entered};
use super::serve::Found;
use super::transfer::{self, Transfer};
use super::worker::{Present, Worker};
use crate::net::{Stream, spawn};

/// One client, from the moment that it was accepted. Of all that a worker has, most rest at any time: what they take then is
/// this, and what is kept of their sessions.
pub(super) struct Resident {
    worker: Rc<Worker>,
    state: State,
}

enum State {
    /// It has something to do, and room for that.
    Lives(Berth),
    /// It has nothing to do until it is woken; nobody does when it is gone.
    Rests(Option<Box<Entered>>),
}

/// Serves a client whose socket does not block, and counts it out of its worker when it is gone.
pub(super) fn admit(worker: Rc<Worker>, stream: TcpStream, origin: Origin) {
    let present = Present(worker.clone());
    worker.stirred.notify_one();
    match Stream::tcp(stream) {
        Ok(stream) => {
            let entering = enter::client(present, stream, origin);
            spawn(Resident { state: State::Lives(worker.berths.entry(entering)), worker });
        }
        Err(error) => tracing::error!(%error, "cannot serve a client"),
    }
}

/// Serves a client that comes from another worker.
pub(super) fn take_in(worker: Rc<Worker>, transfer: Transfer) {
    worker.stirred.notify_one();
    if let Some(entered) = transfer::take(&worker, transfer) {
        spawn(Resident { worker, state: State::Rests(Some(entered)) });
    }
}

impl Future for Resident {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { worker, state } = &mut *self;
        loop {
            match state {
                State::Rests(client) => {
                    let Some(mut entered) = client.take() else { return Poll::Ready(()) };
                    if std::mem::take(&mut entered.client.found) == Found::Arriving {
                        // A task has one waker all its life.
                        entered.client.handle.listen(cx.waker());
                    } else if let Some(to) = worker.sends_away(entered.client.pid) {
                        match transfer::send(worker, entered, to) {
                            Some(stays) => entered = stays,
                            None => return Poll::Ready(()),
                        }
                    }
                    if entered.client.poll_roused(cx).is_pending() {
                        *client = Some(entered);
                        return Poll::Pending;
                    }
                    *state = State::Lives(worker.berths.take_in(entered));
                }
                State::Lives(berth) => {
                    let left = ready!(worker.berths.poll(berth, cx));
                    let State::Lives(berth) = std::mem::replace(state, State::Rests(None)) else { continue };
                    match left {
                        Leaves::Rests(entered) => {
                            worker.berths.give_back(berth);
                            *state = State::Rests(Some(entered));
                            return Poll::Pending;
                        }
                        Leaves::Over => worker.berths.give_back(berth),
                        Leaves::Entered(entered) => {
                            // A task has one waker all its life.
                            entered.client.handle.listen(cx.waker());
                            *state = State::Lives(worker.berths.take_in(entered));
                        }
                        Leaves::Turned => {}
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_at_rest_has_no_room_for_anything_else() {
        // Allocators have nothing between that and 32.
        assert!(size_of::<Resident>() <= 24, "{}", size_of::<Resident>());
        // What is kept of its session: jemalloc has nothing between that and 384.
        assert!(size_of::<Entered>() <= 320, "{}", size_of::<Entered>());
    }
}
