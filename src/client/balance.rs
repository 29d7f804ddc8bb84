//! How busy the workers are, and who has clients move for that.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::gather::{Director, Load, Move, alike, for_newcomer};
use super::worker::{Job, Shared, Worker, WorkerDoor};
use crate::config::settings::Placement;
use crate::net::timers::{sleep, timeout};

/// How often that is looked at.
const TICK: Duration = Duration::from_millis(200);

/// How often where nobody is. That a client comes is told.
const REST: Duration = Duration::from_secs(5);

/// As much of a processor is taken without clients, too, in thousandths.
const NOTHING: u32 = 10;

impl Shared {
    /// What that worker has to do; `None` if it is gone.
    fn load(&self, number: usize) -> Option<Load> {
        let door = self.workers.get(number).filter(|door| !door.jobs.is_closed())?;
        let busy = f64::from(door.busy.load(Ordering::Relaxed)) / 1000.0;
        Some(Load { busy, clients: door.load.load(Ordering::Relaxed) })
    }

    /// The same with those who have come since that was looked at.
    fn load_to_come(&self, number: usize) -> Option<Load> {
        let newcomers = self.workers.get(number)?.newcomers.load(Ordering::Relaxed);
        Some(self.load(number)?.with(newcomers))
    }

    /// The worker for a new client, of those that are there.
    pub(super) fn worker_for_newcomer(&self, placement: Placement) -> Option<usize> {
        let loads = (0..self.workers.len()).filter_map(|number| Some((number, self.load_to_come(number)?)));
        match placement {
            Placement::Gather => for_newcomer(loads),
            Placement::Even | Placement::Roam => {
                loads.min_by_key(|(_, load)| load.clients).map(|(number, _)| number)
            }
        }
    }
}

/// Looks time and again how busy this worker is; the first one says who is to move, too.
pub(super) async fn balance(worker: Rc<Worker>) {
    let shared = &worker.shared;
    let count = shared.workers.len();
    let Some(door) = shared.workers.get(worker.number).filter(|_| count > 1) else { return };
    let (mut used, mut at) = (cpu_time(), worker.now());
    let mut director = Director::default();
    // Who was told to send some away, of whom the first worker has told so.
    let mut told = vec![false; count];
    let mut before = Placement::default();
    loop {
        let placement = worker.settings().client_placement;
        if placement == Placement::Roam {
            let (from, to) = (worker.number, (worker.number + 1) % count);
            worker.sends.set(Some(Move { from, to, share: 1.0, salt: 0 }));
        } else if before == Placement::Roam {
            worker.sends.set(None);
        }
        before = placement;
        if rests(&worker) {
            let _ = timeout(REST, worker.stirred.notified()).await;
        } else {
            sleep(TICK).await;
        }
        let (used_now, now) = (cpu_time(), worker.now());
        let elapsed = now.saturating_sub(at).as_secs_f64().max(1e-3);
        let share = used_now.saturating_sub(used).as_secs_f64() / elapsed;
        (used, at) = (used_now, now);
        // What lasts for less than two looks is no reason for a move.
        let last = f64::from(door.busy.load(Ordering::Relaxed)) / 1000.0;
        let busy = ((share.min(1.0) + last) * 500.0) as u32;
        door.busy.store(busy, Ordering::Relaxed);
        door.newcomers.store(0, Ordering::Relaxed);
        worker.metrics.busy(busy);
        worker.alike.set(alike(busy, shared.workers.iter().map(|door| door.busy.load(Ordering::Relaxed))));
        if worker.number == 0 && placement != Placement::Roam {
            let loads: Vec<_> = (0..count).map(|number| shared.load(number)).collect();
            let moves = if placement == Placement::Gather { director.look(&loads) } else { Vec::new() };
            direct(shared, &moves, &mut told);
        }
    }
}

/// Whether there is nothing to look at, as this worker has no clients; nor has anybody for whom the first one looks.
fn rests(worker: &Worker) -> bool {
    let shared = &worker.shared;
    let watched = if worker.number == 0 { 0..shared.workers.len() } else { worker.number..worker.number + 1 };
    let quiet = |door: &WorkerDoor| {
        door.load.load(Ordering::Relaxed) == 0 && door.busy.load(Ordering::Relaxed) <= NOTHING
    };
    shared.workers.get(watched).is_some_and(|doors| doors.iter().all(quiet))
}

/// Tells workers which of their clients are to move. `told` says who was told at the last look.
fn direct(shared: &Shared, moves: &[Move], told: &mut [bool]) {
    for ((number, told), door) in told.iter_mut().enumerate().zip(shared.workers.iter()) {
        let now = moves.iter().find(|m| m.from == number).copied();
        // Anew at each look: a worker may have been told something else by a setting meanwhile.
        if now.is_some() || *told {
            *told = now.is_some();
            // One that is gone has none.
            let _ = door.jobs.send(Job::Send(now));
        }
    }
}

impl Worker {
    /// Where the client of that process id is to go, if it is to.
    #[inline]
    pub(super) fn sends_away(&self, pid: u32) -> Option<usize> {
        self.sends.get().filter(|sends| sends.means(pid)).map(|sends| sends.to)
    }
}

/// The time that this thread has had on a processor.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
