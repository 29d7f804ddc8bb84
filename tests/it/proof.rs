//! What servers tell of themselves: a primary behind a write, and a replica in front of a read.

use std::time::Duration;

use tidegate::demo::cluster::{Cluster, Server};
use tokio::time::{sleep, timeout};
use tokio_postgres::Statement;

use crate::support::peer::{Peer, Script};
use crate::support::proxy::{PATIENCE, connect, last_route, rows, value};
use crate::support::wire::Wire;
use crate::support::{Proxy, database, shared};

/// A replica says so to whom it shows a read behind a write.
const REPLAYED: [(&str, &str); 1] = [("outcome", "replayed")];
const NOT_YET: [(&str, &str); 1] = [("outcome", "not_yet")];

fn s() -> Script {
    Script::default()
}

/// In front of the primary and one standby, which nobody polls by himself, and where a read waits as long for that standby.
async fn seldom_polling(cluster: &Cluster, wait: &str) -> Proxy {
    let variables = [
        ("TIDEGATE_FRESHNESS_POLL_INTERVAL", "1h"),
        ("TIDEGATE_FRESHNESS_POLL_INTERVAL_BUSY", "1h"),
        ("TIDEGATE_FRESHNESS_REPLICA_WAIT", wait),
    ];
    let urls: Vec<_> = cluster.servers()[..2].iter().map(Server::url).collect();
    Proxy::before(&urls, &variables).await
}

/// A primary with what that SQL has made there, and a standby that has it, too; and a proxy in front of them that knows of it.
async fn before(sql: &str, variables: &[(&str, &str)]) -> (Cluster, Proxy) {
    let cluster = Cluster::start(1).unwrap();
    cluster.primary().execute(sql).await.unwrap();
    replayed(&cluster).await;
    let proxy = Proxy::with(&cluster, variables).await;
    proxy.wait_catalog("postgres").await;
    (cluster, proxy)
}

/// Waits until the standby has what the primary has written.
async fn replayed(cluster: &Cluster) {
    cluster.wait_caught_up().await.unwrap();
}

async fn active(server: &Server, like: &str) -> String {
    let client = server.connect().await.unwrap();
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '{like}' AND pid <> pg_backend_pid()"
    );
    value(&client, &sql).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_behind_a_write_waits_for_no_poll() {
    let cluster = Cluster::start(1).unwrap();
    cluster.primary().execute("CREATE TABLE t (n int)").await.unwrap();
    replayed(&cluster).await;
    let proxy = seldom_polling(&cluster, "1h").await;
    proxy.wait_catalog("postgres").await;
    let session = proxy.connect().await;
    let prepared = session.prepare("SELECT count(*)::text FROM t").await.unwrap();
    for n in 1..=3 {
        match n {
            1 => session.batch_execute("INSERT INTO t VALUES (1)").await.unwrap(),
            2 => {
                session.batch_execute("BEGIN; INSERT INTO t VALUES (2)").await.unwrap();
                session.batch_execute("COMMIT").await.unwrap();
            }
            _ => drop(session.execute("INSERT INTO t VALUES (3)", &[]).await.unwrap()),
        }
        replayed(&cluster).await;
        let seen: String = session.query_one(&prepared, &[]).await.unwrap().get(0);
        assert_eq!(seen, n.to_string());
        let route = last_route(&session).await;
        assert_eq!((&*route.1, &*route.2), ("replica", "read"));
    }
    assert_eq!(proxy.metric("tidegate_proofs_total", &REPLAYED).await, 3.0);
    assert_eq!(proxy.metric("tidegate_proofs_total", &NOT_YET).await, 0.0);
    assert_eq!(proxy.metric("tidegate_freshness_waits_total", &[]).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_sees_the_answer_of_a_replica_that_is_not_there_yet() {
    let sql = "CREATE TABLE t AS SELECT 0 AS n, repeat('x', 1000) AS text FROM generate_series(1, 1000)";
    let (cluster, proxy) = before(sql, &[("TIDEGATE_FRESHNESS_REPLICA_WAIT", "200ms")]).await;
    let session = proxy.connect().await;
    let prepared = session.prepare("SELECT n::text, text FROM t").await.unwrap();
    for n in 1..=6 {
        cluster.replica(0).pause_replay().await.unwrap();
        session.batch_execute(&format!("UPDATE t SET n = {n}")).await.unwrap();
        // More than fits into what a socket holds; of a statement that the replica has to be told first, too.
        let seen: Vec<String> = match n % 3 {
            0 => rows(&session, "SELECT n::text, text FROM t").await,
            1 => session.query(&prepared, &[]).await.unwrap().iter().map(|row| row.get(0)).collect(),
            _ => {
                let statement = session.prepare(&format!("SELECT n::text, {n} FROM t")).await.unwrap();
                session.query(&statement, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
            }
        };
        assert_eq!(seen.len(), 1000);
        assert!(seen.iter().all(|seen| seen.starts_with(&n.to_string())), "{n}: {}", seen[0]);
        assert_eq!(last_route(&session).await.2, "not_fresh");
        cluster.replica(0).resume_replay().await.unwrap();
        replayed(&cluster).await;
        // And then it goes on there, by the same names.
        while last_route(&session).await.1 != "replica" {
            let seen: String = session.query(&prepared, &[]).await.unwrap()[0].get(0);
            assert_eq!(seen, n.to_string());
        }
    }
    assert!(proxy.metric("tidegate_proofs_total", &NOT_YET).await >= 1.0);
    // What ran in vain is over, and its connections can be used.
    while proxy.metric("tidegate_pool", &[("state", "in_use")]).await > 0.0 {
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_waits_for_is_cancelled() {
    let (cluster, proxy) = before("CREATE TABLE t (n int); INSERT INTO t VALUES (0)", &[]).await;
    let session = proxy.connect().await;
    cluster.replica(0).pause_replay().await.unwrap();
    session.batch_execute("UPDATE t SET n = 1").await.unwrap();
    // On the replica it would go on until the test is over.
    let long = "SELECT n FROM t WHERE n = 1 OR (SELECT count(*) FROM generate_series(1, 2000000000)) = 0";
    assert_eq!(value(&session, long).await, "1");
    assert_eq!(last_route(&session).await.1, "primary");
    assert_eq!(proxy.metric("tidegate_proofs_total", &NOT_YET).await, 1.0);
    while active(cluster.replica(0), "%2000000000%").await != "0" {
        sleep(Duration::from_millis(5)).await;
    }
    cluster.replica(0).resume_replay().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_was_answered_stays_answered_though_its_server_dies_before_it_tells() {
    let cluster = Cluster::start(1).unwrap();
    cluster.primary().execute("CREATE TABLE t (n int)").await.unwrap();
    replayed(&cluster).await;
    // The answer to our question, which has eight bytes in it.
    let wire = Wire::that_ends(cluster.primary().port, b"V\0\0\0\x10\0\0\0\x08").await;
    let urls = [format!("postgres://postgres@127.0.0.1:{}/postgres", wire.port), cluster.replica(0).url()];
    let proxy = Proxy::before(&urls, &[]).await;
    proxy.wait_catalog("postgres").await;
    let session = proxy.connect().await;
    for n in 1..=5 {
        session.batch_execute(&format!("INSERT INTO t VALUES ({n})")).await.unwrap();
        assert_eq!(value(&session, "SELECT count(*) FROM t").await, n.to_string());
    }
    // Who is bound to that server loses it, and hears so with what he does next; nobody else notices.
    let bound = proxy.connect().await;
    bound.batch_execute("LISTEN c").await.unwrap();
    let after = timeout(PATIENCE, bound.batch_execute("INSERT INTO t VALUES (6)")).await;
    after.expect("an answer").unwrap_err();
    assert_eq!(value(&session, "SELECT count(*) FROM t").await, "5");
}

/// What a replica that is behind says of a statement's columns is what they were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_behind_tells_nobody_what_columns_there_are() {
    let (cluster, proxy) =
        before("CREATE TABLE t (a int); INSERT INTO t VALUES (1)", &[("TIDEGATE_WORKERS", "1")]).await;
    let session = proxy.connect().await;
    let columns = async |statement: &Statement| {
        let rows = session.query(statement, &[]).await;
        rows.map(|rows| rows[0].len()).map_err(|error| error.code().map(|code| code.code().to_owned()))
    };
    for n in 1..=4 {
        let old = session.prepare("SELECT * FROM t").await.unwrap();
        assert_eq!(columns(&old).await, Ok(n));
        cluster.replica(0).pause_replay().await.unwrap();
        session.batch_execute(&format!("ALTER TABLE t ADD COLUMN c{n} int")).await.unwrap();
        proxy.wait_catalog("postgres").await;
        assert_eq!(columns(&old).await, Err(Some("0A000".to_owned())), "{n}");
        session.batch_execute("UPDATE t SET a = a + 1").await.unwrap();
        let new = session.prepare("SELECT * FROM t").await.unwrap();
        assert_eq!(columns(&new).await, Ok(n + 1));
        cluster.replica(0).resume_replay().await.unwrap();
        replayed(&cluster).await;
        while last_route(&session).await.1 != "replica" {
            assert_eq!(columns(&new).await, Ok(n + 1));
        }
        assert_eq!(columns(&new).await, Ok(n + 1));
    }
}

/// A position is asked for behind the end of a transaction, and nowhere within it: there, it would take a snapshot that the
/// client has not asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_is_only_prepared_ends_nothing() {
    let proxy = Proxy::start(shared()).await;
    proxy.wait_catalog("postgres").await;
    let session = proxy.connect().await;
    session.batch_execute("BEGIN").await.unwrap();
    let commit = session.prepare("COMMIT").await.unwrap();
    session.batch_execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    session.execute(&commit, &[]).await.unwrap();
    session.batch_execute("BEGIN; COMMIT AND CHAIN").await.unwrap();
    session.batch_execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; COMMIT").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_ask_is_served_all_the_same() {
    database("asks").await;
    let sql = "CREATE ROLE mute LOGIN; CREATE TABLE t (n int); GRANT ALL ON t TO mute;
        REVOKE EXECUTE ON FUNCTION pg_current_wal_insert_lsn(), pg_last_wal_replay_lsn() FROM PUBLIC";
    let direct = format!("postgres://postgres@127.0.0.1:{}/asks", shared().primary().port);
    connect(&direct).await.batch_execute(sql).await.unwrap();
    shared().wait_caught_up().await.unwrap();
    let proxy = Proxy::start(shared()).await;
    proxy.wait_catalog("asks").await;
    let url = format!("postgres://mute@127.0.0.1:{}/asks", proxy.port);
    let session = connect(&url).await;
    for n in 1..=5 {
        session.batch_execute(&format!("INSERT INTO t VALUES ({n})")).await.unwrap();
        assert_eq!(value(&session, "SELECT count(*) FROM t").await, n.to_string());
    }
    connect(&direct).await.batch_execute("DROP TABLE t; DROP ROLE mute").await.unwrap();
}

/// What ran in vain leaves the unnamed statement as it was, whatever the unit would have made of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_that_ran_in_vain_has_not_touched_the_unnamed_statement() {
    let (cluster, proxy) = before("CREATE TABLE t (n int); INSERT INTO t VALUES (0)", &[]).await;
    let closed = s().bind("").execute().message(b'C', b"S\0").sync();
    let replaced = s().bind("").execute().parse("", "SELECT n + 10 FROM t").bind("").execute().sync();
    for (n, unit, tags) in [(1, &closed, "2DC3ZI"), (2, &replaced, "2DC12DCZI")] {
        let (port, text) = (proxy.port, format!("UPDATE t SET n = {n}"));
        cluster.replica(0).pause_replay().await.unwrap();
        tokio::task::block_in_place(|| {
            let mut peer = Peer::log_in(port);
            peer.send(&s().parse("", "SELECT n FROM t").sync().0);
            assert_eq!(peer.tags(), "1ZI");
            peer.send(&s().query(&text).0);
            assert_eq!(peer.tags(), "CZI");
            // The Query has ended its life.
            peer.send(&s().parse("", "SELECT n FROM t").sync().0);
            assert_eq!(peer.tags(), "1ZI");
            peer.send(&unit.0);
            let all = peer.until(b'Z');
            let seen: String = all.iter().map(|m| char::from(m.0)).collect();
            assert_eq!(format!("{seen}I"), tags);
            let first = all.iter().find(|m| m.0 == b'D').unwrap();
            assert_eq!(first.1.last(), Some(&(b'0' + n)));
        });
        cluster.replica(0).resume_replay().await.unwrap();
        replayed(&cluster).await;
    }
    assert!(proxy.metric("tidegate_proofs_total", &NOT_YET).await >= 1.0);
}

/// A replica that is behind need not know of a role that the session has just made and become.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_a_replica_cannot_take_yet_make_nothing_fail() {
    let (cluster, proxy) = before("CREATE TABLE t (n int); INSERT INTO t VALUES (0)", &[]).await;
    let session = proxy.connect().await;
    for n in 1..=3 {
        cluster.replica(0).pause_replay().await.unwrap();
        session.batch_execute(&format!("CREATE ROLE r{n}; GRANT SELECT ON t TO r{n}")).await.unwrap();
        session.batch_execute(&format!("SET ROLE r{n}")).await.unwrap();
        assert_eq!(value(&session, "SELECT n FROM t").await, "0");
        session.batch_execute("RESET ROLE").await.unwrap();
        session.batch_execute(&format!("UPDATE t SET n = 0; SET ROLE r{n}")).await.unwrap();
        session.batch_execute("SELECT n FROM t").await.unwrap();
        session.batch_execute("RESET ROLE").await.unwrap();
        session.batch_execute("UPDATE t SET n = 0").await.unwrap();
        session.batch_execute(&format!("SET ROLE r{n}")).await.unwrap();
        assert_eq!(value(&session, "SELECT n FROM t").await, "0");
        session.batch_execute("RESET ROLE").await.unwrap();
        cluster.replica(0).resume_replay().await.unwrap();
        replayed(&cluster).await;
    }
}
