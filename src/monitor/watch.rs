//! The loop that polls one node.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rand::RngExt;

use super::clock::Clock;
use super::pace::{Turn, Usage, due};
use super::polls::{Pause, Polls, Wanted};
use super::probe::Probe;
use super::published::{Latest, Published};
use super::verifiers::Verifiers;
use crate::config::Settings;
use crate::lsn::Epoch;
use crate::net::timers::{sleep, timeout};
use crate::net::{Alarm, Connectors};
use crate::topology::{Makeup, NodeId, Observation, Observer, Role, Topology};

/// The primary's WAL may stand unflushed for so long while somebody waits, before it is nudged.
const NUDGE_AFTER: Duration = Duration::from_millis(20);

/// The shortest time between two nudges.
const NUDGE_EVERY: Duration = Duration::from_millis(200);

/// The longest time between two attempts to connect.
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// The shortest time between two polls.
const LEAST_PAUSE: Duration = Duration::from_millis(1);

/// How many topologies are kept for their room. Readers are done with one after a poll or two.
const KEPT: usize = 4;

/// What the monitor publishes.
pub struct Monitor {
    /// The nodes.
    pub topology: Arc<Published<Topology>>,
    /// The polls.
    pub polls: Arc<Polls>,
    /// What logins need to know of roles.
    pub verifiers: Arc<Verifiers>,
}

/// What it takes to poll. It is to be run on the thread of a worker: sessions that wait for a poll are there, so that
/// neither asking for it nor hearing of it wakes a thread, and a worker that has much to do is awake already when an answer
/// comes. (On a thread of its own, a poll took 47 us of CPU time, half of it for sleeping and waking.)
pub struct Watch {
    observer: Observer,
    settings: Arc<Published<Settings>>,
    connectors: Connectors,
    topology: Arc<Published<Topology>>,
    polls: Arc<Polls>,
    clock: Clock,
}

struct Publisher {
    observer: RefCell<Observer>,
    /// What the nodes were when they were last published.
    makeup: RefCell<Makeup>,
    topology: Arc<Published<Topology>>,
    /// What was published before, oldest first.
    old: RefCell<VecDeque<Arc<Topology>>>,
    polls: Arc<Polls>,
    settings: Latest<Settings>,
    connectors: Connectors,
    clock: Clock,
}

impl Monitor {
    /// Starts what answers questions about roles, on the local runtime of this thread, and prepares to poll: that
    /// begins where the second is run. `auth_query` and `auth_ttl` are for [`Verifiers::start`].
    #[must_use]
    pub fn start(
        settings: Arc<Published<Settings>>,
        connectors: Connectors,
        workers: usize,
        clock: Clock,
        auth_query: Option<String>,
        auth_ttl: Duration,
    ) -> (Self, Watch) {
        let names: Vec<_> = settings.load().nodes.iter().map(|n| n.name.clone()).collect();
        let observer = Observer::new(&names);
        let topology = Published::new(observer.topology().clone());
        let polls = Polls::new(names.len(), workers);
        let verifiers = Verifiers::start(
            settings.clone(),
            topology.clone(),
            connectors.clone(),
            clock,
            auth_query,
            auth_ttl,
        );
        let (shown, counted) = (topology.clone(), polls.clone());
        let watch = Watch { observer, settings, connectors, topology: shown, polls: counted, clock };
        (Self { topology, polls, verifiers }, watch)
    }
}

impl Watch {
    /// Polls without end. Not as a task of its own where a thread has many: what a thread was started for is looked at in
    /// between, however many of them there are to be run.
    pub async fn run(self) {
        let Self { observer, settings, connectors, topology, polls, clock } = self;
        let nodes = connectors.len();
        let publisher = Rc::new(Publisher {
            observer: observer.into(),
            makeup: RefCell::default(),
            topology,
            old: RefCell::default(),
            polls,
            settings: Latest::of(settings),
            connectors,
            clock,
        });
        let node = |number| NodeId(u16::try_from(number).unwrap_or(u16::MAX));
        let mut loops: Vec<_> =
            (0..nodes).map(|number| Box::pin(watch_node(publisher.clone(), node(number)))).collect();
        poll_fn(|cx| {
            loops.retain_mut(|watch| watch.as_mut().poll(cx).is_pending());
            Poll::<()>::Pending
        })
        .await;
    }
}

impl Publisher {
    /// Takes in what happened to a node, and tells the epoch and the node's role by that.
    fn observe(&self, node: NodeId, observation: Observation) -> (Epoch, Role) {
        let mut observer = self.observer.borrow_mut();
        let before = observer.topology().primary;
        observer.observe(node, observation);
        let after = observer.topology();
        if after.primary != before {
            let name = |id: Option<NodeId>| {
                id.and_then(|id| after.node(id)).map_or("none".to_owned(), |n| n.name.to_string())
            };
            tracing::info!(primary = %name(after.primary), was = %name(before), epoch = after.epoch.0,
                timeline = after.timeline.0, "the primary has changed");
        }
        self.publish(after);
        self.polls.announce(after, node, self.makeup.borrow_mut().take(after));
        (after.epoch, after.node(node).map_or(Role::Unknown, |n| n.role))
    }

    /// The node's turn among the replicas that may soon be where somebody waits for one to be.
    fn turn(&self, node: NodeId) -> Turn {
        Turn::of(node, self.observer.borrow().topology(), self.settings.get().replica_wait)
    }

    /// Publishes a copy, in the room of an old one that nobody has any more.
    fn publish(&self, topology: &Topology) {
        let mut old = self.old.borrow_mut();
        let mut new = if old.len() < KEPT { Arc::default() } else { old.pop_front().unwrap_or_default() };
        match Arc::get_mut(&mut new) {
            Some(room) => room.copy_from(topology),
            None => new = Arc::new(topology.clone()),
        }
        old.push_back(self.topology.replace(new));
    }
}

async fn watch_node(publisher: Rc<Publisher>, node: NodeId) {
    let mut backoff = Duration::from_millis(50);
    let mut silent = false;
    loop {
        let settings = publisher.settings.get();
        let number = usize::from(node.0);
        let Some((target, connector)) = settings.nodes.get(number).zip(publisher.connectors.get(number))
        else {
            return;
        };
        let connected = timeout(settings.connect_timeout, Probe::connect(target, connector)).await;
        let reason = match connected {
            Ok(Ok(mut probe)) => {
                tracing::info!(node = %target.name, "node is reachable");
                backoff = Duration::from_millis(50);
                silent = false;
                let reason = poll(&publisher, node, &mut probe).await;
                publisher.observe(node, Observation::Lost);
                reason
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {:?}", settings.connect_timeout),
        };
        // Once per outage: an operator needs to know, not to be drowned.
        if !silent {
            tracing::warn!(node = %target.name, reason, "node is not reachable");
            silent = true;
        }
        let jitter = rand::rng().random_range(0.5..1.0);
        sleep(backoff.mul_f64(jitter)).await;
        backoff = (backoff * 2).min(MAX_BACKOFF);
    }
}

/// Polls until the connection breaks, and says why it did.
async fn poll(publisher: &Publisher, node: NodeId, probe: &mut Probe) -> String {
    let Publisher { polls, clock, .. } = publisher;
    let (mut answer, mut next) = (Alarm::for_failures(), Alarm::that_rings());
    let mut usage = Usage::new(polls.units(node), clock.now());
    let mut unflushed_since: Option<Duration> = None;
    let mut nudged = Duration::ZERO;
    let mut epoch = Epoch::default();
    loop {
        let settings = publisher.settings.get();
        let ticket = polls.number(node);
        let sent = clock.now();
        let report = match answer.within(settings.poll_timeout, probe.poll()).await {
            Some(Ok(report)) => report,
            Some(Err(error)) => return error.to_string(),
            None => return format!("a poll had no answer within {:?}", settings.poll_timeout),
        };
        let received = clock.now();
        let (new_epoch, role) =
            publisher.observe(node, Observation::Polled { ticket, sent, received, report });
        if new_epoch != epoch {
            epoch = new_epoch;
            probe.ask_timeline();
        }
        if role == Role::Primary {
            let insert = report.lsn.before_page_header(report.geometry);
            unflushed_since = (insert > report.flushed).then(|| unflushed_since.unwrap_or(sent));
            let stuck = unflushed_since.is_some_and(|since| received.saturating_sub(since) > NUDGE_AFTER);
            if stuck && polls.replays_are_wanted() && received.saturating_sub(nudged) > NUDGE_EVERY {
                nudged = received;
                match timeout(settings.poll_timeout, probe.nudge()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return error.to_string(),
                    Err(_) => return "a nudge had no answer".to_owned(),
                }
            }
        }
        let intervals = settings.poll_interval_busy..=settings.poll_interval;
        let (interval, pause) = usage.polled(polls.units(node), received, role, intervals);
        let last = Last { sent, received, interval, pause, role, unflushed: unflushed_since.is_some() };
        rest(publisher, node, &mut next, &last, &settings).await;
    }
}

/// The last poll, as the time until the next goes by it.
struct Last {
    sent: Duration,
    received: Duration,
    /// How soon the next is worth its cost by the units that flow to the node.
    interval: Duration,
    /// How deep the monitor may sleep until then.
    pause: Pause,
    /// What it has found the node to be.
    role: Role,
    /// It has found WAL on the primary that no standby will get before it is flushed.
    unflushed: bool,
}

/// The time until the next poll: short while somebody waits for one, else as long as what flows makes it; or until
/// somebody rings.
async fn rest(publisher: &Publisher, node: NodeId, alarm: &mut Alarm, last: &Last, settings: &Settings) {
    let Publisher { polls, clock, .. } = publisher;
    let short = settings.poll_interval_busy;
    let wanted = || match polls.wanted(node, last.role) {
        // Somebody may have to see to it that it is flushed.
        Wanted::No if last.unflushed && polls.replays_are_wanted() => Wanted::Now,
        wanted => wanted,
    };
    let usual = due(last.received, last.interval, short);
    let mut since = last.received;
    loop {
        // What it sleeps for, until when, and what somebody may want meanwhile without that it has to wake up.
        let (pause, limit, heard) = match wanted() {
            Wanted::Now => (Pause::Short, due(since, short, short), Wanted::Now),
            _ if last.pause == Pause::Short => (Pause::Short, usual, Wanted::Now),
            Wanted::InTurn => {
                (Pause::Turn, usual.min(publisher.turn(node).due(since, short)), Wanted::InTurn)
            }
            Wanted::No => (last.pause, usual, Wanted::No),
        };
        polls.set_pause(node, pause);
        // Whoever came between the look at what is wanted and the mark has not rung.
        if wanted() > heard {
            break;
        }
        let rung = alarm.within(limit.saturating_sub(clock.now()), polls.rung(node)).await.is_some();
        let now = clock.now();
        // What reads bring along serves those who wait as well as a poll.
        let needless = !polls.take_kick(node)
            && now < usual
            && match wanted() {
                Wanted::No => !rung && pause == Pause::Turn,
                // Before whoever rings has stood in line, too: that read may have been his own, and in vain.
                Wanted::InTurn => {
                    polls.have_heard(node, if rung { now.saturating_sub(short) } else { since })
                }
                Wanted::Now => false,
            };
        if !needless {
            // Whoever rings is heard, but not without end.
            let least = last.sent.saturating_add(LEAST_PAUSE.min(short)).saturating_sub(now);
            if rung && matches!(pause, Pause::Short | Pause::Turn) && !least.is_zero() {
                alarm.after(least).await;
            }
            break;
        }
        since = now;
    }
    polls.set_pause(node, Pause::Short);
}
