//! What a routing decision and the bookkeeping of tickets cost.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use tidegate::lsn::{Lsn, Ticket, Timeline, WalGeometry};
use tidegate::route::{Ask, Budget, Level, Open, Want, Why, decide};
use tidegate::session::Freshness;
use tidegate::topology::{Heard, NodeId, Observation, Observer, Report, Topology};

/// What a poll finds.
fn report(in_recovery: bool, lsn: u64) -> Report {
    Report {
        in_recovery,
        lsn: Lsn(lsn),
        flushed: Lsn(lsn),
        timeline: Timeline(1),
        system: 1,
        geometry: WalGeometry::default(),
    }
}

/// A primary and as many replicas as given, all caught up and polled once.
fn observer(replicas: u16) -> Observer {
    let names: Vec<Arc<str>> = (0..=replicas).map(|n| format!("node{n}:5432").into()).collect();
    let mut observer = Observer::new(&names);
    for n in 0..=replicas {
        let report = report(n > 0, 1_000_000);
        let at = Duration::from_millis(5);
        observer
            .observe(NodeId(n), Observation::Polled { ticket: Ticket(1), sent: at, received: at, report });
    }
    observer
}

fn topology(replicas: u16) -> Topology {
    observer(replicas).topology().clone()
}

const ASK: Ask<'_> = Ask {
    want: Want::Read(Why::Read),
    level: Level::Session,
    max_staleness: None,
    replica_wait: Duration::from_millis(10),
    wait_over_budget: true,
    deadline: Duration::from_secs(10),
    waited_since: None,
    may_prove: true,
    avoid: &[],
};

fn open(node: u16) -> Open {
    Open { node: NodeId(node), ticket: Ticket(1), server_epoch: 0, of_standby: node > 0 }
}

fn route(c: &mut Criterion) {
    let now = Duration::from_millis(6);
    for replicas in [2, 19] {
        let topology = topology(replicas);
        let (mut budget, heard) = (Budget::new(None, 1), Heard::default());
        let mut freshness = Freshness::new(0);
        freshness.wrote(open(0), &topology);
        freshness.resolve(&topology, |_| Ticket(2));
        c.bench_function(&format!("decide among {} nodes", replicas + 1), |b| {
            b.iter(|| decide(black_box(&ASK), &freshness.view(&heard), &topology, now, &mut budget, |_| 9));
        });
    }
}

fn tickets(c: &mut Criterion) {
    let topology = topology(2);
    let mut freshness = Freshness::new(0);
    c.bench_function("a write, a read and their tickets", |b| {
        b.iter(|| {
            freshness.wrote(open(0), &topology);
            freshness.read_on(open(1), &topology, Level::Session);
            black_box(freshness.resolve(&topology, |_| Ticket(2)))
        });
    });
}

/// A poll's answer is taken in, and the new topology is a copy of the observer's.
fn polls(c: &mut Criterion) {
    for replicas in [2, 19] {
        let mut observer = observer(replicas);
        let mut n = 1_u64;
        c.bench_function(&format!("observe one of {} nodes", replicas + 1), |b| {
            b.iter(|| {
                n += 1;
                let (at, id) = (Duration::from_millis(n), NodeId(n as u16 % (replicas + 1)));
                let report = report(id != NodeId(0), 1_000_000 + n);
                observer
                    .observe(id, Observation::Polled { ticket: Ticket(n), sent: at, received: at, report });
                Arc::new(observer.topology().clone())
            });
        });
    }
}

criterion_group!(benches, route, tickets, polls);
criterion_main!(benches);
