//! Pooled connections that end in the moment in which somebody takes them.

use std::time::Instant;

use tidegate::demo::cluster::Cluster;
use tokio_postgres::Client;

use crate::support::Proxy;
use crate::support::proxy::{PATIENCE, last_route, signal, sqlstate, value};
use crate::support::sockets::wait_unread;

/// A proxy whose clients all share one server connection.
async fn alone(cluster: &Cluster) -> Proxy {
    Proxy::with(cluster, &[("TIDEGATE_POOL_SIZE", "1"), ("TIDEGATE_WORKERS", "1")]).await
}

/// The server process of that connection.
async fn backend(client: &Client) -> u32 {
    value(client, "/* tidegate: route=primary */ SELECT pg_backend_pid()").await.parse().unwrap()
}

/// Two sessions with other settings each, of which the server connection has the second one's: it must be given the first
/// one's before it gets to see a statement that may write.
async fn one_and_other(proxy: &Proxy) -> (Client, Client) {
    let (one, other) = (proxy.connect().await, proxy.connect().await);
    one.batch_execute("CREATE TABLE t(n int); SET work_mem = '5MB'").await.unwrap();
    other.batch_execute("SET work_mem = '6MB'").await.unwrap();
    (one, other)
}

/// The port that this server process has been connected to from.
async fn peer_of(pid: u32, cluster: &Cluster) -> u16 {
    let client = cluster.primary().connect().await.unwrap();
    let sql = format!("SELECT client_port::text FROM pg_stat_activity WHERE pid = {pid}");
    value(&client, &sql).await.parse().unwrap()
}

/// A server process that does nothing until it is let go.
struct Stopped {
    pid: u32,
    peer: u16,
}

impl Stopped {
    async fn new(pid: u32, cluster: &Cluster) -> Self {
        let peer = peer_of(pid, cluster).await;
        signal("-STOP", pid);
        Self { pid, peer }
    }

    /// Ends it once it has been sent something, before it reads that: it dies as one that was idle.
    async fn end_unread(&self) {
        wait_unread(self.peer).await;
        self.end();
    }

    fn end(&self) {
        signal("-TERM", self.pid);
        signal("-CONT", self.pid);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_never_sent_runs_on_another_connection() {
    let cluster = Cluster::start(0).unwrap();
    let proxy = alone(&cluster).await;
    let (one, other) = one_and_other(&proxy).await;
    let pid = backend(&other).await;
    let stopped = Stopped::new(pid, &cluster).await;
    let write =
        one.batch_execute("INSERT INTO t SELECT setting::int FROM pg_settings WHERE name = 'work_mem'");
    let (written, ()) = tokio::join!(write, stopped.end_unread());
    written.unwrap();
    assert_eq!(value(&one, "SELECT string_agg(n::text, ',') FROM t").await, "5120");
    assert_ne!(backend(&one).await, pid);
    assert_eq!(proxy.metric("tidegate_retaken_total", &[]).await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_have_run_does_not_run_again() {
    let cluster = Cluster::start(0).unwrap();
    let proxy = alone(&cluster).await;
    let one = proxy.connect().await;
    one.batch_execute("CREATE TABLE t(n int)").await.unwrap();
    let pid = backend(&one).await;
    let stopped = Stopped::new(pid, &cluster).await;
    let (code, ()) = tokio::join!(sqlstate(&one, "INSERT INTO t VALUES (1)"), stopped.end_unread());
    // The server's last words, unless what it had not read has taken them along.
    assert!(matches!(&*code, "57P01" | "08006"), "{code}");
    assert_eq!(value(&proxy.connect().await, "SELECT count(*) FROM t").await, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_comes_in_by_another_connection() {
    let cluster = Cluster::start(0).unwrap();
    let proxy = alone(&cluster).await;
    let one = proxy.connect().await;
    one.batch_execute("SET work_mem = '5MB'").await.unwrap();
    let pid = backend(&one).await;
    let stopped = Stopped::new(pid, &cluster).await;
    let (other, ()) = tokio::join!(proxy.connect(), stopped.end_unread());
    assert_eq!(value(&other, "SHOW work_mem").await, "4MB");
    assert_ne!(backend(&other).await, pid);
    assert_eq!(proxy.metric("tidegate_retaken_total", &[]).await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_cancelled_meanwhile_does_not_run_on_another_connection() {
    let cluster = Cluster::start(0).unwrap();
    let proxy = alone(&cluster).await;
    let (one, other) = one_and_other(&proxy).await;
    let stopped = Stopped::new(backend(&other).await, &cluster).await;
    let cancelled = async {
        wait_unread(stopped.peer).await;
        one.cancel_token().cancel_query(tokio_postgres::NoTls).await.unwrap();
        stopped.end_unread().await;
    };
    let (code, ()) = tokio::join!(sqlstate(&one, "INSERT INTO t VALUES (1)"), cancelled);
    assert_eq!(code, "57014");
    assert_eq!(value(&one, "SELECT count(*) FROM t").await, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_never_ran_binds_nobody() {
    let cluster = Cluster::start(1).unwrap();
    let proxy = alone(&cluster).await;
    let (one, other) = one_and_other(&proxy).await;
    // Until a replica is known to have what it has written.
    while last_route(&one).await.1 != "replica" {
        assert_eq!(value(&one, "SELECT 1").await, "1");
    }
    let stopped = Stopped::new(backend(&other).await, &cluster).await;
    let crash = async {
        wait_unread(stopped.peer).await;
        tokio::task::block_in_place(|| cluster.kill(cluster.primary())).unwrap();
        stopped.end();
    };
    // It would bind the session to its server.
    let (ran, ()) = tokio::join!(one.batch_execute("LOAD 'plpgsql'"), crash);
    let error = ran.unwrap_err();
    assert!(!one.is_closed(), "{error:?}");
    assert_eq!(value(&one, "SELECT 1").await, "1", "a replica serves it");
    cluster.boot(cluster.primary()).unwrap();
    let began = Instant::now();
    loop {
        let code = sqlstate(&one, "INSERT INTO t VALUES (1)").await;
        if code.is_empty() {
            break;
        }
        assert_ne!(code, "25006", "it is bound to the replica");
        assert!(began.elapsed() < PATIENCE, "{code}");
    }
}
