//! Pooled connections that end in the moment in which somebody takes them.

use std::time::Instant;

use tidegate::demo::cluster::Cluster;
use tokio_postgres::Client;

use crate::support::proxy::PATIENCE;
use crate::support::{Proxy, proxy::value};

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

/// Waits until something has been sent to a server on that port that it has not read.
async fn wait_unread(port: u16) {
    let local = format!(":{port:04X}");
    let began = Instant::now();
    loop {
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let unread = sockets.lines().skip(1).any(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            // Address, state, and the queues; a socket that listens counts its connections there.
            fields[1].ends_with(&local) && fields[3] != "0A" && !fields[4].ends_with(":00000000")
        });
        if unread {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "nothing is sent to the server");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Ends a server process that has been sent something before it reads it: it dies as one that was idle.
async fn end_unread(pid: &str, cluster: &Cluster) {
    wait_unread(cluster.primary().port).await;
    signal("-TERM", pid);
    signal("-CONT", pid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_never_sent_runs_on_another_connection() {
    let cluster = Cluster::start(0).unwrap();
    let proxy = alone(&cluster).await;
    let (one, other) = (proxy.connect().await, proxy.connect().await);
    one.batch_execute("CREATE TABLE t(n int); SET work_mem = '5MB'").await.unwrap();
    other.batch_execute("SET work_mem = '6MB'").await.unwrap();
    let pid = backend(&other).await;
    signal("-STOP", &pid);
    // The server has the other's settings, and must have these before it gets to see the statement.
    let write =
        one.batch_execute("INSERT INTO t SELECT setting::int FROM pg_settings WHERE name = 'work_mem'");
    let (written, ()) = tokio::join!(write, end_unread(&pid, &cluster));
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
    signal("-STOP", &pid);
    let (written, ()) =
        tokio::join!(one.batch_execute("INSERT INTO t VALUES (1)"), end_unread(&pid, &cluster));
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
    signal("-STOP", &pid);
    let (other, ()) = tokio::join!(proxy.connect(), end_unread(&pid, &cluster));
    assert_eq!(value(&other, "SHOW work_mem").await, "4MB");
    assert_ne!(backend(&other).await, pid);
}
