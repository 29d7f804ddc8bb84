//! The loop that polls one node.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::clock::Clock;
use super::polls::Polls;
use super::probe::{Probe, describe};
use super::published::Published;
use super::verifiers::Verifiers;
use crate::config::Settings;
use crate::net::Connectors;
use crate::topology::{NodeId, Observation, Observer, Topology};

/// The primary's WAL may stand unflushed for so long while somebody waits, before it is nudged.
const NUDGE_AFTER: Duration = Duration::from_millis(20);

/// The shortest time between two nudges.
const NUDGE_EVERY: Duration = Duration::from_millis(200);

/// The longest time between two attempts to connect.
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// The shortest time between two polls.
const LEAST_PAUSE: Duration = Duration::from_millis(1);

/// How long a node counts as busy after its last unit.
const BUSY_FOR: Duration = Duration::from_millis(20);

/// What the monitor publishes.
pub struct Monitor {
    /// The nodes.
    pub topology: Arc<Published<Topology>>,
    /// The polls.
    pub polls: Arc<Polls>,
    /// Changes with every topology that is published while somebody waits.
    pub changed: watch::Receiver<u64>,
    /// What logins need to know of roles.
    pub verifiers: Arc<Verifiers>,
}

struct Publisher {
    observer: RefCell<Observer>,
    topology: Arc<Published<Topology>>,
    polls: Arc<Polls>,
    changed: watch::Sender<u64>,
    settings: Arc<Published<Settings>>,
    connectors: Connectors,
    clock: Clock,
}

impl Monitor {
    /// Starts to poll, on the local runtime of this thread. `auth_query` and `auth_ttl` are for [`Verifiers::start`].
    #[must_use]
    pub fn start(
        settings: Arc<Published<Settings>>,
        connectors: Connectors,
        workers: usize,
        clock: Clock,
        auth_query: Option<String>,
        auth_ttl: Duration,
    ) -> Self {
        let names: Vec<_> = settings.load().nodes.iter().map(|n| n.name.clone()).collect();
        let observer = Observer::new(&names);
        let topology = Published::new(observer.topology().clone());
        let polls = Polls::new(names.len(), workers);
        let (sender, changed) = watch::channel(0);
        let verifiers = Verifiers::start(
            settings.clone(),
            topology.clone(),
            connectors.clone(),
            clock,
            auth_query,
            auth_ttl,
        );
        let publisher = Rc::new(Publisher {
            observer: observer.into(),
            topology: topology.clone(),
            polls: polls.clone(),
            changed: sender,
            settings,
            connectors,
            clock,
        });
        for number in 0..names.len() {
            let node = NodeId(u16::try_from(number).unwrap_or(u16::MAX));
            tokio::task::spawn_local(watch_node(publisher.clone(), node));
        }
        Self { topology, polls, changed, verifiers }
    }
}

impl Publisher {
    fn observe(&self, node: NodeId, observation: Observation) {
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
        self.topology.store(Arc::new(after.clone()));
        drop(observer);
        if self.polls.is_awaited() {
            self.changed.send_modify(|n| *n = n.wrapping_add(1));
        }
    }
}

async fn watch_node(publisher: Rc<Publisher>, node: NodeId) {
    let mut backoff = Duration::from_millis(50);
    let mut silent = false;
    loop {
        let settings = publisher.settings.load_full();
        let number = usize::from(node.0);
        let Some((target, connector)) = settings.nodes.get(number).zip(publisher.connectors.get(number))
        else {
            return;
        };
        let connect = Probe::connect(target, connector, settings.connect_timeout);
        let connected = timeout(settings.connect_timeout, connect).await;
        let reason = match connected {
            Ok(Ok(mut probe)) => {
                tracing::info!(node = %target.name, "node is reachable");
                backoff = Duration::from_millis(50);
                silent = false;
                let reason = poll(&publisher, node, &mut probe).await;
                publisher.observe(node, Observation::Lost);
                reason
            }
            Ok(Err(reason)) => reason,
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
    let polls = &publisher.polls;
    let clock = publisher.clock;
    let mut units = polls.units(node);
    let mut busy_until = Duration::ZERO;
    let mut unflushed_since: Option<Duration> = None;
    let mut nudged = Duration::ZERO;
    let mut epoch = 0;
    loop {
        let settings = publisher.settings.load_full();
        let ticket = polls.number(node);
        let sent = clock.now();
        let report = match timeout(settings.poll_timeout, probe.poll()).await {
            Ok(Ok(report)) => report,
            Ok(Err(error)) => return describe(&error),
            Err(_) => return format!("a poll had no answer within {:?}", settings.poll_timeout),
        };
        let received = clock.now();
        publisher.observe(node, Observation::Polled { ticket, sent, received, report });
        let topology = publisher.topology.load();
        if topology.epoch.0 != epoch {
            epoch = topology.epoch.0;
            probe.ask_timeline();
        }
        let is_primary = topology.primary == Some(node);
        drop(topology);
        if is_primary {
            let insert = report.lsn.before_page_header(report.geometry);
            unflushed_since = (insert > report.flushed).then(|| unflushed_since.unwrap_or(sent));
            let stuck = unflushed_since.is_some_and(|since| received.saturating_sub(since) > NUDGE_AFTER);
            if stuck && polls.is_awaited() && received.saturating_sub(nudged) > NUDGE_EVERY {
                nudged = received;
                match timeout(settings.poll_timeout, probe.nudge()).await {
                    Ok(Ok(())) => {}
                    // It was demoted meanwhile; the next poll will tell.
                    Ok(Err(error)) if error.as_db_error().is_some() => {}
                    Ok(Err(error)) => return describe(&error),
                    Err(_) => return "a nudge had no answer".to_owned(),
                }
            }
        }
        let now_units = polls.units(node);
        if now_units != units {
            units = now_units;
            busy_until = clock.now() + BUSY_FOR;
        }
        pause(publisher, node, clock.now() < busy_until, &settings).await;
    }
}

/// The time until the next poll: short while somebody waits or units flow, else until the interval is over; or until
/// somebody rings.
async fn pause(publisher: &Publisher, node: NodeId, busy: bool, settings: &Settings) {
    let polls = &publisher.polls;
    if busy || polls.is_awaited() {
        if timeout(settings.poll_interval_busy, polls.rung(node)).await.is_ok() {
            // Whoever rings is heard, but not without end.
            sleep(settings.poll_interval_busy.min(LEAST_PAUSE)).await;
        }
        return;
    }
    polls.set_resting(node, true);
    // Whoever came between the look at `is_awaited` and the mark has not rung.
    if !polls.is_awaited() {
        let _ = timeout(settings.poll_interval, polls.rung(node)).await;
    }
    polls.set_resting(node, false);
}
