//! Every statement that was tried on a real standby, through Tidegate.

use std::collections::HashSet;
use std::future::poll_fn;
use std::pin::pin;

use futures_core::Stream;
use tidegate::demo::cluster::Cluster;
use tokio_postgres::Client;

use crate::support::Proxy;
use crate::support::proxy::last_route;

const OBJECTS: &str = "
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t SELECT n, 'v' FROM generate_series(1, 100) n;
CREATE UNLOGGED TABLE t_unlogged (id int, v text);
CREATE MATERIALIZED VIEW t_matview AS SELECT * FROM t;
CREATE SEQUENCE t_seq;
CREATE PROCEDURE p_nothing() LANGUAGE sql AS 'SELECT 1';
CREATE PROCEDURE p_writes() LANGUAGE sql AS 'INSERT INTO t VALUES (201, ''p'')';
CREATE FUNCTION f_writes() RETURNS int LANGUAGE sql AS 'INSERT INTO t VALUES (202, ''f'') ON CONFLICT DO NOTHING RETURNING id';
CREATE VIEW v_writes AS SELECT f_writes();
CREATE FUNCTION f_nextval() RETURNS bigint LANGUAGE sql AS 'SELECT nextval(''t_seq'')';
CREATE VIEW v_nextval AS SELECT nextval('t_seq');
CREATE FUNCTION f_catches() RETURNS text LANGUAGE plpgsql AS $$
  BEGIN INSERT INTO t VALUES (203, 'c') ON CONFLICT DO NOTHING; RETURN 'ok'; EXCEPTION WHEN OTHERS THEN RETURN 'caught ' || SQLSTATE; END $$;
CREATE FUNCTION f_branches() RETURNS text LANGUAGE plpgsql AS $$
  BEGIN IF pg_is_in_recovery() THEN RETURN 'standby'; END IF; RETURN 'primary'; END $$;
CREATE FUNCTION f_notice() RETURNS int LANGUAGE plpgsql AS $$
  BEGIN RAISE NOTICE 'x'; INSERT INTO t VALUES (204, 'n') ON CONFLICT DO NOTHING; RETURN 1; END $$;
CREATE FUNCTION f_set_config() RETURNS text LANGUAGE sql AS 'SELECT set_config(''work_mem'', ''6MB'', false)';
CREATE FUNCTION st() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
";

/// Runs a statement; COPY with its own messages.
async fn run(client: &Client, sql: &str) -> Result<(), tokio_postgres::Error> {
    if sql.ends_with("FROM STDIN") {
        let sink = client.copy_in::<_, bytes::Bytes>(sql).await?;
        return pin!(sink).finish().await.map(|_| ());
    }
    if sql.contains("TO STDOUT") {
        let mut rows = pin!(client.copy_out(sql).await?);
        while let Some(row) = poll_fn(|cx| rows.as_mut().poll_next(cx)).await {
            row?;
        }
        return Ok(());
    }
    client.simple_query(sql).await.map(|_| ())
}

#[tokio::test]
async fn every_statement_goes_to_the_node_it_belongs_on() {
    let cluster = Cluster::start(2).unwrap();
    cluster.primary().execute(OBJECTS).await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    let proxy = Proxy::start(&cluster).await;
    proxy.wait_catalog("postgres").await;
    for line in include_str!("appendix_a.tsv").lines() {
        let [_, name, sql, expected] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        proxy.wait_catalog("postgres").await;
        let client = proxy.connect().await;
        let outcome = run(&client, sql).await;
        let code = outcome.as_ref().err().and_then(|e| e.as_db_error()).map(|e| e.code().code().to_owned());
        if outcome.is_err() && sql.contains("BEGIN") {
            // A failed block answers nothing more.
            let _ = client.simple_query("ROLLBACK").await;
        }
        let (_, role, why) = last_route(&client).await;
        let told = format!("{name}: {sql}: {code:?}, {role} ({why})");
        match expected {
            "replica" | "read_only" => {
                assert_eq!(role, "replica", "{told}");
                assert_eq!(code, None, "{told}");
            }
            "primary" | "session" => assert_eq!(role, "primary", "{told}"),
            other => panic!("{other}"),
        }
        assert_ne!(code.as_deref(), Some("25006"), "{told}");
    }
    assert_eq!(replicas_of_sessions(&proxy).await.len(), 2, "both standbys take part");
    // Nothing had to be healed: all of it was known beforehand.
    assert_eq!(proxy.metric("tidegate_healed_total", &[]).await, 0.0);
}

/// Where sessions that come one after the other read first. (Those above read two by two, so that one of the two may
/// always have met the same replica.)
async fn replicas_of_sessions(proxy: &Proxy) -> HashSet<String> {
    let (mut sessions, mut replicas) = (Vec::new(), HashSet::new());
    for _ in 0..4 {
        let client = proxy.connect().await;
        client.simple_query("SELECT 1").await.unwrap();
        replicas.insert(last_route(&client).await.0);
        // As many on each worker.
        sessions.push(client);
    }
    replicas
}
