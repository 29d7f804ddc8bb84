//! Clients are on as few workers as have time for them, and take all that is theirs with them when they move.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio_postgres::{Client, NoTls};

use crate::support::proxy::{PATIENCE, last_route, rows, sqlstate, value};
use crate::support::{Proxy, database, shared};

const PLACEMENT: &str = "TIDEGATE_CLIENT_PLACEMENT";

async fn placed(placement: &str, workers: &str) -> Proxy {
    Proxy::with(shared(), &[("TIDEGATE_WORKERS", workers), (PLACEMENT, placement)]).await
}

async fn moves(proxy: &Proxy) -> f64 {
    proxy.metric("tidegate_client_moves_total", &[]).await
}

async fn on_worker(proxy: &Proxy, worker: &str) -> f64 {
    proxy.metric("tidegate_worker_clients", &[("worker", worker)]).await
}

/// Has a client ask until it has moved once more.
async fn move_on(proxy: &Proxy, client: &Client) {
    let (before, began) = (moves(proxy).await, Instant::now());
    while moves(proxy).await == before {
        assert!(began.elapsed() < PATIENCE, "nobody moves");
        client.batch_execute("SHOW tidegate.token").await.unwrap();
    }
}

#[tokio::test]
async fn few_clients_share_one_worker() {
    let proxy = placed("gather", "3").await;
    let mut clients = Vec::new();
    for _ in 0..9 {
        clients.push(proxy.connect().await);
    }
    for client in &clients {
        value(client, "SELECT 1").await;
    }
    assert_eq!(on_worker(&proxy, "0").await, 9.0);
    assert_eq!(moves(&proxy).await, 0.0);
}

/// Settings, statements, positions and the level of a session, and what others know it by.
#[tokio::test]
async fn a_client_takes_with_it_what_is_its_own() {
    database("placement_own").await;
    // However busy the machine is, reads are for replicas.
    let variables =
        [("TIDEGATE_WORKERS", "3"), (PLACEMENT, "roam"), ("TIDEGATE_FRESHNESS_REPLICA_WAIT", "30s")];
    let proxy = Proxy::with(shared(), &variables).await;
    proxy.wait_catalog("placement_own").await;
    let client = proxy.connect_to("placement_own").await;
    let another = proxy.connect_to("placement_own").await;
    client
        .batch_execute(
            "CREATE TABLE t (id int, text text); CREATE SCHEMA s; CREATE TABLE s.u AS SELECT 7 AS x",
        )
        .await
        .unwrap();
    client.batch_execute("SET search_path = s").await.unwrap();
    client.batch_execute("SET tidegate.consistency = read_your_writes").await.unwrap();
    another.batch_execute("SET application_name = 'another'").await.unwrap();
    let insert = client.prepare("INSERT INTO public.t VALUES ($1, $2)").await.unwrap();
    let count = client.prepare("SELECT count(*), max(text) FROM public.t WHERE id <= $1").await.unwrap();
    let same = another.prepare("SELECT count(*), max(text) FROM public.t WHERE id <= $1").await.unwrap();
    for n in 1..=30_i32 {
        move_on(&proxy, &client).await;
        client.execute(&insert, &[&n, &format!("{n:03}")]).await.unwrap();
        if n % 2 == 0 {
            move_on(&proxy, &client).await;
        }
        let token = value(&client, "SHOW tidegate.token").await;
        let row = client.query_one(&count, &[&n]).await.unwrap();
        assert_eq!(
            (row.get::<_, i64>(0), row.get::<_, String>(1)),
            (i64::from(n), format!("{n:03}")),
            "{token}"
        );
        assert_eq!(value(&client, "SELECT x FROM u").await, "7");
        assert_eq!(value(&client, "SHOW tidegate.consistency").await, "read_your_writes");
        assert_eq!(value(&another, "SELECT current_setting('application_name')").await, "another");
        another.query_one(&same, &[&n]).await.unwrap();
    }
    // Once the catalog has been read anew behind the definitions.
    let began = Instant::now();
    while last_route(&client).await.1 != "replica" {
        assert!(began.elapsed() < PATIENCE, "nothing is read from replicas");
        value(&client, "SELECT x FROM u").await;
    }
    // What binds it to a server keeps it where that is.
    client.batch_execute("CREATE TEMP TABLE own AS SELECT 1 AS x").await.unwrap();
    for _ in 0..10 {
        assert_eq!(value(&client, "SELECT x FROM own").await, "1");
    }
    client.batch_execute("DROP TABLE own; BEGIN; INSERT INTO public.t VALUES (99, 'x')").await.unwrap();
    let here = value(&client, "SELECT pg_backend_pid()").await;
    for _ in 0..5 {
        assert_eq!(value(&client, "SELECT pg_backend_pid()").await, here);
    }
    client.batch_execute("ROLLBACK").await.unwrap();
    drop((client, another));
    let began = Instant::now();
    while proxy.metric("tidegate_clients", &[]).await != 0.0 {
        assert!(began.elapsed() < PATIENCE, "somebody who has left counts still");
    }
}

/// The process id that a client was told tells a worker where it is no more.
#[tokio::test]
async fn a_cancel_request_finds_a_client_that_has_moved() {
    let proxy = placed("roam", "4").await;
    let client = Arc::new(proxy.connect().await);
    for _ in 0..9 {
        move_on(&proxy, &client).await;
        let cancel = client.cancel_token();
        let sleeping = tokio::spawn({
            let client = client.clone();
            async move { sqlstate(&client, SLEEP).await }
        });
        let watcher = shared().primary().connect().await.unwrap();
        let began = Instant::now();
        while rows(&watcher, SLEEPS).await.is_empty() {
            assert!(began.elapsed() < PATIENCE, "it does not run");
        }
        cancel.cancel_query(NoTls).await.unwrap();
        assert_eq!(sleeping.await.unwrap(), "57014");
    }
}

const SLEEP: &str = "/* tidegate: route=primary */ SELECT pg_sleep(60)";

const SLEEPS: &str =
    "SELECT pid FROM pg_stat_activity WHERE query LIKE '/* tidegate: %pg_sleep(60)' AND state = 'active'";

#[tokio::test]
async fn placement_changes_at_a_reload() {
    let file = std::env::temp_dir().join(format!("tidegate-placement-{}.toml", std::process::id()));
    std::fs::write(&file, "client_placement = 'even'").unwrap();
    let proxy = Proxy::with(shared(), &[("TIDEGATE_CONFIG", file.to_str().unwrap())]).await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(proxy.connect().await);
    }
    assert_eq!((on_worker(&proxy, "0").await, on_worker(&proxy, "1").await), (3.0, 3.0));
    std::fs::write(&file, "client_placement = 'gather'").unwrap();
    proxy.signal("-HUP");
    let began = Instant::now();
    while on_worker(&proxy, "0").await < 6.0 {
        assert!(began.elapsed() < PATIENCE, "not all gather");
        for client in &clients {
            value(client, "SELECT 1").await;
        }
    }
    // Three have come, and none has gone to and fro.
    assert_eq!(moves(&proxy).await, 3.0);
    std::fs::remove_file(file).unwrap();
}

/// Those that are on their way when it is told to end are let go, too.
#[tokio::test]
async fn who_moves_while_it_drains_leaves() {
    let mut proxy = placed("roam", "4").await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for _ in 0..16 {
        let client = proxy.connect().await;
        let stop = stop.clone();
        tasks.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) && client.simple_query("SHOW tidegate.token").await.is_ok() {}
        }));
    }
    while moves(&proxy).await < 1000.0 {
        tokio::task::yield_now().await;
    }
    proxy.signal("-TERM");
    let status = tokio::task::spawn_blocking(move || proxy.child.wait().unwrap()).await.unwrap();
    assert!(status.success(), "{status}");
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
}
