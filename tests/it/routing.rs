//! Where units go, and what a client is told about it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tidegate::demo::cluster::{Cluster, Server};
use tidegate::demo::ports::free_ports;
use tokio_postgres::Client;

use crate::support::proxy::{PATIENCE, connect, last_route, sqlstate, value};
use crate::support::{Proxy, database, shared};

/// Machines that run tests are slow: what these tests ask is where a read goes once a replica is fresh.
const PATIENT: [(&str, &str); 1] = [("TIDEGATE_FRESHNESS_REPLICA_WAIT", "10s")];

const PORT: &str = "SELECT inet_server_port()";

async fn moves_on(client: &Client, times: usize) {
    let mut last = value(client, PORT).await;
    for _ in 0..times {
        let now = value(client, PORT).await;
        assert_ne!(now, last, "every unit moves on to the next replica");
        last = now;
    }
}

#[tokio::test]
async fn reads_alternate_and_shares_are_equal() {
    let proxy = Proxy::with(shared(), &PATIENT).await;
    proxy.wait_catalog("postgres").await;
    let client = proxy.connect().await;
    client.batch_execute("SET tidegate.consistency = read_your_writes").await.unwrap();
    moves_on(&client, 50).await;
    // At `session` a session moves on once the replica that it read from was polled again.
    let client = proxy.connect().await;
    let first = value(&client, PORT).await;
    let began = Instant::now();
    while value(&client, PORT).await == first {
        assert!(began.elapsed() < PATIENCE, "a session does not stay on one replica");
        // On a busy machine no poll may fit between reads that follow each other at once.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut shares: HashMap<String, u32> = HashMap::new();
    for _ in 0..40 {
        let client = proxy.connect().await;
        *shares.entry(value(&client, PORT).await).or_default() += 1;
    }
    // Each worker has a round of its own, which may begin with either.
    assert!(shares.values().all(|share| (18..=22).contains(share)) && shares.len() == 2, "{shares:?}");
}

/// Whoever reads waits for what it has asked: in a strict round, all would soon wait for a slow one.
#[tokio::test]
async fn the_round_passes_by_who_is_far_busier() {
    let proxy = Proxy::with(shared(), &[PATIENT[0], ("TIDEGATE_WORKERS", "1")]).await;
    proxy.wait_catalog("postgres").await;
    let busy = shared().replica(0).port.to_string();
    let mut sitting = Vec::new();
    // No more of them would come to sit there.
    while sitting.len() < 5 {
        let client = proxy.connect().await;
        client.batch_execute("BEGIN READ ONLY").await.unwrap();
        if value(&client, PORT).await == busy {
            sitting.push(client);
        } else {
            client.batch_execute("COMMIT").await.unwrap();
        }
    }
    let client = proxy.connect().await;
    client.batch_execute("SET tidegate.consistency = read_your_writes").await.unwrap();
    for _ in 0..20 {
        assert_ne!(value(&client, PORT).await, busy);
    }
    for client in &sitting {
        client.batch_execute("COMMIT").await.unwrap();
    }
    moves_on(&client, 20).await;
}

#[tokio::test]
async fn the_previous_route_is_told_with_its_reason() {
    database("routing_why").await;
    let proxy = Proxy::with(shared(), &PATIENT).await;
    let client = proxy.connect_to("routing_why").await;
    let primary = format!("127.0.0.1:{}", shared().primary().port);
    for (sql, role, why) in [
        ("CREATE TABLE t (id int)", "primary", "write"),
        ("SELECT * FROM t", "replica", "read"),
        ("SELECT * FROM t FOR UPDATE", "primary", "lock"),
        ("SELECT pg_backend_pid()", "primary", "function"),
        ("SELECT nextval('x')", "primary", "function"),
        ("SELECT 1; INSERT INTO t VALUES (1)", "primary", "mixed"),
        ("SELECT 1; SELECT 2", "replica", "read"),
        ("BEGIN; SELECT 1; COMMIT", "primary", "mixed"),
        ("/* tidegate: route=primary */ SELECT 1", "primary", "hint"),
        ("SELECT * FROM pg_stat_activity", "primary", "relation"),
        ("SET work_mem = '2MB'", "primary", "session_state"),
    ] {
        proxy.wait_catalog("routing_why").await;
        let _ = client.simple_query(sql).await;
        let (node, r, w) = last_route(&client).await;
        assert_eq!((r.as_str(), w.as_str()), (role, why), "{sql}");
        assert_eq!(node == primary, role == "primary", "{sql}");
    }
}

#[tokio::test]
async fn a_route_can_be_demanded() {
    let proxy = Proxy::with(shared(), &PATIENT).await;
    proxy.wait_catalog("postgres").await;
    let client = proxy.connect().await;
    client.batch_execute("SET tidegate.route = primary").await.unwrap();
    assert_eq!(value(&client, PORT).await, shared().primary().port.to_string());
    client.batch_execute("SET tidegate.route TO 'replica'").await.unwrap();
    assert_ne!(value(&client, PORT).await, shared().primary().port.to_string());
    assert_eq!(sqlstate(&client, "CREATE TABLE never (id int)").await, "25006");
    client.batch_execute("RESET tidegate.route").await.unwrap();
    assert_eq!(value(&client, "SHOW tidegate.route").await, "auto");
    assert_eq!(sqlstate(&client, "SET tidegate.route = nowhere").await, "22023");
    assert_eq!(sqlstate(&client, "SET tidegate.consistency = strong").await, "22023");
    assert_eq!(sqlstate(&client, "SHOW tidegate.nothing").await, "42704");
    assert_eq!(value(&client, "SHOW tidegate.consistency").await, "session");
}

#[tokio::test]
async fn transactions_stay_where_they_began() {
    let proxy = Proxy::with(shared(), &PATIENT).await;
    proxy.wait_catalog("postgres").await;
    let client = proxy.connect().await;
    let primary = shared().primary().port.to_string();
    client.batch_execute("BEGIN").await.unwrap();
    assert_eq!(value(&client, PORT).await, primary);
    client.batch_execute("COMMIT").await.unwrap();
    client.batch_execute("BEGIN READ ONLY").await.unwrap();
    assert_eq!(last_route(&client).await.2, "read_only_transaction");
    let there = value(&client, PORT).await;
    assert_ne!(there, primary);
    for _ in 0..5 {
        assert_eq!(value(&client, PORT).await, there);
    }
    assert_eq!(sqlstate(&client, "CREATE TABLE never (id int)").await, "25006");
    client.batch_execute("ROLLBACK").await.unwrap();
    client.batch_execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY").await.unwrap();
    client.batch_execute("BEGIN").await.unwrap();
    assert_ne!(value(&client, PORT).await, primary);
    client.batch_execute("COMMIT").await.unwrap();
}

/// A lock taken on a replica would be held from nobody, and state left there would bind the session to it.
#[tokio::test]
async fn what_does_not_belong_on_a_replica_takes_a_read_only_transaction_to_the_primary() {
    let proxy = Proxy::with(shared(), &PATIENT).await;
    proxy.wait_catalog("postgres").await;
    let client = proxy.connect().await;
    for begin in ["BEGIN READ ONLY", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"] {
        client.batch_execute(begin).await.unwrap();
        assert_eq!(last_route(&client).await.1, "replica");
        assert_eq!(value(&client, "SELECT pg_try_advisory_xact_lock(4711)").await, "t");
        assert_eq!(last_route(&client).await.1, "primary");
        assert_eq!(value(&client, "SHOW transaction_read_only").await, "on");
        let isolation = if begin.contains("REPEATABLE") { "repeatable read" } else { "read committed" };
        assert_eq!(value(&client, "SHOW transaction_isolation").await, isolation);
        client.batch_execute("COMMIT").await.unwrap();
    }
    client.batch_execute("BEGIN READ ONLY").await.unwrap();
    client.batch_execute("SET TRANSACTION READ WRITE").await.unwrap();
    client.batch_execute("CREATE TEMP TABLE here (n int)").await.unwrap();
    client.batch_execute("ROLLBACK").await.unwrap();
    let client = proxy.connect().await;
    client.batch_execute("BEGIN READ ONLY").await.unwrap();
    assert_eq!(value(&client, "SELECT 1").await, "1");
    assert_eq!(sqlstate(&client, "SELECT pg_advisory_lock(4711)").await, "25006");
    assert_eq!(sqlstate(&client, "SELECT 1").await, "25P02");
    client.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(value(&client, "SELECT 1").await, "1");
    assert_eq!(value(&client, "SHOW tidegate.pins").await, "");
}

#[tokio::test]
async fn a_read_that_a_standby_refuses_runs_on_the_primary_and_is_remembered() {
    database("routing_heal").await;
    let proxy = Proxy::with(shared(), &PATIENT).await;
    let client = proxy.connect_to("routing_heal").await;
    // A label that lies: the catalog says stable, and what it calls writes.
    client
        .batch_execute(
            "CREATE TABLE t (id int);
             CREATE FUNCTION writes() RETURNS int LANGUAGE sql VOLATILE AS 'INSERT INTO t VALUES (1) RETURNING id';
             CREATE FUNCTION lies(x int) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN writes() + x; END'",
        )
        .await
        .unwrap();
    proxy.wait_catalog("routing_heal").await;
    assert_eq!(value(&client, "SELECT lies(10)").await, "11");
    assert_eq!(last_route(&client).await.2, "healed");
    assert_eq!(proxy.metric("tidegate_healed_total", &[]).await, 1.0);
    // The literal does not matter, nor does the protocol.
    let rows = client.query("SELECT lies(10)", &[]).await.unwrap();
    assert_eq!(rows[0].get::<_, i32>(0), 11);
    assert_eq!(value(&client, "SELECT lies(20)").await, "21");
    let why = last_route(&client).await.2;
    assert!(why == "learned" || why == "healed", "{why}");
    assert_eq!(value(&client, "SELECT count(*) FROM t").await, "3", "each ran once");
}

/// From the moment at which a definition has changed until the catalog has been read again, names mean nothing.
#[tokio::test]
async fn nobody_goes_by_what_names_meant_before_a_change() {
    database("routing_definitions").await;
    let variables = [("TIDEGATE_FRESHNESS_REPLICA_WAIT", "2s")];
    let proxy = Proxy::with(shared(), &variables).await;
    let client = proxy.connect_to("routing_definitions").await;
    client
        .batch_execute("CREATE FUNCTION f() RETURNS bool STABLE AS 'SELECT true' LANGUAGE sql")
        .await
        .unwrap();
    proxy.wait_catalog("routing_definitions").await;
    for n in 0..10 {
        client
            .batch_execute(&format!("CREATE SEQUENCE s{n}; ALTER SEQUENCE s{n} RENAME TO t{n}"))
            .await
            .unwrap();
        client.batch_execute(&format!("SELECT nextval('t{n}')")).await.unwrap();
        // A replica has the sequence as its WAL has it: 32 values ahead.
        assert_eq!(value(&client, &format!("SELECT last_value FROM t{n}")).await, "1");
    }
    client
        .batch_execute("CREATE OR REPLACE FUNCTION f() RETURNS bool VOLATILE AS 'SELECT pg_try_advisory_lock(7)' LANGUAGE sql")
        .await
        .unwrap();
    assert_eq!(value(&client, "SELECT f()").await, "t");
    assert_eq!(last_route(&client).await.1, "primary");
    proxy.wait_catalog("routing_definitions").await;
}

#[tokio::test]
async fn reads_go_on_without_replicas_and_come_back() {
    let cluster = Cluster::start(1).unwrap();
    let proxy = Proxy::start(&cluster).await;
    proxy.wait_catalog("postgres").await;
    let client = proxy.connect().await;
    let primary = cluster.primary().port.to_string();
    assert_ne!(value(&client, PORT).await, primary);
    cluster.kill(cluster.replica(0)).unwrap();
    assert_eq!(
        value(&client, PORT).await,
        primary,
        "the standby is dead: the primary answers, and no error is seen"
    );
    cluster.boot(cluster.replica(0)).unwrap();
    let began = std::time::Instant::now();
    while value(&client, PORT).await == primary {
        assert!(began.elapsed() < crate::support::proxy::PATIENCE, "the standby is back");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_standby_takes_the_writes() {
    let cluster = Cluster::start(1).unwrap();
    let proxy = Proxy::start(&cluster).await;
    let client = proxy.connect().await;
    client.batch_execute("CREATE TABLE t (id int); INSERT INTO t VALUES (1)").await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    cluster.stop(cluster.primary()).unwrap();
    cluster.promote(cluster.replica(0)).unwrap();
    // The write waits until the new primary is known.
    let began = std::time::Instant::now();
    while !sqlstate(&client, "INSERT INTO t VALUES (2)").await.is_empty() {
        assert!(began.elapsed() < crate::support::proxy::PATIENCE, "writes go on");
    }
    assert_eq!(value(&client, "SELECT count(*) FROM t").await, "2");
    assert_eq!(last_route(&client).await.1, "primary");
}

/// A write that stood in line for a primary runs on the next one, and not on what the first has become, even if that can
/// still be reached and takes writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_in_line_does_not_run_on_a_primary_that_was_replaced() {
    let cluster = Cluster::start(1).unwrap();
    let proxy = Proxy::with(&cluster, &[("TIDEGATE_POOL_SIZE", "1"), ("TIDEGATE_POOL_TIMEOUT", "60s")]).await;
    let (holder, writer) = (proxy.connect().await, proxy.connect().await);
    holder.batch_execute("CREATE TABLE t (id int)").await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    holder.batch_execute("BEGIN; LOCK TABLE pg_description IN SHARE MODE").await.unwrap();
    let write = tokio::spawn(async move { sqlstate(&writer, "INSERT INTO t VALUES (2)").await });
    let began = std::time::Instant::now();
    let wait = |what: &'static str| assert!(began.elapsed() < crate::support::proxy::PATIENCE, "{what}");
    while proxy.metric("tidegate_pool", &[("state", "waited_for")]).await != 1.0 {
        wait("the write stands in line");
    }
    cluster.promote(cluster.replica(0)).unwrap();
    let new = format!("127.0.0.1:{}", cluster.replica(0).port);
    while proxy.metric("tidegate_node_role", &[("node", &new), ("role", "primary")]).await != 1.0 {
        wait("the new primary is known");
    }
    holder.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(write.await.unwrap(), "");
    for (node, rows) in [(cluster.primary(), "0"), (cluster.replica(0), "1")] {
        assert_eq!(value(&node.connect().await.unwrap(), "SELECT count(*) FROM t").await, rows);
    }
}

/// The replicas' own entrance is a standby to whoever comes in by it, and the usual one a primary.
#[tokio::test]
async fn the_second_entrance_is_a_standby() {
    let port = free_ports(1).unwrap()[0];
    let address = format!("127.0.0.1:{port}");
    let proxy = Proxy::with(shared(), &[("TIDEGATE_LISTEN_REPLICA", &address)]).await;
    let client = connect(&format!("postgres://postgres@{address}/postgres")).await;
    for _ in 0..4 {
        assert_eq!(value(&client, "SELECT pg_is_in_recovery()").await, "t");
    }
    assert_eq!(sqlstate(&client, "CREATE TABLE nowhere (n int)").await, "25006");
    assert_eq!(sqlstate(&client, "SELECT nextval('pg_catalog.no_such')").await, "42P01");
    for statement in ["BEGIN", "SELECT pg_is_in_recovery()", "PREPARE p AS SELECT 1", "COMMIT", "EXECUTE p"] {
        client.batch_execute(statement).await.unwrap();
        assert_eq!(last_route(&client).await.1, "replica", "{statement}");
    }
    let psql = |port: u16, attributes: &str| {
        let target = format!(
            "host=127.0.0.1 port={port} user=postgres dbname=postgres target_session_attrs={attributes}"
        );
        let done = std::process::Command::new("psql").args(["-XAtc", "SELECT 1", &target]).output().unwrap();
        done.status.success()
    };
    for (attributes, usual) in
        [("read-write", true), ("primary", true), ("standby", false), ("read-only", false), ("any", true)]
    {
        assert_eq!(psql(proxy.port, attributes), usual, "{attributes}");
        assert_eq!(psql(port, attributes), !usual || attributes == "any", "{attributes}");
    }
}

/// How often a server has refused a login with these words.
fn refused_logins(server: &Server, words: &str) -> usize {
    let log = std::fs::read_to_string(server.data.with_extension("log")).unwrap();
    log.lines().filter(|l| l.contains("FATAL") && l.contains(words)).count()
}

/// A client whose next reads wait for nothing but its own writes.
async fn reader(url: &str) -> Client {
    let client = connect(url).await;
    client.batch_execute("SET tidegate.consistency = read_your_writes").await.unwrap();
    client
}

/// Begins a transaction on the server of that port.
async fn sit_on(client: &Client, port: u16) {
    let began = Instant::now();
    loop {
        client.batch_execute("BEGIN READ ONLY").await.unwrap();
        if value(client, PORT).await == port.to_string() {
            return;
        }
        client.batch_execute("COMMIT").await.unwrap();
        assert!(began.elapsed() < PATIENCE, "it is never that one's turn");
    }
}

#[tokio::test]
async fn a_replica_that_is_full_is_passed_by_unless_a_connection_is_at_hand() {
    shared().primary().execute("CREATE ROLE crowd LOGIN CONNECTION LIMIT 2").await.unwrap();
    shared().wait_caught_up().await.unwrap();
    let proxy = Proxy::with(shared(), &[PATIENT[0], ("TIDEGATE_WORKERS", "1")]).await;
    proxy.wait_catalog("postgres").await;
    let full = shared().replica(0);
    let url = |port| format!("postgres://crowd@127.0.0.1:{port}/postgres");
    let (sits, reads) = (reader(&url(proxy.port)).await, reader(&url(proxy.port)).await);
    sit_on(&sits, full.port).await;
    let other = connect(&url(full.port)).await;
    let began = Instant::now();
    for _ in 0..40 {
        assert_ne!(value(&reads, PORT).await, full.port.to_string());
    }
    let (refused, seconds) = (refused_logins(full, "role \"crowd\""), began.elapsed().as_secs());
    assert!((1..=2 + seconds as usize).contains(&refused), "{refused} times in {seconds} s");
    // What it has let in before is as good as ever.
    sits.batch_execute("COMMIT").await.unwrap();
    moves_on(&reads, 20).await;
    sit_on(&sits, full.port).await;
    drop(other);
    let began = Instant::now();
    while value(&reads, PORT).await != full.port.to_string() {
        assert!(began.elapsed() < PATIENCE, "it is never asked again");
    }
}

#[tokio::test]
async fn an_empty_query_is_a_read() {
    let proxy = Proxy::start(shared()).await;
    proxy.wait_catalog("postgres").await;
    let client = proxy.connect().await;
    for hint in ["auto", "replica", "primary"] {
        client.batch_execute(&format!("SET tidegate.route = {hint}")).await.unwrap();
        let role = if hint == "primary" { "primary" } else { "replica" };
        for ping in ["", "-- ping", ";"] {
            client.batch_execute(ping).await.unwrap();
            assert_eq!(last_route(&client).await.1, role, "{hint} {ping}");
            client.execute(ping, &[]).await.unwrap();
            assert_eq!(last_route(&client).await.1, role, "{hint} {ping}, extended");
        }
    }
}

#[tokio::test]
async fn the_only_replica_is_not_asked_in_vain_by_each_read_when_it_is_full() {
    let cluster = Cluster::start(1).unwrap();
    let full = cluster.replica(0);
    cluster.primary().execute("CREATE ROLE crowd LOGIN CONNECTION LIMIT 1").await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    let proxy = Proxy::with(&cluster, &[("TIDEGATE_WORKERS", "1")]).await;
    let url = |port| format!("postgres://crowd@127.0.0.1:{port}/postgres");
    let other = connect(&url(full.port)).await;
    let reads = reader(&url(proxy.port)).await;
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(value(&reads, "SELECT 1").await, "1");
        let (_, role, why) = last_route(&reads).await;
        assert_eq!((role.as_str(), why.as_str()), ("primary", "no_replica"));
    }
    let (refused, seconds) = (refused_logins(full, "role \"crowd\""), began.elapsed().as_secs());
    // Each time with TLS and without.
    assert!((1..=2 + 2 * seconds as usize).contains(&refused), "{refused} times in {seconds} s");
    // Who insists on it asks it, and is told what it says.
    let insists = reader(&url(proxy.port)).await;
    insists.batch_execute("SET tidegate.route = replica").await.unwrap();
    assert!(insists.batch_execute("SELECT 1").await.is_err());
    assert!(refused_logins(full, "role \"crowd\"") > refused);
    drop(other);
    let began = Instant::now();
    while last_route(&reads).await.1 != "replica" {
        assert!(began.elapsed() < PATIENCE, "it is never asked again");
        value(&reads, "SELECT 1").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_has_yet_to_hear_of_a_role_or_database_is_passed_by() {
    let cluster = Cluster::start(1).unwrap();
    let proxy = Proxy::start(&cluster).await;
    cluster.replica(0).pause_replay().await.unwrap();
    let primary = cluster.primary().connect().await.unwrap();
    primary.batch_execute("CREATE ROLE newcomer LOGIN").await.unwrap();
    primary.batch_execute("CREATE DATABASE new_here").await.unwrap();
    let url = |user: &str, database: &str| format!("postgres://{user}@127.0.0.1:{}/{database}", proxy.port);
    let sessions = [connect(&url("newcomer", "postgres")).await, connect(&url("postgres", "new_here")).await];
    for session in &sessions {
        // What they have read on the primary is not to keep them from the replica.
        session.batch_execute("SET tidegate.consistency = eventual").await.unwrap();
        for _ in 0..20 {
            assert_eq!(value(session, "SELECT 1").await, "1");
            let (_, role, why) = last_route(session).await;
            assert_eq!((role.as_str(), why.as_str()), ("primary", "no_replica"));
        }
    }
    // Who insists on it is told what it says, and may change their mind.
    let insists = connect(&url("newcomer", "postgres")).await;
    insists.batch_execute("SET tidegate.route = replica").await.unwrap();
    assert_eq!(sqlstate(&insists, "SELECT 1").await, "28000");
    insists.batch_execute("SET tidegate.route = auto").await.unwrap();
    assert_eq!(value(&insists, "SELECT 1").await, "1");
    // It is not asked for each of them.
    let refused = refused_logins(cluster.replica(0), "does not exist");
    assert!((2..20).contains(&refused), "{refused} times");
    cluster.replica(0).resume_replay().await.unwrap();
    for session in &sessions {
        let began = Instant::now();
        while last_route(session).await.1 != "replica" {
            assert!(began.elapsed() < PATIENCE, "the replica is never asked again");
            value(session, "SELECT 1").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_insists_on_a_replica_gets_the_one_that_lets_them_in() {
    let cluster = Cluster::start(2).unwrap();
    let proxy = Proxy::start(&cluster).await;
    let (behind, other) = (cluster.replica(0), cluster.replica(1));
    behind.pause_replay().await.unwrap();
    cluster.primary().execute("CREATE ROLE newcomer LOGIN").await.unwrap();
    let there = other.connect().await.unwrap();
    let began = Instant::now();
    while value(&there, "SELECT count(*) FROM pg_roles WHERE rolname = 'newcomer'").await != "1" {
        assert!(began.elapsed() < PATIENCE, "the other replica does not replay");
    }
    let session = connect(&format!("postgres://newcomer@127.0.0.1:{}/postgres", proxy.port)).await;
    session.batch_execute("SET tidegate.route = replica").await.unwrap();
    for _ in 0..20 {
        assert_eq!(value(&session, "SELECT 1").await, "1");
        assert_eq!(last_route(&session).await.0, format!("127.0.0.1:{}", other.port));
    }
    let refused = refused_logins(behind, "does not exist");
    assert!((1..10).contains(&refused), "{refused} times");
    behind.resume_replay().await.unwrap();
}
