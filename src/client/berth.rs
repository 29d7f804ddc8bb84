//! Room to live in: what the steps of a unit take is lent to clients that have something to do. Clients at rest, which are
//! most of them, do without.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::enter::Entered;
use super::serve::Stop;
use crate::net::free::Free;

/// How a client leaves a berth.
pub(super) enum Leaves {
    /// It has come in, and the berth is used up.
    Entered(Box<Entered>),
    /// It has not come in, and the berth is used up.
    Turned,
    /// It has nothing to do until it is woken, which it has seen to.
    Rests(Box<Entered>),
    /// It is gone.
    Over,
}

/// Where clients are handed over, one at a time: nobody stands there but while a berth is looked after.
#[derive(Default)]
struct Door {
    comes: Cell<Option<Box<Entered>>>,
    leaves: Cell<Option<Leaves>>,
}

/// Room for one client at a time. The future in it goes on with the next one where it has left off with the last: it is
/// neither made nor dropped for each of them.
pub(super) struct Berth(Pin<Box<dyn Future<Output = Infallible>>>);

/// The berths of a worker.
#[derive(Default)]
pub struct Berths {
    door: Rc<Door>,
    free: RefCell<Free<Berth>>,
}

impl Berths {
    /// One for a client to come in, which takes more room than its life.
    pub(super) fn entry(&self, entering: impl Future<Output = Option<Box<Entered>>> + 'static) -> Berth {
        let door = self.door.clone();
        Berth(Box::pin(async move {
            let entered = entering.await;
            door.leaves.set(Some(entered.map_or(Leaves::Turned, Leaves::Entered)));
            pending().await
        }))
    }

    /// A client moves into one.
    #[inline]
    pub(super) fn take_in(&self, client: Box<Entered>) -> Berth {
        let free = self.free.borrow_mut().take();
        let berth = free.unwrap_or_else(|| Berth(Box::pin(lodge(self.door.clone()))));
        self.door.comes.set(Some(client));
        berth
    }

    /// Has the client go on that has moved in there just now, or before.
    #[inline]
    pub(super) fn poll(&self, berth: &mut Berth, cx: &mut Context<'_>) -> Poll<Leaves> {
        let Poll::Pending = berth.0.as_mut().poll(cx);
        self.door.leaves.take().map_or(Poll::Pending, Poll::Ready)
    }

    /// A client has left it that rests or is gone. There are no more than clients, so that all are kept.
    #[inline]
    pub(super) fn give_back(&self, berth: Berth) {
        self.free.borrow_mut().keep(berth, usize::MAX);
    }

    /// Lets go of those that nobody has needed since the last call: a crowd's are not kept when the crowd has left or rests.
    pub fn trim(&self) {
        self.free.borrow_mut().trim();
    }
}

/// One client after the other lives here.
async fn lodge(door: Rc<Door>) -> Infallible {
    loop {
        if let Some(mut entered) = door.comes.take() {
            let leaves = match entered.client.live().await {
                Stop::Rests => Leaves::Rests(entered),
                Stop::Ends => {
                    drop(entered);
                    Leaves::Over
                }
            };
            door.leaves.set(Some(leaves));
        }
        pause().await;
    }
}

/// Lets whoever polls have a look; the next one who comes polls again.
fn pause() -> impl Future<Output = ()> {
    let mut paused = false;
    poll_fn(move |_| if std::mem::replace(&mut paused, true) { Poll::Ready(()) } else { Poll::Pending })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_berth_has_no_room_for_what_seldom_happens() {
        // A client in a transaction has one, and one that waits for the rest of a message.
        let size = size_of_val(&lodge(Rc::default()));
        assert!(size <= 760, "{size}");
    }
}
