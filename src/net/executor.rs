//! Runs the tasks of one thread: those that have been woken, one after the other, and every few of them a look at what has
//! come in.
//!
//! Tokio's runtime does this, too, at a tenth of what a transaction takes: wakeups and sockets that threads may share are
//! counted and locked, though nothing here is shared (`docs/performance.md`). Tokio's other parts need no runtime of
//! its own.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use slab::Slab;

use super::outbox::Outbox;
use super::reactor::{self, Bell, Reactor};
use super::ring::Ring;

/// After so many tasks a thread looks for events, and at what comes before tasks (polls, and whom they let go on). With
/// four times as many, answers to polls wait for too long where hundreds of clients are ready; a look costs less than one
/// task.
const TASKS: u32 = 16;

/// What a task may do in one turn, in steps that do not wait.
const BUDGET: u8 = 128;

/// The future that the thread runs for: it has its turn before all tasks.
const ROOT: u32 = u32::MAX;

thread_local! {
    static HERE: RefCell<Option<Rc<Thread>>> = const { RefCell::new(None) };
}

/// What a thread has that runs tasks.
struct Thread {
    home: Arc<Home>,
    reactor: Reactor,
    /// `None` where one has its turn.
    tasks: RefCell<Slab<Option<Task>>>,
    /// Those that have been woken, in turn.
    ready: RefCell<VecDeque<u32>>,
    root_is_ready: Cell<bool>,
    /// They go on after the next look at what has come in.
    deferred: RefCell<Vec<Waker>>,
    budget: Cell<u8>,
}

struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    waker: Waker,
    signal: Arc<Signal>,
}

/// Where other threads leave word.
struct Home {
    woken: Mutex<Vec<u32>>,
    /// The thread is being told to look there.
    rung: AtomicBool,
    bell: Bell,
}

/// Wakes one task.
struct Signal {
    number: u32,
    /// It will have a turn that has not begun.
    queued: AtomicBool,
    home: Arc<Home>,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !with_here(|thread| self.wake_here(thread)).unwrap_or(false)
            && !self.queued.swap(true, Ordering::AcqRel)
        {
            self.home.leave(self.number);
        }
    }
}

impl Signal {
    fn new(number: u32, home: &Arc<Home>) -> Arc<Self> {
        Arc::new(Self { number, queued: AtomicBool::new(true), home: home.clone() })
    }

    /// If this is the thread of its task.
    #[inline]
    fn wake_here(&self, thread: &Thread) -> bool {
        let here = Arc::ptr_eq(&thread.home, &self.home);
        // The turn that it has, or will have, begins behind this on the same thread.
        if here && !self.queued.load(Ordering::Relaxed) && !self.queued.swap(true, Ordering::AcqRel) {
            thread.enqueue(self.number);
        }
        here
    }
}

impl Home {
    fn leave(&self, number: u32) {
        self.woken.lock().unwrap_or_else(PoisonError::into_inner).push(number);
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.bell.ring();
        }
    }
}

impl Thread {
    #[inline]
    fn enqueue(&self, number: u32) {
        if number == ROOT {
            self.root_is_ready.set(true);
        } else {
            self.ready.borrow_mut().push_back(number);
        }
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()>>>) {
        let mut tasks = self.tasks.borrow_mut();
        let entry = tasks.vacant_entry();
        // There is no memory for more of them.
        let number = entry.key() as u32;
        let signal = Signal::new(number, &self.home);
        self.enqueue(number);
        entry.insert(Some(Task { future, waker: signal.clone().into(), signal }));
    }

    /// Gives a task its turn. Not in line: a compiler that goes by a profile makes one loop of all that tasks do, and then
    /// takes a quarter of an hour to see what may be moved out of it.
    #[inline(never)]
    fn run(&self, number: u32) {
        let place = number as usize;
        // It may have ended since it was woken, or be woken twice.
        let Some(mut task) = self.tasks.borrow_mut().get_mut(place).and_then(Option::take) else { return };
        self.budget.set(BUDGET);
        // What others have done before they woke it is seen from here on, and who wakes it from now on is heard.
        task.signal.queued.swap(false, Ordering::AcqRel);
        // A task that panics ends; what others do goes on.
        let turn = AssertUnwindSafe(|| task.future.as_mut().poll(&mut Context::from_waker(&task.waker)));
        if matches!(catch_unwind(turn), Ok(Poll::Pending)) {
            if let Some(left) = self.tasks.borrow_mut().get_mut(place) {
                *left = Some(task);
            }
            return;
        }
        self.tasks.borrow_mut().try_remove(place);
        let _ = catch_unwind(AssertUnwindSafe(|| drop(task)));
    }

    /// Sends what is to be sent, looks at what has come in, and waits for it if there is nothing to do.
    fn look(&self) -> io::Result<()> {
        // First: whoever has waited for room goes on then.
        self.reactor.outbox().flush();
        let waits =
            !self.root_is_ready.get() && self.ready.borrow().is_empty() && self.deferred.borrow().is_empty();
        self.reactor.look(waits)?;
        if self.home.rung.load(Ordering::Relaxed) {
            // In this order: what is left there from now on rings again.
            self.home.rung.swap(false, Ordering::AcqRel);
            let mut woken = self.home.woken.lock().unwrap_or_else(PoisonError::into_inner);
            woken.drain(..).for_each(|number| self.enqueue(number));
        }
        let mut deferred = self.deferred.take();
        deferred.drain(..).for_each(Waker::wake);
        // Its room serves the next ones, unless some have come already.
        let mut next = self.deferred.borrow_mut();
        if next.is_empty() {
            *next = deferred;
        }
        Ok(())
    }

    fn run_until<T>(&self, root: impl Future<Output = T>) -> io::Result<T> {
        let signal = Signal::new(ROOT, &self.home);
        let waker = Waker::from(signal.clone());
        let mut root = pin!(root);
        self.root_is_ready.set(true);
        loop {
            if self.root_is_ready.replace(false) {
                self.budget.set(BUDGET);
                signal.queued.swap(false, Ordering::AcqRel);
                if let Poll::Ready(done) = root.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return Ok(done);
                }
            }
            for _ in 0..TASKS {
                let Some(number) = self.ready.borrow_mut().pop_front() else { break };
                self.run(number);
            }
            self.look()?;
        }
    }

    /// Drops all tasks, and those that they leave behind in doing so.
    fn end_tasks(&self) {
        while !self.tasks.borrow().is_empty() {
            let tasks: Vec<_> = self.tasks.borrow_mut().drain().collect();
            for task in tasks {
                let _ = catch_unwind(AssertUnwindSafe(|| drop(task)));
            }
        }
    }
}

#[inline]
fn with_here<T>(what: impl FnOnce(&Thread) -> T) -> Option<T> {
    // Nobody is here any more when the thread's last values are dropped.
    HERE.try_with(|here| here.borrow().as_deref().map(what)).ok().flatten()
}

/// Whether this thread [`run`]s.
pub(super) fn runs_here() -> bool {
    with_here(|_| ()).is_some()
}

/// Does something with the sockets of this thread, if it runs tasks in this way.
pub(super) fn with_reactor<T>(what: impl FnOnce(&Reactor) -> T) -> Option<T> {
    with_here(|thread| what(&thread.reactor))
}

/// Runs a future on this thread, and the tasks that it spawns, which end with it. What they send goes by the ring, if there
/// is one.
///
/// # Errors
/// The operating system has no room for what it takes, or the thread runs tasks already.
pub fn run<T>(ring: Option<Ring>, root: impl Future<Output = T>) -> io::Result<T> {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            if let Some(thread) = HERE.with(|here| here.borrow().clone()) {
                thread.end_tasks();
                // They may have said why.
                thread.reactor.outbox().flush();
            }
            // What its last tasks have left behind is dropped outside of the borrow.
            drop(HERE.with(|here| here.borrow_mut().take()));
        }
    }
    let reactor = Reactor::new(Outbox::new(ring))?;
    let home =
        Arc::new(Home { woken: Mutex::default(), rung: AtomicBool::new(false), bell: reactor.bell()? });
    let thread = Rc::new(Thread {
        home,
        reactor,
        tasks: RefCell::default(),
        ready: RefCell::default(),
        root_is_ready: Cell::default(),
        deferred: RefCell::default(),
        budget: Cell::default(),
    });
    HERE.with(|here| {
        let mut here = here.borrow_mut();
        if here.is_some() {
            return Err(io::Error::other("the thread runs tasks already"));
        }
        *here = Some(thread.clone());
        Ok(())
    })?;
    let _leave = Leave;
    thread.run_until(root)
}

/// Starts a task on this thread, on a tokio runtime where that is what it runs.
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    let mut future = Some(future);
    with_here(|thread| future.take().map(|future| thread.spawn(Box::pin(future))));
    future.map(tokio::task::spawn_local);
}

/// The task goes on when the others that are ready have had their turn, and the thread has looked at what has come in.
pub fn yield_now() -> impl Future<Output = ()> {
    let mut yields = true;
    poll_fn(move |cx| {
        if !std::mem::replace(&mut yields, false) {
            return Poll::Ready(());
        }
        defer(cx);
        Poll::Pending
    })
}

/// Has the task go on as after [`yield_now`]; for use in a hand-written future.
pub(super) fn defer(cx: &mut Context<'_>) {
    let deferred = with_here(|thread| thread.deferred.borrow_mut().push(cx.waker().clone()));
    if deferred.is_none() && pin!(tokio::task::yield_now()).poll(cx).is_ready() {
        cx.waker().wake_by_ref();
    }
}

/// Counts a step that did not wait: a task that goes on without ever waiting leaves others a turn after some of them.
pub async fn step() {
    if runs_here() {
        poll_fn(poll_step).await;
    } else {
        tokio::task::coop::consume_budget().await;
    }
}

/// Like [`step`], for use in a hand-written future. (On a tokio runtime every look at a socket is counted by itself.)
#[inline]
pub fn poll_step(cx: &mut Context<'_>) -> Poll<()> {
    let left = with_here(|thread| {
        let left = thread.budget.get().checked_sub(1);
        thread.budget.set(left.unwrap_or_default());
        left
    });
    if left == Some(None) {
        defer(cx);
        return Poll::Pending;
    }
    Poll::Ready(())
}

/// Lets go of room that a crowd has left behind on this thread.
pub fn trim() {
    with_here(|thread| {
        reactor::trim(&mut thread.tasks.borrow_mut());
        thread.reactor.trim();
        thread.ready.borrow_mut().shrink_to(1024);
        thread.deferred.borrow_mut().shrink_to(1024);
    });
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::thread;
    use std::time::Duration;

    use tokio::sync::{mpsc, oneshot};

    use super::*;

    #[test]
    fn what_other_threads_say_wakes_those_who_wait_for_it() {
        // Each thread sends, and waits for the answer: one that is lost leaves it waiting for good.
        let (sender, mut asked) = mpsc::unbounded_channel::<(u32, std::sync::mpsc::Sender<u32>)>();
        let threads: Vec<_> = (0..4u32)
            .map(|thread| {
                let sender = sender.clone();
                thread::spawn(move || {
                    let (answer, answers) = std::sync::mpsc::channel();
                    for n in 0..2_000 {
                        sender.send((thread + n, answer.clone())).unwrap();
                        assert_eq!(answers.recv_timeout(Duration::from_secs(60)).unwrap(), thread + n + 1);
                    }
                })
            })
            .collect();
        drop(sender);
        let served = run(None, async {
            let mut served = 0;
            while let Some((n, answer)) = asked.recv().await {
                served += 1;
                // Every other one by a task that waits, too.
                if n % 2 == 0 {
                    answer.send(n + 1).unwrap();
                    continue;
                }
                let (said, heard) = oneshot::channel();
                thread::spawn(move || said.send(n + 1));
                spawn(async move { answer.send(heard.await.unwrap()).unwrap() });
            }
            served
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(served.unwrap(), 8_000);
    }

    #[test]
    fn a_task_that_panics_ends_alone() {
        let said = run(None, async {
            let (said, heard) = oneshot::channel();
            struct Worse;
            impl Drop for Worse {
                fn drop(&mut self) {
                    panic!("this one is meant to, too");
                }
            }
            spawn(async { panic!("this one is meant to") });
            let worse = Worse;
            spawn(async move { drop(worse) });
            let held = Worse;
            spawn(async move {
                let _held = held;
                pending::<()>().await;
            });
            spawn(async move { said.send(7).unwrap() });
            heard.await
        });
        assert_eq!(said.unwrap(), Ok(7));
    }

    #[test]
    fn tasks_end_with_the_thread_and_so_do_those_that_they_leave_behind() {
        struct Leaves(Rc<Cell<u32>>, u32);
        impl Drop for Leaves {
            fn drop(&mut self) {
                self.0.set(self.0.get() + 1);
                if self.1 > 0 {
                    let next = Leaves(self.0.clone(), self.1 - 1);
                    spawn(async move {
                        let _next = next;
                        pending::<()>().await;
                    });
                }
            }
        }
        let dropped = Rc::new(Cell::new(0));
        for _ in 0..2 {
            let first = Leaves(dropped.clone(), 3);
            run(None, async move {
                spawn(async move {
                    let _first = first;
                    pending::<()>().await;
                });
                yield_now().await;
            })
            .unwrap();
        }
        assert_eq!((dropped.get(), Rc::strong_count(&dropped)), (8, 1));
        assert!(!runs_here());
    }

    #[test]
    fn a_task_number_is_not_its_successors_doing() {
        // The waker of a task that has ended wakes nobody, or somebody once too often; never does it keep one from its turn.
        let turns = run(None, async {
            let (said, heard) = oneshot::channel::<Waker>();
            let mut said = Some(said);
            spawn(poll_fn(move |cx| {
                said.take().map(|said| said.send(cx.waker().clone()));
                Poll::Ready(())
            }));
            let old = heard.await.unwrap();
            let turns = Rc::new(Cell::new(0));
            let counted = turns.clone();
            spawn(async move {
                for _ in 0..100 {
                    counted.set(counted.get() + 1);
                    yield_now().await;
                }
            });
            for _ in 0..300 {
                old.wake_by_ref();
                yield_now().await;
            }
            turns.get()
        });
        assert_eq!(turns.unwrap(), 100);
    }

    #[test]
    fn a_task_at_rest_takes_little() {
        // With the two counts of an `Arc`, what allocators have 32 bytes for.
        assert!(size_of::<Signal>() <= 16, "{}", size_of::<Signal>());
    }

    #[test]
    fn a_thread_runs_tasks_once_at_a_time() {
        let inner = run(None, async { run(None, async {}).is_err() });
        assert!(inner.unwrap() && run(None, async {}).is_ok());
    }
}
