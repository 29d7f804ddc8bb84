//! Pooled connections that end in the moment in which somebody takes them.

use std::time::{Duration, Instant};

use tidegate::demo::cluster::Cluster;
use tokio_postgres::Client;

use crate::support::Proxy;
use crate::support::proxy::{PATIENCE, last_route, value};

/// A proxy whose clients all share one server connection.
async fn alone(cluster: &Cluster) -> Proxy {
    Proxy::with(cluster, &[("TIDEGATE_POOL_SIZE", "1"), ("TIDEGATE_WORKERS", "1")]).await
}

/// The server process of that connection.
async fn backend(client: &Client) -> String {
    value(client, "/* tidegate: route=primary */ SELECT pg_backend_pid()").await
}

fn signal(name: &str, pid: &str) {
    assert!(std::process::Command::new("kill").args([name, pid]).status().unwrap().success());
}

/// The port that this server process has been connected to from.
async fn peer_of(pid: &str, cluster: &Cluster) -> u16 {
    let client = cluster.primary().connect().await.unwrap();
    let sql = format!("SELECT client_port::text FROM pg_stat_activity WHERE pid = {pid}");
    value(&client, &sql).await.parse().unwrap()
}

/// Waits until what has been sent to a server process from that port is there, unread.
async fn wait_unread(peer: u16) {
    let peer = format!(":{peer:04X}");
    let began = Instant::now();
    loop {
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let unread = sockets.lines().skip(1).any(|line| {
            // Both addresses, the state, and the queues.
            let fields: Vec<_> = line.split_whitespace().collect();
            fields[2].ends_with(&peer) && !fields[4].ends_with(":00000000")
        });
        if unread {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "nothing is sent to the server");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A server process that does nothing until it is let go.
struct Stopped {
    pid: String,
    peer: u16,
}

impl Stopped {
    async fn new(pid: &str, cluster: &Cluster) -> Self {
        let peer = peer_of(pid, cluster).await;
        signal("-STOP", pid);
        Self { pid: pid.to_owned(), peer }
    }

    /// Ends it once it has been sent something, before it reads that: it dies as one that was idle.
    async fn end_unread(&self) {
        wait_unread(self.peer).await;
        signal("-TERM", &self.pid);
        signal("-CONT", &self.pid);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_never_sent_runs_on_another_connection() {
    let cluster = Cluster::start(0).unwrap();
    let proxy = alone(&cluster).await;
    let (one, other) = (proxy.connect().await, proxy.connect().await);
    one.batch_execute("CREATE TABLE t(n int); SET work_mem = '5MB'").await.unwrap();
    other.batch_execute("SET work_mem = '6MB'").await.unwrap();
    let pid = backend(&other).await;
    let stopped = Stopped::new(&pid, &cluster).await;
    // The server has the other's settings, and must have these before it gets to see the statement.
    let write =
        one.batch_execute("INSERT INTO t SELECT setting::int FROM pg_settings WHERE name = 'work_mem'");
    let (written, ()) = tokio::join!(write, stopped.end_unread());
    written.unwrap();
    assert_eq!(value(&one, "SELECT string_agg(n::text, ',') FROM t").await, "5120");
    assert_ne!(backend(&one).await, pid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_have_run_does_not_run_again() {
    let cluster = Cluster::start(0).unwrap();
    let proxy = alone(&cluster).await;
    let one = proxy.connect().await;
    one.batch_execute("CREATE TABLE t(n int)").await.unwrap();
    let pid = backend(&one).await;
    let stopped = Stopped::new(&pid, &cluster).await;
    let (written, ()) = tokio::join!(one.batch_execute("INSERT INTO t VALUES (1)"), stopped.end_unread());
    let error = written.unwrap_err();
    // The server's last words, unless what it had not read has taken them along.
    let code = error.code().map(tokio_postgres::error::SqlState::code);
    assert!(matches!(code, Some("57P01" | "08006")), "{error:?}");
    assert_eq!(value(&proxy.connect().await, "SELECT count(*) FROM t").await, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_comes_in_by_another_connection() {
    let cluster = Cluster::start(0).unwrap();
    let proxy = alone(&cluster).await;
    let one = proxy.connect().await;
    one.batch_execute("SET work_mem = '5MB'").await.unwrap();
    let pid = backend(&one).await;
    let stopped = Stopped::new(&pid, &cluster).await;
    let (other, ()) = tokio::join!(proxy.connect(), stopped.end_unread());
    assert_eq!(value(&other, "SHOW work_mem").await, "4MB");
    assert_ne!(backend(&other).await, pid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_cancelled_meanwhile_does_not_run_on_another_connection() {
    let cluster = Cluster::start(0).unwrap();
    let proxy = alone(&cluster).await;
    let (one, other) = (proxy.connect().await, proxy.connect().await);
    one.batch_execute("CREATE TABLE t(n int); SET work_mem = '5MB'").await.unwrap();
    other.batch_execute("SET work_mem = '6MB'").await.unwrap();
    let stopped = Stopped::new(&backend(&other).await, &cluster).await;
    let cancelled = async {
        wait_unread(stopped.peer).await;
        one.cancel_token().cancel_query(tokio_postgres::NoTls).await.unwrap();
        stopped.end_unread().await;
    };
    let (written, ()) = tokio::join!(one.batch_execute("INSERT INTO t VALUES (1)"), cancelled);
    assert_eq!(written.unwrap_err().code().map(tokio_postgres::error::SqlState::code), Some("57014"));
    assert_eq!(value(&one, "SELECT count(*) FROM t").await, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_never_ran_binds_nobody() {
    let cluster = Cluster::start(1).unwrap();
    let proxy = alone(&cluster).await;
    let (one, other) = (proxy.connect().await, proxy.connect().await);
    one.batch_execute("CREATE TABLE t(n int); SET work_mem = '5MB'").await.unwrap();
    other.batch_execute("SET work_mem = '6MB'").await.unwrap();
    // Until a replica is known to have what it has written.
    while last_route(&one).await.1 != "replica" {
        assert_eq!(value(&one, "SELECT 1").await, "1");
    }
    let stopped = Stopped::new(&backend(&other).await, &cluster).await;
    let crash = async {
        wait_unread(stopped.peer).await;
        let (cluster, pid) = (&cluster, &stopped.pid);
        tokio::task::block_in_place(|| {
            let started = std::fs::read_to_string(cluster.primary().data.join("postmaster.pid")).unwrap();
            signal("-KILL", started.lines().next().unwrap());
            signal("-TERM", pid);
            signal("-CONT", pid);
            let _ = cluster.kill(cluster.primary());
        });
    };
    // It would bind the session to its server.
    let (ran, ()) = tokio::join!(one.batch_execute("LOAD 'plpgsql'"), crash);
    let error = ran.unwrap_err();
    assert!(!one.is_closed(), "{error:?}");
    assert_eq!(value(&one, "SELECT 1").await, "1", "a replica serves it");
    cluster.boot(cluster.primary()).unwrap();
    let began = Instant::now();
    while let Err(error) = one.batch_execute("INSERT INTO t VALUES (1)").await {
        assert_ne!(
            error.code().map(tokio_postgres::error::SqlState::code),
            Some("25006"),
            "it is bound to the replica"
        );
        assert!(began.elapsed() < PATIENCE, "{error}");
    }
}
