//! Sessions see their own writes and never go back, whatever the replicas do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate::demo::cluster::Cluster;
use tidegate::demo::load::{Mode, Plan, Seen, Target, prepare, run};
use tokio::time::sleep;

use crate::support::Proxy;
use crate::support::proxy::{last_route, rows, value};
use crate::support::wire::Wire;

const KEYS: i64 = 50;

fn plan(target: Target, level: &str, sessions: usize, operations: u64) -> Plan {
    Plan {
        target,
        sessions,
        writes: 20,
        keys: KEYS,
        operations: Some(operations),
        pause: Duration::ZERO,
        prelude: if level.is_empty() {
            String::new()
        } else {
            format!("SET tidegate.consistency = '{level}'")
        },
        monotonic: level != "read_your_writes",
        modes: Mode::ALL.to_vec(),
    }
}

async fn finish(plan: Plan) -> Arc<Seen> {
    let seen = Arc::new(Seen::default());
    run(plan, seen.clone(), Arc::new(AtomicBool::new(false))).await;
    seen
}

/// Makes the standbys misbehave until told to stop: pauses, delays, and crashes of the second one.
async fn chaos(cluster: Arc<Cluster>, stop: Arc<AtomicBool>) {
    let mut round = 0_u32;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        let replica = cluster.replica((round % 2) as usize);
        match round % 4 {
            0 => {
                replica.pause_replay().await.unwrap();
                sleep(Duration::from_millis(120)).await;
                replica.resume_replay().await.unwrap();
            }
            1 => {
                replica.set_apply_delay(Duration::from_millis(150)).await.unwrap();
                sleep(Duration::from_millis(300)).await;
                replica.set_apply_delay(Duration::ZERO).await.unwrap();
            }
            2 => {
                let (cluster, replica) = (cluster.clone(), cluster.replica(1).clone());
                tokio::task::spawn_blocking(move || {
                    cluster.kill(&replica).unwrap();
                    cluster.boot(&replica).unwrap();
                })
                .await
                .unwrap();
            }
            _ => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// At least 100,000 operations at both levels together, in all three protocols, while standbys lag, pause and crash.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_session_reads_stale_data_and_no_read_fails_while_standbys_lag_pause_and_crash() {
    let cluster = Arc::new(Cluster::start(2).unwrap());
    let proxy = Proxy::start(&cluster).await;
    prepare(&proxy.url("postgres"), KEYS).await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let trouble = tokio::spawn(chaos(cluster.clone(), stop.clone()));
    let url = Target::Proxy(proxy.url("postgres"));
    let mut operations = 0;
    for level in ["session", "read_your_writes"] {
        let seen = finish(plan(url.clone(), level, 12, 4_500)).await;
        let details = seen.details();
        assert_eq!(seen.stale.load(Ordering::Relaxed), 0, "{level}: {:?}", details.complaints);
        assert_eq!(seen.errors.load(Ordering::Relaxed), 0, "{level}: {:?}", details.complaints);
        let on_replicas: u64 = details
            .by_port
            .iter()
            .filter(|(p, _)| **p != i32::from(cluster.primary().port))
            .map(|(_, n)| n)
            .sum();
        assert!(on_replicas > 1000, "{level}: replicas did take part: {:?}", details.by_port);
        operations += seen.reads.load(Ordering::Relaxed) + seen.writes.load(Ordering::Relaxed);
    }
    assert!(operations >= 100_000, "{operations}");
    stop.store(true, Ordering::Relaxed);
    trouble.await.unwrap();
}

/// The checker must be able to fail: a router that takes turns without a look at freshness is caught, and so is
/// Tidegate itself when told not to care.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_checker_catches_a_naive_router_and_the_eventual_level() {
    let cluster = Cluster::start(2).unwrap();
    prepare(&cluster.primary().url(), KEYS).await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    cluster.replica(1).set_apply_delay(Duration::from_millis(150)).await.unwrap();
    let naive = Target::Naive {
        primary: cluster.primary().url(),
        replicas: vec![cluster.replica(0).url(), cluster.replica(1).url()],
    };
    let seen = finish(plan(naive, "", 6, 500)).await;
    assert!(seen.stale.load(Ordering::Relaxed) > 100, "{:?}", seen.stale);
    let proxy = Proxy::start(&cluster).await;
    let seen = finish(plan(Target::Proxy(proxy.url("postgres")), "eventual", 6, 500)).await;
    assert!(seen.stale.load(Ordering::Relaxed) > 100, "{:?}", seen.stale);
}

/// With 20 % writes and one replica 150 ms behind, the default level keeps reads off the primary. The wait is longer
/// than the default, since other tests run beside this one, and shorter than the lag.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_lagging_replica_does_not_drive_reads_to_the_primary() {
    let cluster = Cluster::start(2).unwrap();
    let proxy = Proxy::with(&cluster, &[("TIDEGATE_FRESHNESS_REPLICA_WAIT", "100ms")]).await;
    prepare(&proxy.url("postgres"), KEYS).await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    cluster.replica(1).set_apply_delay(Duration::from_millis(150)).await.unwrap();
    let mut plan = plan(Target::Proxy(proxy.url("postgres")), "", 8, 1_000);
    plan.pause = Duration::from_millis(2);
    let seen = finish(plan).await;
    let details = seen.details();
    let on_primary = details.by_port.get(&i32::from(cluster.primary().port)).copied().unwrap_or_default();
    let reads = seen.reads.load(Ordering::Relaxed);
    assert_eq!(seen.stale.load(Ordering::Relaxed), 0, "{:?}", details.complaints);
    assert_eq!(seen.errors.load(Ordering::Relaxed), 0, "{:?}", details.complaints);
    assert!(on_primary * 10 < reads, "{on_primary} of {reads} reads on the primary");
}

/// A standby crashes, starts again, and has not yet replayed what it had; of all this the monitor hears nothing, as
/// its own connection is cut off in silence. What it knew of the standby must not count for a new connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_connection_to_a_standby_that_came_back_older_serves_no_read() {
    let cluster = Cluster::start(1).unwrap();
    let replica = cluster.replica(0);
    let wire = Wire::to(replica.port).await;
    let urls =
        [cluster.primary().url(), replica.url().replace(&replica.port.to_string(), &wire.port.to_string())];
    let patience = [
        ("TIDEGATE_WORKERS", "1"),
        ("TIDEGATE_FRESHNESS_POLL_TIMEOUT", "60s"),
        ("TIDEGATE_POOL_CONNECT_TIMEOUT", "2s"),
    ];
    let proxy = Proxy::before(&urls, &patience).await;
    let session = proxy.connect().await;
    session.batch_execute("CREATE TABLE t AS SELECT 0 AS n").await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    // From here on a standby that starts may be consistent before it has replayed what follows.
    cluster.primary().execute("CHECKPOINT").await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    replica.execute("CHECKPOINT").await.unwrap();
    session.batch_execute("UPDATE t SET n = 1").await.unwrap();
    while last_route(&session).await.1 != "replica" {
        assert_eq!(value(&session, "SELECT n FROM t").await, "1");
    }
    // Keeps the one idle connection, so that the next read needs a new one.
    let other = proxy.connect().await;
    other.batch_execute("BEGIN READ ONLY").await.unwrap();
    assert_eq!(value(&other, "SELECT n FROM t").await, "1");
    assert_eq!(last_route(&other).await.1, "replica");

    replica.execute("ALTER SYSTEM SET recovery_min_apply_delay = '1h'").await.unwrap();
    wire.silence();
    cluster.kill(replica).unwrap();
    cluster.boot(replica).unwrap();
    let direct = replica.connect().await.unwrap();
    assert_eq!(rows(&direct, "SELECT n FROM t").await, ["0"], "the standby has indeed gone back");
    assert_eq!(value(&session, "SELECT n FROM t").await, "1");
    assert_eq!(last_route(&session).await.1, "primary");
}

/// The WAL of a transaction that is open still stands unflushed on the primary, and no standby gets it before. Who has to
/// see as much does not wait until something else has it flushed, which takes seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_flushes_is_flushed_for_who_waits_for_it() {
    let cluster = Cluster::start(1).unwrap();
    let proxy = Proxy::start(&cluster).await;
    let session = proxy.connect().await;
    session.batch_execute("CREATE TABLE t (n int)").await.unwrap();
    // The table has to be known as one.
    while last_route(&session).await.1 != "replica" {
        assert_eq!(value(&session, "SELECT count(*) FROM t").await, "0");
    }
    for round in 0..2 {
        let writer = cluster.primary().connect().await.unwrap();
        writer.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
        session.batch_execute("SET tidegate.route = 'primary'").await.unwrap();
        assert_eq!(value(&session, "SELECT count(*) FROM t").await, "0");
        // Up to there, for all that is known, it has seen the primary.
        session.batch_execute("SET tidegate.route = 'replica'").await.unwrap();
        assert_eq!(value(&session, "SELECT count(*) FROM t").await, "0", "{round}");
        assert_eq!(last_route(&session).await.1, "replica");
        writer.batch_execute("ROLLBACK").await.unwrap();
    }
}
