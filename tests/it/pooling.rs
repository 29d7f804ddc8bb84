//! Many clients share few server connections, and notice nothing of each other.

use crate::support::peer::{Peer, Script};
use crate::support::proxy::{last_route, sqlstate, value};
use crate::support::scram::startup;
use crate::support::{Proxy, database, shared};

/// One worker with one connection per node: whatever a client leaves behind, the next one would see.
const ONE: [(&str, &str); 3] =
    [("TIDEGATE_POOL_SIZE", "1"), ("TIDEGATE_WORKERS", "1"), ("TIDEGATE_POOL_TIMEOUT", "500ms")];

const PRIMARY: &str = "SET tidegate.route = primary";

#[tokio::test]
async fn no_more_connections_are_made_than_the_limit_allows() {
    database("pooling_limit").await;
    let variables =
        [("TIDEGATE_POOL_SIZE", "3"), ("TIDEGATE_WORKERS", "2"), ("TIDEGATE_POOL_TIMEOUT", "20s")];
    let proxy = Proxy::with(shared(), &variables).await;
    let mut tasks = Vec::new();
    for _ in 0..20 {
        let client = proxy.connect_to("pooling_limit").await;
        tasks.push(tokio::spawn(async move {
            for _ in 0..5 {
                client.batch_execute("BEGIN; SELECT pg_sleep(0.01); COMMIT").await.unwrap();
            }
        }));
    }
    let watcher = shared().primary().connect().await.unwrap();
    let count = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'pooling_limit' \
                 AND application_name <> 'tidegate monitor' AND state <> 'idle'";
    let mut most = 0;
    while tasks.iter().any(|t| !t.is_finished()) {
        most = most.max(value(&watcher, count).await.parse::<u32>().unwrap());
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert!((1..=3).contains(&most), "{most}");
}

#[tokio::test]
async fn who_waits_too_long_is_told_which_limit_it_was() {
    let proxy = Proxy::with(shared(), &ONE).await;
    let (holder, other) = (proxy.connect().await, proxy.connect().await);
    holder.batch_execute("BEGIN").await.unwrap();
    let error = other.batch_execute("BEGIN").await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "53300");
    assert!(error.detail().unwrap().contains("pool.size"), "{error:?}");
    holder.batch_execute("COMMIT").await.unwrap();
    // The session that was refused goes on.
    other.batch_execute("BEGIN; COMMIT").await.unwrap();
}

#[tokio::test]
async fn clients_that_wait_are_served_in_order() {
    let variables =
        [("TIDEGATE_POOL_SIZE", "1"), ("TIDEGATE_WORKERS", "1"), ("TIDEGATE_POOL_TIMEOUT", "20s")];
    let proxy = Proxy::with(shared(), &variables).await;
    let holder = proxy.connect().await;
    let waiters =
        [proxy.connect().await, proxy.connect().await, proxy.connect().await, proxy.connect().await];
    holder.batch_execute("BEGIN").await.unwrap();
    let (sender, mut order) = tokio::sync::mpsc::unbounded_channel();
    for (n, client) in waiters.into_iter().enumerate() {
        let sender = sender.clone();
        tokio::spawn(async move {
            client.batch_execute("CREATE TEMP TABLE x (id int) ON COMMIT DROP").await.unwrap();
            sender.send(n).unwrap();
        });
        // It stands in line before the next one comes.
        while proxy.metric("tidegate_pool", &[("state", "waited_for")]).await < (n + 1) as f64 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
    holder.batch_execute("COMMIT").await.unwrap();
    // A temporary table binds its session, so that only the first is served until it leaves.
    assert_eq!(order.recv().await, Some(0));
    for expected in 1..4 {
        assert_eq!(order.recv().await, Some(expected));
    }
}

#[tokio::test]
async fn nothing_that_a_client_sets_reaches_another() {
    let proxy = Proxy::with(shared(), &ONE).await;
    let (a, b) = (proxy.connect().await, proxy.connect().await);
    for client in [&a, &b] {
        client.batch_execute(PRIMARY).await.unwrap();
    }
    a.batch_execute("SET work_mem = '7MB'").await.unwrap();
    a.batch_execute("SET search_path TO pg_catalog, public").await.unwrap();
    a.batch_execute("SELECT set_config('app.user', 'alice', false)").await.unwrap();
    assert_eq!(value(&b, "SHOW work_mem").await, "4MB");
    assert_eq!(value(&b, "SHOW search_path").await, "\"$user\", public");
    assert_eq!(
        value(&b, "SELECT coalesce(nullif(current_setting('app.user', true), ''), 'none')").await,
        "none"
    );
    assert_eq!(value(&a, "SHOW work_mem").await, "7MB");
    assert_eq!(value(&a, "SELECT current_setting('app.user')").await, "alice");
    // What a transaction takes back, it takes back here, too.
    a.batch_execute("BEGIN; SET work_mem = '9MB'; SAVEPOINT s; SET geqo = off; ROLLBACK TO s; COMMIT")
        .await
        .unwrap();
    assert_eq!(value(&a, "SHOW work_mem").await, "9MB");
    assert_eq!(value(&a, "SHOW geqo").await, "on");
    a.batch_execute("BEGIN; SET work_mem = '1MB'; ROLLBACK").await.unwrap();
    assert_eq!(value(&b, "SHOW work_mem").await, "4MB");
    assert_eq!(value(&a, "SHOW work_mem").await, "9MB");
    a.batch_execute("RESET ALL").await.unwrap();
    assert_eq!(value(&a, "SHOW work_mem").await, "4MB");
}

#[tokio::test]
async fn settings_are_the_same_on_every_node() {
    let proxy = Proxy::start(shared()).await;
    let client = proxy.connect().await;
    client.batch_execute("SET tidegate.consistency = eventual; ").await.unwrap();
    client.batch_execute("SET TIME ZONE 'Asia/Tokyo'").await.unwrap();
    for _ in 0..6 {
        assert_eq!(value(&client, "SELECT to_char(timestamptz '2020-01-01 00:00+00', 'HH24')").await, "09");
    }
    let other = proxy.connect().await;
    for _ in 0..6 {
        assert_ne!(value(&other, "SELECT to_char(timestamptz '2020-01-01 00:00+00', 'HH24')").await, "09");
    }
}

#[tokio::test]
async fn roles_do_not_leak() {
    shared().primary().execute("CREATE ROLE pooling_role").await.unwrap();
    let proxy = Proxy::with(shared(), &ONE).await;
    let (a, b) = (proxy.connect().await, proxy.connect().await);
    for client in [&a, &b] {
        client.batch_execute(PRIMARY).await.unwrap();
    }
    a.batch_execute("SET ROLE pooling_role").await.unwrap();
    assert_eq!(value(&a, "SELECT current_user").await, "pooling_role");
    assert_eq!(value(&b, "SELECT current_user").await, "postgres");
    assert_eq!(value(&a, "SELECT current_user").await, "pooling_role");
    a.batch_execute("RESET ROLE").await.unwrap();
    assert_eq!(value(&a, "SELECT current_user").await, "postgres");
}

#[tokio::test]
async fn what_cannot_move_binds_its_session_and_ends_with_it() {
    let variables = [("TIDEGATE_POOL_SIZE", "2"), ("TIDEGATE_WORKERS", "1"), ("TIDEGATE_POOL_TIMEOUT", "5s")];
    let proxy = Proxy::with(shared(), &variables).await;
    let (a, b) = (proxy.connect().await, proxy.connect().await);
    a.batch_execute("CREATE TEMP TABLE mine AS SELECT 42 AS x").await.unwrap();
    a.batch_execute("SELECT pg_advisory_lock(777)").await.unwrap();
    assert_eq!(value(&a, "SELECT x FROM mine").await, "42");
    assert_eq!(value(&a, "SHOW tidegate.pins").await, "temporary,advisory_lock");
    for (why, sessions) in [("temporary", 1.0), ("advisory_lock", 1.0), ("listen", 0.0)] {
        assert_eq!(proxy.metric("tidegate_pinned_sessions", &[("why", why)]).await, sessions, "{why}");
    }
    assert_eq!(sqlstate(&b, "SET tidegate.route = primary").await, "");
    assert_eq!(sqlstate(&b, "SELECT x FROM mine").await, "42P01");
    assert_eq!(value(&b, "SELECT pg_try_advisory_lock(777)").await, "f");
    drop(a);
    let c = proxy.connect().await;
    let began = std::time::Instant::now();
    while value(&c, "SELECT pg_try_advisory_xact_lock(777)").await != "t" {
        assert!(began.elapsed() < crate::support::proxy::PATIENCE, "the lock ended with its session");
    }
    assert_eq!(sqlstate(&c, "DISCARD ALL").await, "");
}

#[tokio::test]
async fn prepared_statements_follow_their_client() {
    let proxy = Proxy::with(shared(), &ONE).await;
    let (a, b) = (proxy.connect().await, proxy.connect().await);
    let on_a = a.prepare("SELECT $1::int + 1").await.unwrap();
    let on_b = b.prepare("SELECT $1::int + 2").await.unwrap();
    for client in [&a, &b] {
        client.batch_execute("SET tidegate.consistency = read_your_writes").await.unwrap();
    }
    for n in 0..10_i32 {
        assert_eq!(a.query_one(&on_a, &[&n]).await.unwrap().get::<_, i32>(0), n + 1);
        assert_eq!(b.query_one(&on_b, &[&n]).await.unwrap().get::<_, i32>(0), n + 2);
    }
    // SQL-level statements stay with their session.
    a.batch_execute("PREPARE mine AS SELECT 5").await.unwrap();
    assert_eq!(value(&a, "EXECUTE mine").await, "5");
    a.batch_execute("DEALLOCATE ALL").await.unwrap();
    assert_eq!(sqlstate(&a, "EXECUTE mine").await, "26000");
}

/// What a statement does is known by the text that the server has taken, not by one that it has refused.
#[tokio::test]
async fn a_refused_parse_leaves_no_text_behind() {
    let variables = [("TIDEGATE_POOL_SIZE", "1"), ("TIDEGATE_WORKERS", "1")];
    let proxy = Proxy::with(shared(), &variables).await;
    let mut peer = Peer::log_in(proxy.port);
    let script = Script::default()
        .query("PREPARE p AS SELECT 1")
        .parse("y", "SELECT no_such_column")
        .sync()
        .parse("y", "SET work_mem = '8888kB'")
        .sync()
        .bind("y")
        .execute()
        .sync()
        .close("y")
        .sync()
        .query("DEALLOCATE p");
    peer.send(&script.0);
    for tags in ["CZI", "EZI", "1ZI", "2CZI", "3ZI", "CZI"] {
        assert_eq!(peer.tags(), tags);
    }
    let other = proxy.connect().await;
    assert_eq!(value(&other, "SHOW work_mem").await, "4MB");
    peer.send(&Script::default().query("SHOW work_mem").0);
    assert!(peer.until(b'Z').iter().any(|(tag, body)| *tag == b'D' && body.ends_with(b"8888kB")));
}

/// In encodings where a backslash or quote may be part of a character, a parameter's value is still only a value.
#[tokio::test]
async fn values_in_any_encoding_are_only_values() {
    let variables = [("TIDEGATE_POOL_SIZE", "1"), ("TIDEGATE_WORKERS", "1")];
    let proxy = Proxy::with(shared(), &variables).await;
    let enter = |name: &[u8]| {
        let mut peer = Peer::open(proxy.port);
        let mut body = 196_608_u32.to_be_bytes().to_vec();
        body.extend_from_slice(b"user\0postgres\0database\0postgres\0client_encoding\0SJIS\0my.word\0");
        body.extend_from_slice(name);
        body.extend_from_slice(b"\0options\0-c backslash_quote=on\0\0");
        let len = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        peer.send(&[&len[..], &body].concat());
        peer
    };
    // Hyo, "table": its second byte is a backslash.
    let mut honest = enter(b"\x95\x5c");
    assert!(honest.until(b'Z').iter().any(|(tag, _)| *tag == b'K'));
    honest.send(&Script::default().query("SELECT current_setting('my.word') = chr(34920)").0);
    assert!(honest.until(b'Z').iter().any(|(tag, body)| *tag == b'D' && body.ends_with(b"t")));
    let mut injecting = enter(b"\x95\x5c',false); set work_mem=5555; --");
    injecting.until(b'Z');
    drop((honest, injecting));
    let other = proxy.connect().await;
    assert_eq!(value(&other, "SHOW work_mem").await, "4MB");
}

/// PostgreSQL refuses to run a prepared statement whose columns have changed since it was described: its client would
/// read the new rows by the old types. So it is here, whichever connection gets to run it.
#[tokio::test]
async fn a_statement_that_gives_other_columns_than_its_client_was_told_is_refused() {
    database("pooling_shapes").await;
    let proxy = Proxy::start(shared()).await;
    let other = proxy.connect_to("pooling_shapes").await;
    other.batch_execute("CREATE TABLE t AS SELECT 1 AS a; CREATE TABLE u AS SELECT 1 AS a").await.unwrap();
    let mut client = proxy.connect_to("pooling_shapes").await;
    client.batch_execute("SET tidegate.consistency = read_your_writes").await.unwrap();
    let stale = client.prepare("SELECT * FROM t").await.unwrap();
    let good = client.prepare("SELECT * FROM u").await.unwrap();
    assert_eq!(client.query_one(&stale, &[]).await.unwrap().get::<_, i32>(0), 1);
    other.batch_execute("ALTER TABLE t ALTER COLUMN a TYPE float4").await.unwrap();
    let refused = |error: tokio_postgres::Error| error.code().unwrap().code().to_owned();
    for _ in 0..8 {
        assert_eq!(refused(client.query_one(&stale, &[]).await.unwrap_err()), "0A000");
        assert_eq!(client.query_one(&good, &[]).await.unwrap().get::<_, i32>(0), 1);
    }
    // In a transaction, which has failed then.
    let transaction = client.transaction().await.unwrap();
    assert_eq!(refused(transaction.query_one(&stale, &[]).await.unwrap_err()), "0A000");
    assert_eq!(refused(transaction.query_one(&good, &[]).await.unwrap_err()), "25P02");
    transaction.rollback().await.unwrap();
    // New connections, which have yet to parse it: refused each time, not only the first.
    other.batch_execute("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND datname = 'pooling_shapes' AND application_name <> 'tidegate monitor'").await.unwrap();
    client.batch_execute("SET tidegate.route = primary").await.unwrap();
    for _ in 0..4 {
        assert_eq!(refused(client.query_one(&stale, &[]).await.unwrap_err()), "0A000");
    }
    client.batch_execute("SET tidegate.route = auto").await.unwrap();
    let fresh = client.prepare("SELECT * FROM t").await.unwrap();
    assert!((client.query_one(&fresh, &[]).await.unwrap().get::<_, f32>(0) - 1.0).abs() < f32::EPSILON);
}

/// What code in the database sets stays with the session that ran it, where its text shows that it sets anything; and
/// in no case does anybody else find it.
#[tokio::test]
async fn what_functions_set_reaches_nobody_else() {
    database("pooling_functions").await;
    let variables = [("TIDEGATE_POOL_SIZE", "2"), ("TIDEGATE_WORKERS", "1")];
    let proxy = Proxy::with(shared(), &variables).await;
    let setup = proxy.connect_to("pooling_functions").await;
    setup
        .batch_execute(
            "CREATE SCHEMA ta;
             CREATE FUNCTION public.probe() RETURNS int STABLE LANGUAGE sql AS 'SELECT 1';
             CREATE FUNCTION tenant(t text) RETURNS void LANGUAGE plpgsql AS
                 $$ BEGIN PERFORM set_config('search_path', t, false); PERFORM set_config('app.t', t, false); END $$;
             CREATE FUNCTION hidden(t text) RETURNS int LANGUAGE plpgsql AS
                 $$ BEGIN EXECUTE convert_from('\\x736574207365617263685f7061746820746f207461', 'UTF8'); RETURN 1; END $$;
             CREATE PROCEDURE p_tenant() LANGUAGE plpgsql AS $$ BEGIN SET search_path TO ta; END $$",
        )
        .await
        .unwrap();
    shared().wait_caught_up().await.unwrap();
    proxy.wait_catalog("pooling_functions").await;
    let path = "SELECT current_schemas(false)::text, nullif(current_setting('app.t', true), '')";
    drop(setup);
    for (statement, stays) in [
        ("SELECT tenant('ta')", true),
        ("CALL p_tenant()", true),
        ("DO $$ BEGIN PERFORM set_config('search_path', 'ta', false); END $$", true),
        ("SELECT hidden('ta')", false),
    ] {
        let a = proxy.connect_to("pooling_functions").await;
        a.batch_execute(statement).await.unwrap();
        if stays {
            assert!(value(&a, path).await.starts_with("{ta}"), "{statement}");
        }
        drop(a);
        for _ in 0..4 {
            let b = proxy.connect_to("pooling_functions").await;
            for route in ["primary", "auto"] {
                b.batch_execute(&format!("SET tidegate.route = {route}")).await.unwrap();
                assert_eq!(value(&b, path).await, "{public}|", "{statement}");
            }
            b.batch_execute("SET tidegate.route = primary").await.unwrap();
            b.batch_execute("SET application_name = 'x'; SELECT 1").await.unwrap();
        }
    }
}

/// Under SET LOCAL a name may mean something else: a statement prepared there is not shared.
#[tokio::test]
async fn a_statement_prepared_under_set_local_is_the_sessions_own() {
    database("pooling_path").await;
    let variables = [("TIDEGATE_POOL_SIZE", "1"), ("TIDEGATE_WORKERS", "1")];
    let proxy = Proxy::with(shared(), &variables).await;
    let setup = proxy.connect_to("pooling_path").await;
    setup
        .batch_execute(
            "CREATE SCHEMA ta; CREATE SCHEMA tb; CREATE TABLE ta.w (v int); CREATE TABLE tb.w (v text)",
        )
        .await
        .unwrap();
    for path in ["ta", "tb"] {
        let client = proxy.connect_to("pooling_path").await;
        client.batch_execute("BEGIN").await.unwrap();
        client.batch_execute(&format!("SET LOCAL search_path TO {path}")).await.unwrap();
        let insert = client.prepare("INSERT INTO w VALUES ($1)").await.unwrap();
        if path == "ta" {
            client.execute(&insert, &[&7]).await.unwrap();
        } else {
            client.execute(&insert, &[&"007"]).await.unwrap();
        }
        client.batch_execute("COMMIT").await.unwrap();
    }
    assert_eq!(value(&setup, "SELECT v FROM tb.w").await, "007");
}

/// A server keeps to the columns that a statement had when it was parsed: whoever prepares after the table has changed
/// must not get what another client had prepared before.
#[tokio::test]
async fn statements_prepared_after_a_change_of_definitions_are_new_ones() {
    database("pooling_ddl").await;
    let variables = [("TIDEGATE_POOL_SIZE", "1"), ("TIDEGATE_WORKERS", "1")];
    let proxy = Proxy::with(shared(), &variables).await;
    let (a, b) = (proxy.connect_to("pooling_ddl").await, proxy.connect_to("pooling_ddl").await);
    a.batch_execute("SET tidegate.route = primary; CREATE TABLE t AS SELECT 1 AS n").await.unwrap_err();
    a.batch_execute("SET tidegate.route = primary").await.unwrap();
    b.batch_execute("SET tidegate.route = primary").await.unwrap();
    a.batch_execute("CREATE TABLE t AS SELECT 1 AS n").await.unwrap();
    let old = a.prepare("SELECT * FROM t").await.unwrap();
    assert_eq!(a.query_one(&old, &[]).await.unwrap().len(), 1);
    b.batch_execute("BEGIN; ALTER TABLE t ADD m int").await.unwrap();
    let within = b.prepare("SELECT * FROM t").await.unwrap();
    assert_eq!(b.query_one(&within, &[]).await.unwrap().len(), 2);
    b.batch_execute("COMMIT").await.unwrap();
    let after = b.prepare("SELECT * FROM t").await.unwrap();
    assert_eq!(b.query_one(&after, &[]).await.unwrap().len(), 2);
    // What was prepared before is refused, as PostgreSQL does it.
    let refused = a.query_one(&old, &[]).await.unwrap_err();
    assert_eq!(refused.code().map(|c| c.code()), Some("0A000"), "{refused:?}");
    let new = a.prepare("SELECT * FROM t").await.unwrap();
    assert_eq!(a.query_one(&new, &[]).await.unwrap().len(), 2);
    // A cursor is the session's own: what FETCH brings is told by nobody else's statement.
    for client in [&a, &b] {
        for columns in ["1 AS a", "1 AS a, 2 AS b"] {
            client.batch_execute(&format!("BEGIN; DECLARE c CURSOR FOR SELECT {columns}")).await.unwrap();
            let fetch = client.prepare("FETCH 1 FROM c").await.unwrap();
            assert_eq!(client.query_one(&fetch, &[]).await.unwrap().len(), columns.split(',').count());
            client.batch_execute("COMMIT").await.unwrap();
        }
    }
}

/// A text stands for the tables of its client's path, be that set by name or by the role: a server must not run what it
/// has prepared for a client with another one.
#[tokio::test]
async fn a_statement_is_shared_by_those_who_mean_the_same_tables() {
    const TEXT: &str = "SELECT v FROM w WHERE v = $1";
    database("pooling_paths").await;
    let proxy = Proxy::with(shared(), &ONE).await;
    let setup = proxy.connect_to("pooling_paths").await;
    let kinds = [("pooling_ints", "int", "7", "23"), ("pooling_texts", "text", "007", "25")];
    for (schema, kind, value, _) in kinds {
        setup
            .batch_execute(&format!(
                "CREATE ROLE {schema}; CREATE SCHEMA AUTHORIZATION {schema} CREATE TABLE w (v {kind});
                 INSERT INTO {schema}.w VALUES ('{value}')"
            ))
            .await
            .unwrap();
    }
    // Nothing is shared beyond a change of definitions, and one may be noticed by its traces a second later.
    let mut counts = Vec::new();
    while counts.last().is_none_or(|count| count != "4") {
        assert!(counts.len() < 5, "one for each path, and none for each client: {counts:?}");
        proxy.wait_catalog("pooling_paths").await;
        setup.batch_execute(PRIMARY).await.unwrap();
        let text = format!("{TEXT}{}", " ".repeat(counts.len()));
        let mut clients = Vec::new();
        for set in ["SET search_path TO", "SET ROLE"] {
            for (schema, _, value, oid) in [kinds, kinds].concat() {
                let mut peer = Peer::open(proxy.port);
                peer.send(&startup(&[(b"user", b"postgres"), (b"database", b"pooling_paths")]));
                peer.until(b'Z');
                // As libpq prepares.
                let script = Script::default().query(PRIMARY).query(&format!("{set} {schema}"));
                peer.send(&script.parse("s", &text).sync().0);
                peer.until(b'Z');
                peer.until(b'Z');
                assert_eq!(peer.tags(), "1ZI");
                clients.push((peer, value, oid));
            }
        }
        for _ in 0..2 {
            for (peer, value, oid) in &mut clients {
                let script = Script::default().describe("s").bind_portal("", "s", &[value]);
                peer.send(&script.execute_portal("", 0).sync().0);
                let answer = peer.until(b'Z');
                let tags: String = answer.iter().map(|(tag, _)| char::from(*tag)).collect();
                assert_eq!(tags, "tT2DCZ", "{value}");
                let parameter = u32::from_be_bytes(answer[0].1[2..].try_into().unwrap());
                assert_eq!(parameter.to_string(), *oid);
                assert!(answer[3].1.ends_with(value.as_bytes()), "{value}");
            }
        }
        let count = format!("SELECT count(*) FROM pg_prepared_statements WHERE statement = '{text}'");
        counts.push(value(&setup, &count).await);
    }
}

/// A name that is used in the unit that prepares it is known there: most drivers prepare like that.
#[tokio::test]
async fn a_statement_may_be_prepared_and_used_in_one_unit() {
    // Of its own: what others define would end the sharing.
    database("pooling_units").await;
    let proxy = Proxy::with(shared(), &ONE).await;
    proxy.wait_catalog("pooling_units").await;
    let (a, b) = (proxy.connect_to("pooling_units").await, proxy.connect_to("pooling_units").await);
    let mut statements = Vec::new();
    for client in [&a, &b] {
        statements.push(client.prepare("SELECT 1 AS twice").await.unwrap());
        assert_eq!(last_route(client).await.2, "read");
        client.batch_execute(PRIMARY).await.unwrap();
        statements.push(client.prepare("SELECT 2 AS twice").await.unwrap());
    }
    let count = "SELECT count(*) FROM pg_prepared_statements WHERE statement = 'SELECT 2 AS twice'";
    assert_eq!(value(&a, count).await, "1", "the server has it once for both");
    // What an earlier unit has prepared counts as well, and what is not known makes the unit unjudged.
    let mut peer = Peer::log_in(proxy.port);
    for (unit, why) in [
        (Script::default().parse("s", "SELECT 1").bind("s").execute().sync(), "read"),
        (Script::default().parse("t", "SELECT 1").bind("s").execute().sync(), "read"),
        (Script::default().parse("u", "SELECT 1").bind("v").sync(), "unjudged"),
        (Script::default().bind("w").parse("w", "SELECT 1").sync(), "unjudged"),
        (
            Script::default()
                .close("s")
                .parse("s", "CREATE TEMP TABLE x (n int) ON COMMIT DROP")
                .bind("s")
                .sync(),
            "mixed",
        ),
    ] {
        peer.send(&unit.query("SHOW tidegate.last_route").0);
        peer.until(b'Z');
        let answer = peer.until(b'Z');
        let row = String::from_utf8_lossy(&answer[1].1).into_owned();
        assert!(row.ends_with(why), "{row:?} instead of {why}");
    }
}

/// PostgreSQL reads literals of a statement when it parses it.
#[tokio::test]
async fn a_statement_is_shared_by_those_whose_settings_give_it_the_same_meaning() {
    let proxy = Proxy::with(shared(), &[("TIDEGATE_POOL_SIZE", "1"), ("TIDEGATE_WORKERS", "1")]).await;
    let direct = shared().primary().connect().await.unwrap();
    let mine = "SET application_name = 'same_meaning'; SET tidegate.route = primary; SET datestyle = ";
    let mut clients = Vec::new();
    for style in ["'ISO, DMY'", "'ISO, DMY'", "'ISO, MDY'"] {
        let client = proxy.connect().await;
        for sql in mine.split("; ") {
            let sql = if sql.ends_with("= ") { format!("{sql}{style}") } else { sql.to_owned() };
            client.batch_execute(&sql).await.unwrap();
        }
        clients.push(client);
    }
    let sql = "SELECT (date '03/04/2020')::text";
    let mut prepared = Vec::new();
    for client in &clients {
        prepared.push(client.prepare(sql).await.unwrap());
    }
    let found = async |at: usize| {
        let row = clients[at].query_one(&prepared[at], &[]).await.unwrap();
        row.get::<_, String>(0)
    };
    let expected = ["2020-04-03", "2020-04-03", "2020-03-04"];
    for at in [0, 1, 2, 0, 2, 1] {
        assert_eq!(found(at).await, expected[at]);
    }
    // One changes its mind, and has its statement parsed anew on another connection: the others' stay what they are.
    clients[0].batch_execute("SET datestyle = 'ISO, MDY'").await.unwrap();
    let end = "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity WHERE application_name = 'same_meaning'";
    assert_eq!(value(&direct, end).await, "1");
    let _ = found(0).await;
    assert_eq!((found(1).await, found(2).await), (expected[1].to_owned(), expected[2].to_owned()));
    // The time that a literal stands for is that of whoever prepares it.
    let now = "SELECT (timestamptz 'now')::text";
    let early = clients[0].prepare(now).await.unwrap();
    let between = value(&direct, "SELECT clock_timestamp()").await;
    let late = clients[2].prepare(now).await.unwrap();
    for (client, statement, expected) in [(&clients[0], early, "f"), (&clients[2], late, "t")] {
        let time: String = client.query_one(&statement, &[]).await.unwrap().get(0);
        assert_eq!(value(&direct, &format!("SELECT timestamptz '{time}' > '{between}'")).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_parsed_in_a_transaction_that_has_failed() {
    let proxy = Proxy::with(shared(), &ONE).await;
    let mut peer = Peer::log_in(proxy.port);
    tokio::task::block_in_place(|| {
        let mut told = |script: Script| {
            peer.send(&script.0);
            let tags: Vec<_> = peer.until(b'Z').iter().map(|(tag, _)| char::from(*tag)).collect();
            tags.into_iter().collect::<String>()
        };
        told(Script::default().query("SET tidegate.route = primary"));
        assert_eq!(told(Script::default().parse("a", "SELECT 1").sync()), "1Z");
        assert_eq!(told(Script::default().parse("b", "ROLLBACK").sync()), "1Z");
        assert_eq!(told(Script::default().query("BEGIN")), "CZ");
        assert_eq!(told(Script::default().query("SELECT 1 / 0")), "EZ");
        // The server knows both texts; but only one of them may be prepared now.
        assert_eq!(told(Script::default().parse("c", "SELECT 1").sync()), "EZ");
        assert_eq!(told(Script::default().parse("d", "ROLLBACK").sync()), "1Z");
        assert_eq!(told(Script::default().bind("d").execute().sync()), "2CZ");
        assert_eq!(told(Script::default().bind("c").execute().sync()), "EZ");
        assert_eq!(told(Script::default().bind("a").execute().sync()), "2DCZ");
    });
}
