//! `pool.size` counts over all workers, and each worker's clients get their turn.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::support::proxy::value;
use crate::support::{Proxy, database, shared};

/// Statements that each busy client has under way, so that its worker finds the next one there as one ends.
const PIPELINED: usize = 4;

/// Clients are dealt to the worker that has the fewest, and stay there.
const EVEN: (&str, &str) = ("TIDEGATE_CLIENT_PLACEMENT", "even");

/// Units that each client of the quiet workers runs, one after the other.
const UNITS: u32 = 30;

/// A workload in which worker 0 has more clients than there are connections, and each other worker has one.
struct Crowd {
    workers: usize,
    size: usize,
    busy: usize,
    unit: &'static str,
}

/// Counts the connections that clients have at the primary, until it is told to stop.
fn watch(database: &'static str, stop: Arc<AtomicBool>) -> JoinHandle<u32> {
    let count = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND application_name <> 'tidegate monitor'"
    );
    tokio::spawn(async move {
        let watcher = shared().primary().connect().await.unwrap();
        let mut most = 0;
        while !stop.load(Ordering::Relaxed) {
            most = most.max(value(&watcher, &count).await.parse().unwrap());
        }
        most
    })
}

/// Keeps statements under way until it is told to stop, and counts them.
fn hurry(
    client: Client,
    unit: &'static str,
    done: &Arc<AtomicU32>,
    stop: &Arc<AtomicBool>,
) -> Vec<JoinHandle<()>> {
    let client = Arc::new(client);
    let one = |_| {
        let (client, done, stop) = (client.clone(), done.clone(), stop.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                client.batch_execute(unit).await.unwrap();
                done.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    (0..PIPELINED).map(one).collect()
}

/// The most connections that were seen, and how many of the busy clients' units ran for one of the others'.
async fn crowd(database: &'static str, crowd: &Crowd) -> (u32, u32) {
    self::database(database).await;
    let (size, workers) = (crowd.size.to_string(), crowd.workers.to_string());
    // Whoever is not served within the timeout is told so, which fails the test.
    let variables = [
        ("TIDEGATE_POOL_SIZE", &*size),
        ("TIDEGATE_WORKERS", &*workers),
        ("TIDEGATE_POOL_TIMEOUT", "10s"),
        EVEN,
    ];
    let proxy = Proxy::with(shared(), &variables).await;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    // Clients are dealt to the worker that has the fewest: one after the other, round and round.
    let (mut busy, mut quiet, mut unused) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..crowd.busy * crowd.workers {
        let client = proxy.connect_to(database).await;
        client.batch_execute("SET tidegate.route = primary").await.unwrap();
        match n % crowd.workers {
            0 => busy.push(client),
            _ if n < crowd.workers => quiet.push(client),
            _ => unused.push(client),
        }
    }
    let watcher = watch(database, stop.clone());
    let hurrying: Vec<_> = busy.into_iter().flat_map(|c| hurry(c, crowd.unit, &done, &stop)).collect();
    while done.load(Ordering::Relaxed) < 100 {
        tokio::task::yield_now().await;
    }
    let before = done.load(Ordering::Relaxed);
    let one = |client: Client| {
        let unit = crowd.unit;
        tokio::spawn(async move {
            for _ in 0..UNITS {
                client.batch_execute(unit).await.unwrap();
            }
        })
    };
    for task in quiet.into_iter().map(one).collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let meanwhile = done.load(Ordering::Relaxed) - before;
    stop.store(true, Ordering::Relaxed);
    for task in hurrying {
        task.await.unwrap();
    }
    (watcher.await.unwrap(), meanwhile / UNITS)
}

#[tokio::test]
async fn the_limit_is_one_for_all_workers_and_each_gets_its_turn() {
    let unit = "SELECT pg_sleep(0.002)";
    for (database, workers, size) in [("fairness_two", 2, 2), ("fairness_four", 4, 3)] {
        let (most, meanwhile) = crowd(database, &Crowd { workers, size, busy: 6, unit }).await;
        assert!((1..=size as u32).contains(&most), "{most} connections, where {size} are allowed");
        assert!(meanwhile < 50, "{meanwhile} units of the busy worker's clients for one of another's");
    }
}

/// The next statement of the one is always there before the other's worker has been woken.
#[tokio::test]
async fn one_that_never_pauses_does_not_keep_the_only_connection() {
    let (most, _) = crowd("fairness_one", &Crowd { workers: 2, size: 1, busy: 1, unit: "SELECT 1" }).await;
    assert_eq!(most, 1);
}

#[tokio::test]
async fn what_one_worker_does_not_use_another_gets() {
    database("fairness_idle").await;
    let variables =
        [("TIDEGATE_POOL_SIZE", "6"), ("TIDEGATE_WORKERS", "2"), ("TIDEGATE_POOL_TIMEOUT", "10s"), EVEN];
    let proxy = Proxy::with(shared(), &variables).await;
    let mut workers = [Vec::new(), Vec::new()];
    for n in 0..12 {
        workers[n % 2].push(Arc::new(proxy.connect_to("fairness_idle").await));
    }
    // The clients of one worker take all connections, then those of the other.
    for clients in workers.iter().chain(&workers) {
        let begin = |client: &Arc<Client>| {
            let client = client.clone();
            tokio::spawn(async move { client.batch_execute("BEGIN").await.unwrap() })
        };
        for task in clients.iter().map(begin).collect::<Vec<_>>() {
            task.await.unwrap();
        }
        for client in clients {
            client.batch_execute("COMMIT").await.unwrap();
        }
    }
}

/// Connections were once ended behind each client that had waited for one, as if it waited still.
#[tokio::test]
async fn a_crowd_goes_through_the_same_connections() {
    let variables =
        [("TIDEGATE_POOL_SIZE", "2"), ("TIDEGATE_WORKERS", "1"), ("TIDEGATE_POOL_TIMEOUT", "20s")];
    let proxy = Proxy::with(shared(), &variables).await;
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let client = proxy.connect().await;
        tasks.push(tokio::spawn(async move {
            let mut pids = HashSet::new();
            for _ in 0..50 {
                pids.insert(value(&client, "SELECT pg_backend_pid()").await);
            }
            pids
        }));
    }
    let mut pids = HashSet::new();
    for task in tasks {
        pids.extend(task.await.unwrap());
    }
    assert!(pids.len() <= 2, "{} connections were made", pids.len());
}
