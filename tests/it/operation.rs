//! What operators do with it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tidegate::demo::cluster::Cluster;
use tidegate::demo::scrape::get;

use crate::support::peer::{Peer, Script};
use crate::support::proxy::{PATIENCE, connect, rows, sqlstate, value};
use crate::support::wire::Wire;
use crate::support::{Proxy, shared};

fn tidegate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn metrics_tell_what_happened() {
    let proxy = Proxy::start(shared()).await;
    let client = proxy.connect().await;
    client.batch_execute("SELECT 1").await.unwrap();
    client.batch_execute("CREATE TEMP TABLE x (id int)").await.unwrap();
    assert_eq!(
        proxy
            .metric("tidegate_units_total", &[("access", "read"), ("role", "replica"), ("why", "read")])
            .await,
        1.0
    );
    // It counts when the primary has told its position, which is behind the answer.
    let began = std::time::Instant::now();
    let writes = [("access", "write"), ("role", "primary"), ("why", "write")];
    while proxy.metric("tidegate_units_total", &writes).await != 1.0 {
        assert!(began.elapsed() < PATIENCE, "the write does not count");
    }
    assert_eq!(proxy.metric("tidegate_node_up", &[]).await, 3.0);
    assert_eq!(proxy.metric("tidegate_node_role", &[("role", "primary")]).await, 1.0);
    assert_eq!(proxy.metric("tidegate_clients", &[]).await, 1.0);
    assert!(proxy.metric("tidegate_added_latency_seconds_count", &[]).await >= 2.0);
    assert!(proxy.metric("tidegate_polls_total", &[]).await > 3.0);
    // The gauges of the pools are brought up to date every second.
    let began = std::time::Instant::now();
    while proxy.metric("tidegate_pool", &[("state", "idle")]).await < 1.0 {
        assert!(began.elapsed() < PATIENCE, "the replica's connection is not seen");
    }
    assert_eq!(proxy.metric("tidegate_pool", &[("state", "in_use")]).await, 1.0, "the temporary table's");
    assert_eq!(proxy.metric("tidegate_pool", &[("state", "limit")]).await, 150.0);
    let lag = rows(&client, "SHOW tidegate.lag").await;
    let primary = format!("127.0.0.1:{}|primary|t|", shared().primary().port);
    assert_eq!(lag.len(), 3, "{lag:?}");
    assert!(lag[0].starts_with(&primary), "{lag:?}");
    assert!(lag[1..].iter().all(|row| row.contains("|replica|t|0/")), "{lag:?}");
    for (path, expected) in
        [("/health", 200), ("/ready", 200), ("/api/status", 200), ("/", 200), ("/nothing", 404)]
    {
        assert_eq!(get(proxy.http, path).await.unwrap().0, expected, "{path}");
    }
    let status: serde_json::Value =
        serde_json::from_str(&get(proxy.http, "/api/status").await.unwrap().1).unwrap();
    assert_eq!(status["nodes"].as_array().unwrap().len(), 3);
    assert_eq!(status["primary"], format!("127.0.0.1:{}", shared().primary().port));
}

#[tokio::test]
async fn sigterm_lets_transactions_finish() {
    let mut proxy = Proxy::start(shared()).await;
    let (idle, busy) = (proxy.connect().await, proxy.connect().await);
    busy.batch_execute("BEGIN").await.unwrap();
    proxy.signal("-TERM");
    // The idle client is sent away, the other one is not.
    let began = Instant::now();
    while !idle.is_closed() {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Nobody comes in any more: a successor may have the address.
    drop(std::net::TcpListener::bind(("127.0.0.1", proxy.port)).unwrap());
    assert_eq!(value(&busy, "SELECT 7").await, "7");
    assert!(proxy.child.try_wait().unwrap().is_none());
    busy.batch_execute("COMMIT").await.unwrap();
    let status = tokio::task::spawn_blocking(move || proxy.child.wait().unwrap()).await.unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn sighup_reads_the_file_anew_and_keeps_the_old_one_if_the_new_is_bad() {
    let file = std::env::temp_dir().join(format!("tidegate-{}.toml", std::process::id()));
    fs::write(&file, "[freshness]\nconsistency = 'eventual'").unwrap();
    let proxy = Proxy::with(shared(), &[("TIDEGATE_CONFIG", file.to_str().unwrap())]).await;
    let level = async || value(&proxy.connect().await, "SHOW tidegate.consistency").await;
    assert_eq!(level().await, "eventual");
    fs::write(&file, "[freshness]\nconsistency = 'wrong'").unwrap();
    proxy.signal("-HUP");
    assert_eq!(level().await, "eventual");
    fs::write(&file, "[freshness]\nconsistency = 'read_your_writes'").unwrap();
    proxy.signal("-HUP");
    let began = Instant::now();
    while level().await != "read_your_writes" {
        assert!(began.elapsed() < PATIENCE);
    }
    fs::remove_file(&file).unwrap();
}

#[tokio::test]
async fn scram_lets_in_who_knows_the_password() {
    shared().primary().execute("CREATE ROLE operation_user LOGIN PASSWORD 'pass word'").await.unwrap();
    shared().wait_caught_up().await.unwrap();
    let verifier = {
        let client = shared().primary().connect().await.unwrap();
        value(&client, "SELECT rolpassword FROM pg_authid WHERE rolname = 'operation_user'").await
    };
    let file = std::env::temp_dir().join(format!("tidegate-scram-{}.toml", std::process::id()));
    let users = format!(
        "[[auth.users]]\nname = 'operation_user'\nverifier = '{verifier}'\n[[auth.users]]\nname = 'postgres'\npassword = 'other'\n"
    );
    fs::write(&file, users).unwrap();
    let proxy =
        Proxy::with(shared(), &[("TIDEGATE_CONFIG", file.to_str().unwrap()), ("TIDEGATE_AUTH", "scram")])
            .await;
    let open = async |user: &str, password: &str| {
        let url = format!("postgres://{user}:{password}@127.0.0.1:{}/postgres", proxy.port);
        tokio_postgres::connect(&url, tokio_postgres::NoTls).await
    };
    let (client, connection) = open("operation_user", "pass%20word").await.unwrap();
    tokio::spawn(connection);
    assert_eq!(value(&client, "SELECT current_user").await, "operation_user");
    assert!(open("postgres", "other").await.is_ok());
    for (user, password) in [("operation_user", "wrong"), ("postgres", "pass%20word"), ("nobody", "x")] {
        let error = open(user, password).await.err().unwrap();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "28P01");
        assert_eq!(error.message(), format!("password authentication failed for user \"{user}\""));
    }
    fs::remove_file(&file).unwrap();
}

#[test]
fn exit_codes_and_messages_say_what_is_wrong() {
    let nothing = tidegate(&[]);
    assert_eq!(nothing.status.code(), Some(2));
    assert!(
        text(&nothing.stderr).contains("auth.users is missing")
            || text(&nothing.stderr).contains("nodes is missing")
    );
    let bad = tidegate(&["--auth", "trust", "--node", "postgres://u:hunter2@h:0"]);
    assert_eq!(bad.status.code(), Some(2));
    assert!(
        text(&bad.stderr).contains("nodes = ") && !text(&bad.stderr).contains("hunter2"),
        "{}",
        text(&bad.stderr)
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let busy = tidegate(&[
        "--auth",
        "trust",
        "--node",
        "postgres://127.0.0.1:1",
        "--listen",
        &address,
        "--http",
        "127.0.0.1:0",
    ]);
    assert_eq!(busy.status.code(), Some(3), "{}", text(&busy.stderr));
    let unreachable = tidegate(&["check", "--auth", "trust", "--node", "postgres://127.0.0.1:1"]);
    assert_eq!(unreachable.status.code(), Some(1));
    assert!(text(&unreachable.stdout).contains("127.0.0.1:1: not usable"), "{}", text(&unreachable.stdout));
    let url = |n: usize| shared().servers()[n].url();
    let fine =
        tidegate(&["check", "--auth", "trust", "--node", &url(0), "--node", &url(1), "--node", &url(2)]);
    assert_eq!(fine.status.code(), Some(0), "{}", text(&fine.stdout));
    assert_eq!(text(&fine.stdout).matches("replica at").count(), 2);
}

#[test]
fn explain_tells_the_route_with_and_without_a_server() {
    let alone = tidegate(&["explain", "select my_own(1)"]);
    assert!(
        text(&alone.stdout).starts_with("route: primary\nwhy:   unknown_function"),
        "{}",
        text(&alone.stdout)
    );
    let live = tidegate(&["explain", "--json", "--node", &shared().primary().url(), "select now()"]);
    assert!(text(&live.stdout).contains(r#""route":"replica""#), "{}", text(&live.stdout));
    assert_eq!(live.status.code(), Some(0));
}

/// A server that ends within a transaction: with a word of its own or without, in the midst of a statement or between
/// two. The client hears of it, and its session goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_lost_inside_a_transaction_is_told_and_the_session_goes_on() {
    let cluster = Cluster::start(1).unwrap();
    let wire = Wire::to(cluster.primary().port).await;
    let urls = [
        cluster.primary().url().replace(&cluster.primary().port.to_string(), &wire.port.to_string()),
        cluster.replica(0).url(),
    ];
    let proxy = Proxy::before(&urls, &[]).await;
    proxy.connect().await.batch_execute("CREATE TABLE t (n int)").await.unwrap();

    // In the midst of a statement, by an administrator: the server's own SQLSTATE.
    let client = proxy.connect().await;
    client.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
    let pid = value(&client, "SELECT pg_backend_pid()").await;
    let victim = tokio::spawn(async move {
        let code = sqlstate(&client, "SELECT pg_sleep(60)").await;
        (client, code)
    });
    let killer = cluster.primary().connect().await.unwrap();
    let state = format!("SELECT state FROM pg_stat_activity WHERE pid = {pid} AND query LIKE '%sleep%'");
    while value(&killer, &state).await != "active" {}
    killer.batch_execute(&format!("SELECT pg_terminate_backend({pid})")).await.unwrap();
    let (client, code) = victim.await.unwrap();
    assert_eq!(code, "57P01");
    assert_eq!(sqlstate(&client, "SELECT 1").await, "25P02");
    assert_eq!(sqlstate(&client, "").await, "");
    client.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(value(&client, "SELECT count(*) FROM t").await, "0");

    // Without a word: the network breaks, once in the midst of a statement and once between two.
    for between in [false, true] {
        client.batch_execute("BEGIN").await.unwrap();
        // Kept until the end of the round: a statement that is dropped sends a Close, whose answer the driver ignores,
        // and if that came after the cut the loss would be told to nobody.
        let insert = client.prepare("INSERT INTO t VALUES ($1)").await.unwrap();
        client.execute(&insert, &[&2]).await.unwrap();
        let code = if between {
            wire.cut();
            sqlstate(&client, "SELECT 1").await
        } else {
            let statement = async { sqlstate(&client, "SELECT pg_sleep(60)").await };
            let cut = async {
                while value(&killer, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%sleep(60)%' AND state = 'active' AND pid <> pg_backend_pid()").await == "0" {}
                wire.cut();
            };
            tokio::join!(statement, cut).0
        };
        assert_eq!(code, "08006", "between: {between}");
        let error = client.query("SELECT $1::int", &[&1]).await.unwrap_err();
        assert_eq!(error.code().map(|c| c.code()), Some("25P02"), "{error:?}");
        // As extended queries, too.
        let statement = client.prepare("ROLLBACK").await.unwrap();
        client.execute(&statement, &[]).await.unwrap();
        let began = Instant::now();
        while !sqlstate(&client, "INSERT INTO t VALUES (3)").await.is_empty() {
            assert!(began.elapsed() < PATIENCE, "the primary is back");
        }
        assert_eq!(value(&client, "DELETE FROM t WHERE n = 3 RETURNING n").await, "3");
        assert_eq!(value(&client, "SELECT count(*) FROM t").await, "0", "nothing of the lost transaction");
    }
}

/// A database that was used through the proxy, as that of a test run, can be dropped, copied and renamed through it.
#[tokio::test]
async fn databases_are_dropped_copied_and_renamed() {
    // A client that stays with its worker has its server connection again.
    let proxy = Proxy::with(shared(), &[("TIDEGATE_CLIENT_PLACEMENT", "even")]).await;
    let admin = proxy.connect().await;
    // Whoever has no right to it throws nobody out.
    admin.batch_execute("CREATE ROLE operation_nobody LOGIN").await.unwrap();
    let nobody = connect(&proxy.url("postgres").replace("postgres@", "operation_nobody@")).await;
    let own = value(&admin, "/* tidegate: route=primary */ SELECT pg_backend_pid()").await;
    for _ in 0..3 {
        assert_eq!(sqlstate(&nobody, "DROP DATABASE postgres").await, "42501");
        assert_eq!(value(&admin, "/* tidegate: route=primary */ SELECT pg_backend_pid()").await, own);
    }
    for round in 0..2 {
        admin.batch_execute("CREATE DATABASE passing").await.unwrap();
        let client = proxy.connect_to("passing").await;
        client.batch_execute("CREATE TABLE t (x int)").await.unwrap();
        assert_eq!(value(&client, "SELECT count(*) FROM t").await, "0");
        drop(client);
        admin.batch_execute("CREATE DATABASE copied TEMPLATE passing").await.unwrap();
        admin.batch_execute("ALTER DATABASE passing RENAME TO renamed").await.unwrap();
        for name in ["copied", "renamed"] {
            admin
                .batch_execute(&format!("DROP DATABASE {name}"))
                .await
                .unwrap_or_else(|e| panic!("{round}: {e:?}"));
        }
    }
}

/// A base backup and its WAL come through, by the primary's own replication protocol.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replication_connections_reach_the_primary() {
    let proxy = Proxy::start(shared()).await;
    let bin = tidegate::demo::binaries::find().unwrap();
    let dir = std::env::temp_dir().join(format!("tidegate-backup-{}", std::process::id()));
    let backup = |extra: &[&str]| {
        let mut command = Command::new(bin.join("pg_basebackup"));
        command.args(["-h", "127.0.0.1", "-p", &proxy.port.to_string(), "-U", "postgres", "-c", "fast"]);
        command.args(["-X", "stream", "--no-sync", "-D"]).arg(&dir).args(extra).spawn().unwrap()
    };
    let done = tokio::task::spawn_blocking({
        let mut child = backup(&[]);
        move || child.wait().unwrap()
    });
    assert!(done.await.unwrap().success());
    let verified = Command::new(bin.join("pg_verifybackup")).arg(&dir).output().unwrap();
    assert!(verified.status.success(), "{}", text(&verified.stderr));
    fs::remove_dir_all(&dir).unwrap();

    // A logical consumer.
    let client = proxy.connect().await;
    let mut logical = Command::new(bin.join("pg_recvlogical"));
    logical.args(["-h", "127.0.0.1", "-p", &proxy.port.to_string(), "-U", "postgres", "-d", "postgres"]);
    logical.args(["--slot", "through_tidegate", "--create-slot", "--start", "-P", "test_decoding"]);
    let mut consumer = logical.args(["--no-loop", "-f", "-"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(consumer.stdout.take().unwrap()).lines();
    let began = Instant::now();
    let ready = "SELECT count(*) FROM pg_replication_slots WHERE confirmed_flush_lsn IS NOT NULL";
    while value(&client, ready).await == "0" {
        assert!(began.elapsed() < PATIENCE, "no slot is made");
    }
    client.batch_execute("CREATE TABLE decoded AS SELECT 42 AS x; DROP TABLE decoded").await.unwrap();
    let decoded = tokio::task::spawn_blocking(move || lines.any(|l| l.unwrap().contains("x[integer]:42")));
    assert!(tokio::time::timeout(PATIENCE, decoded).await.unwrap().unwrap());
    consumer.kill().unwrap();
    consumer.wait().unwrap();
    while sqlstate(&client, "SELECT pg_drop_replication_slot('through_tidegate')").await == "55006" {
        assert!(began.elapsed() < PATIENCE, "the slot is still in use");
    }

    // One that stays is counted, and leaves when the proxy is told to.
    let wal = std::env::temp_dir().join(format!("tidegate-wal-{}", std::process::id()));
    fs::create_dir_all(&wal).unwrap();
    let mut receiver = Command::new(bin.join("pg_receivewal"))
        .args(["-h", "127.0.0.1", "-p", &proxy.port.to_string(), "-U", "postgres", "--no-loop", "-D"])
        .arg(&wal)
        .spawn()
        .unwrap();
    let began = Instant::now();
    while proxy.metric("tidegate_pinned_sessions", &[("why", "replication")]).await < 1.0 {
        assert!(began.elapsed() < PATIENCE, "it is not seen");
    }
    while fs::read_dir(&wal).unwrap().next().is_none() {
        assert!(began.elapsed() < PATIENCE, "no WAL comes");
    }
    proxy.signal("-TERM");
    tokio::task::spawn_blocking(move || receiver.wait().unwrap()).await.unwrap();
    fs::remove_dir_all(&wal).unwrap();
}

#[tokio::test]
async fn memory_goes_back_when_a_crowd_has_left() {
    if cfg!(not(all(feature = "jemalloc", target_os = "linux", target_env = "gnu", target_arch = "x86_64"))) {
        // Other allocators may keep it.
        return;
    }
    // Free memory goes back sooner than it usually does.
    let sooner = [("_RJEM_MALLOC_CONF", "dirty_decay_ms:100")];
    let proxy = Proxy::with(shared(), &sooner).await;
    let come = || {
        let mut peer = Peer::log_in(proxy.port);
        peer.send(&Script::default().query("SELECT 1").0);
        peer.until(b'Z');
        peer
    };
    drop((0..10).map(|_| come()).collect::<Vec<_>>());
    let before = proxy.resident();
    let mut crowd: Vec<_> = (0..500).map(|_| come()).collect();
    for peer in &mut crowd {
        // The beginning of a statement takes a buffer.
        peer.send(&[b"Q\0\0\x40\0SELECT '".as_slice(), &[b'x'; 15_000]].concat());
    }
    let grown = || proxy.resident().saturating_sub(before);
    let began = Instant::now();
    while grown() < 6 * 1024 * 1024 {
        assert!(began.elapsed() < PATIENCE, "{} bytes are not what they take", grown());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(crowd);
    while grown() > 3 * 1024 * 1024 {
        assert!(began.elapsed() < PATIENCE, "{} bytes were kept", grown());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
