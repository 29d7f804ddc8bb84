//! What binds a session to its server, and when that ends: asked of the server where a text does not tell.

use tokio_postgres::Client;

use crate::support::proxy::{connect, last_route, rows, sqlstate, value};
use crate::support::{Proxy, database, shared};

async fn pins(client: &Client) -> String {
    value(client, "SHOW tidegate.pins").await
}

/// One server connection to the primary, so that whatever is left there is met by the next session.
const ONE: [(&str, &str); 2] = [("TIDEGATE_POOL_SIZE", "1"), ("TIDEGATE_WORKERS", "1")];

#[tokio::test]
async fn a_bond_ends_with_what_it_stands_for() {
    let proxy = Proxy::with(shared(), &ONE).await;
    let (client, other) = (proxy.connect().await, proxy.connect().await);
    // What binds, by what name, and what ends it; of several ways each in turn.
    for (begin, why, ends) in [
        (
            "SELECT pg_advisory_lock(471)",
            "advisory_lock",
            &[
                "SELECT pg_advisory_unlock(471)",
                "SELECT pg_advisory_unlock_all()",
                // asyncpg's, whenever a connection goes back to its pool.
                "SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;",
                "BEGIN; SELECT pg_advisory_unlock(471); COMMIT",
                // A lock is given back for good even so.
                "BEGIN; SELECT pg_advisory_unlock(471); ROLLBACK",
            ][..],
        ),
        (
            "CREATE TEMP TABLE bond (x int)",
            "temporary",
            &["DROP TABLE bond", "DISCARD TEMP", "BEGIN; DROP TABLE bond; COMMIT"],
        ),
        (
            "CREATE FUNCTION pg_temp.bond() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "temporary",
            &["DROP FUNCTION pg_temp.bond()"],
        ),
        ("LISTEN bond", "listen", &["UNLISTEN bond", "UNLISTEN *"]),
        (
            "BEGIN; DECLARE bond CURSOR WITH HOLD FOR SELECT 1; COMMIT",
            "hold_cursor",
            &["CLOSE bond", "CLOSE ALL"],
        ),
    ] {
        for end in ends {
            client.batch_execute(begin).await.unwrap();
            assert_eq!(pins(&client).await, why, "{begin}");
            client.batch_execute(end).await.unwrap();
            assert_eq!(pins(&client).await, "", "{begin}; {end}");
            assert_eq!(
                value(&other, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 471")
                    .await,
                "0"
            );
        }
    }
    // Two of a kind: one of them is left.
    client.batch_execute("SELECT pg_advisory_lock(471), pg_advisory_lock(472)").await.unwrap();
    client.batch_execute("SELECT pg_advisory_unlock(471)").await.unwrap();
    assert_eq!(pins(&client).await, "advisory_lock");
    client.batch_execute("SELECT pg_advisory_unlock(472)").await.unwrap();
    // What a prepared statement has left outlives it.
    client.batch_execute("PREPARE lock AS SELECT pg_advisory_lock(471)").await.unwrap();
    client.batch_execute("EXECUTE lock").await.unwrap();
    client.batch_execute("DEALLOCATE lock").await.unwrap();
    assert_eq!(pins(&client).await, "advisory_lock");
    client.batch_execute("SELECT pg_advisory_unlock_all()").await.unwrap();
    // What never came to be, or was gone at once, binds nobody.
    for nothing in [
        "BEGIN; CREATE TEMP TABLE bond (x int); ROLLBACK",
        "BEGIN; CREATE TEMP TABLE bond (x int) ON COMMIT DROP; COMMIT",
        "BEGIN; LISTEN bond; ROLLBACK",
        "SELECT pg_advisory_unlock(471)",
    ] {
        client.batch_execute(nothing).await.unwrap();
        assert_eq!(pins(&client).await, "", "{nothing}");
    }
    assert_eq!(value(&client, "SELECT 1").await, "1");
    assert_ne!(last_route(&client).await.2, "pinned");
}

#[tokio::test]
async fn a_lock_that_was_not_got_binds_nobody() {
    let proxy = Proxy::with(shared(), &[("TIDEGATE_POOL_SIZE", "2"), ("TIDEGATE_WORKERS", "1")]).await;
    let (holder, client) = (proxy.connect().await, proxy.connect().await);
    holder.batch_execute("SELECT pg_advisory_lock(473)").await.unwrap();
    assert_eq!(value(&client, "SELECT pg_try_advisory_lock(473)").await, "f");
    assert_eq!((pins(&holder).await, pins(&client).await), ("advisory_lock".to_owned(), String::new()));
}

#[tokio::test]
async fn what_code_leaves_binds_its_session_and_reaches_nobody_else() {
    database("bonds_code").await;
    let proxy = Proxy::with(
        shared(),
        &[("TIDEGATE_POOL_SIZE", "2"), ("TIDEGATE_WORKERS", "1"), ("TIDEGATE_FRESHNESS_REPLICA_WAIT", "10s")],
    )
    .await;
    let client = proxy.connect_to("bonds_code").await;
    client
        .batch_execute(
            "CREATE FUNCTION fill() RETURNS void LANGUAGE plpgsql AS
                 'BEGIN CREATE TEMP TABLE filled AS SELECT 7 AS x; PERFORM pg_advisory_lock(474); END';
             CREATE FUNCTION fill_by_another() RETURNS void LANGUAGE sql AS 'SELECT fill()';
             CREATE PROCEDURE hear() LANGUAGE plpgsql AS 'BEGIN LISTEN code; END';
             CREATE FUNCTION keep() RETURNS void LANGUAGE plpgsql AS
                 'BEGIN EXECUTE ''DECLARE kept CURSOR WITH HOLD FOR SELECT 8''; END';
             CREATE FUNCTION briefly() RETURNS void LANGUAGE plpgsql AS
                 'BEGIN CREATE TEMP TABLE brief (x int) ON COMMIT DROP; END';
             CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM fill(); RETURN new; END';
             CREATE TABLE audited (a int, b int DEFAULT 2);
             CREATE TRIGGER audit BEFORE INSERT ON audited FOR EACH ROW EXECUTE FUNCTION audit();
             CREATE FUNCTION lock_it() RETURNS int LANGUAGE sql AS 'SELECT 1 FROM pg_advisory_lock(474)';
             CREATE TABLE by_default (a int, b int DEFAULT lock_it());
             -- Nothing in its text tells what it does.
             CREATE FUNCTION unseen() RETURNS void LANGUAGE plpgsql AS
                 $$BEGIN EXECUTE 'CREATE TEM'||'P TABLE filled AS SELECT 7 AS x; SELECT pg_advis'||'ory_lock(474)'; END$$",
        )
        .await
        .unwrap();
    proxy.wait_catalog("bonds_code").await;
    let (client, other) = (proxy.connect_to("bonds_code").await, proxy.connect_to("bonds_code").await);
    for (call, why, end) in [
        ("SELECT fill()", "temporary,advisory_lock", "DROP TABLE filled; SELECT pg_advisory_unlock_all()"),
        ("SELECT fill_by_another()", "temporary,advisory_lock", "DISCARD ALL"),
        ("DO 'BEGIN PERFORM fill(); END'", "temporary,advisory_lock", "DISCARD ALL"),
        // Code that nobody has named.
        ("INSERT INTO audited VALUES (1)", "temporary,advisory_lock", "DISCARD ALL"),
        ("INSERT INTO public.audited (a, b) VALUES (1, 2)", "temporary,advisory_lock", "DISCARD ALL"),
        ("INSERT INTO by_default VALUES (1)", "advisory_lock", "SELECT pg_advisory_unlock_all()"),
        ("CALL hear()", "listen", "UNLISTEN code"),
        ("SELECT keep()", "hold_cursor", "CLOSE kept"),
    ] {
        // What ended the last one has changed definitions.
        proxy.wait_catalog("bonds_code").await;
        client.batch_execute(call).await.unwrap();
        assert_eq!(pins(&client).await, why, "{call}");
        if why.starts_with("temporary") {
            assert_eq!(value(&client, "SELECT x FROM filled").await, "7");
            assert_eq!(sqlstate(&other, "TABLE filled").await, "42P01");
            assert_eq!(value(&other, "SELECT pg_try_advisory_lock(474)").await, "f");
        }
        client.batch_execute(end).await.unwrap();
        assert_eq!(pins(&client).await, "", "{call}; {end}");
    }
    client.batch_execute("SELECT briefly()").await.unwrap();
    assert_eq!(pins(&client).await, "");
    // To read from where such code would run binds nobody, nor does it set a listener free.
    client.batch_execute("LISTEN code").await.unwrap();
    assert_eq!(value(&client, "SELECT count(*) >= 0 FROM audited").await, "t");
    assert_eq!(value(&client, "SELECT pg_listening_channels()").await, "code");
    client.batch_execute("UNLISTEN *").await.unwrap();
    // Nobody would see a lock on a replica: code that may take one is refused behind a read there, and in front of it takes the
    // transaction to the primary.
    proxy.wait_catalog("bonds_code").await;
    let reader = proxy.connect_to("bonds_code").await;
    for lock in ["SELECT lock_it()", "SELECT fill_by_another()", "DO 'BEGIN PERFORM lock_it(); END'"] {
        reader.batch_execute("BEGIN READ ONLY").await.unwrap();
        assert_eq!(value(&reader, "SELECT 1").await, "1");
        // What runs where such a table is written to does not run where it is read.
        for read in ["TABLE audited", "DECLARE c CURSOR FOR TABLE audited"] {
            reader.batch_execute(read).await.unwrap();
            assert_eq!(last_route(&reader).await.1, "replica", "{read}");
        }
        assert_eq!(sqlstate(&reader, lock).await, "25006", "{lock}");
        reader.batch_execute("ROLLBACK").await.unwrap();
    }
    // Who has asked for a replica is not taken elsewhere.
    reader.batch_execute("SET tidegate.route = replica").await.unwrap();
    reader.batch_execute("BEGIN READ ONLY").await.unwrap();
    assert_eq!(sqlstate(&reader, "SELECT lock_it()").await, "25006");
    reader.batch_execute("ROLLBACK").await.unwrap();
    for end in ["COMMIT", "ROLLBACK"] {
        client.batch_execute("BEGIN READ ONLY").await.unwrap();
        client.batch_execute("SELECT lock_it()").await.unwrap();
        assert_eq!(last_route(&client).await.1, "primary");
        client.batch_execute(end).await.unwrap();
        assert_eq!(pins(&client).await, "advisory_lock", "{end}");
        assert_eq!(value(&other, "SELECT pg_try_advisory_lock(474)").await, "f", "{end}");
        client.batch_execute("SELECT pg_advisory_unlock_all()").await.unwrap();
    }
    assert_eq!(pins(&client).await, "");
    client.batch_execute("CREATE TABLE written ()").await.unwrap();
    // What cannot be known of does not bind; but whoever has the connection next finds nothing of it.
    let proxy = Proxy::with(shared(), &ONE).await;
    proxy.wait_catalog("bonds_code").await;
    let (client, other) = (proxy.connect_to("bonds_code").await, proxy.connect_to("bonds_code").await);
    client.batch_execute("SELECT unseen()").await.unwrap();
    let found = "/* tidegate: route=primary */ SELECT to_regclass('filled') IS NULL, \
                 (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 474)";
    assert_eq!(rows(&other, found).await, ["t|0"]);
}

#[tokio::test]
async fn settings_by_function_go_with_their_session() {
    let proxy = Proxy::with(shared(), &ONE).await;
    let (client, other) = (proxy.connect().await, proxy.connect().await);
    let shown = "SELECT current_setting('app.tenant', true), current_setting('work_mem')";
    let before: (Option<String>, String) = {
        let row = other.query_one(shown, &[]).await.unwrap();
        (row.get(0), row.get(1))
    };
    // For good: unnamed, prepared, and prepared by another name for another value.
    for round in 0..2 {
        for tenant in ["it's \\ one", "$1", ""] {
            let set = "SELECT set_config('app.tenant', $1, false)";
            if round == 0 {
                client.query_one(set, &[&tenant]).await.unwrap();
            } else {
                let statement = client.prepare(set).await.unwrap();
                client.query_one(&statement, &[&"another"]).await.unwrap();
                client.query_one(&statement, &[&tenant]).await.unwrap();
            }
            client.query_one("SELECT set_config('work_mem', $1, false)", &[&"7MB"]).await.unwrap();
            assert_eq!(pins(&client).await, "");
            let row = other.query_one(shown, &[]).await.unwrap();
            let others = (row.get::<_, Option<String>>(0).filter(|v| !v.is_empty()), row.get::<_, String>(1));
            assert_eq!(others, before);
            let row = client.query_one(shown, &[]).await.unwrap();
            assert_eq!((row.get(0), row.get(1)), (tenant, "7MB"));
        }
    }
    client.query_one("SELECT set_config('work_mem', $1, false)", &[&None::<&str>]).await.unwrap();
    assert_eq!(value(&client, "SHOW work_mem").await, before.1);
    // For one transaction, as web frameworks do it: nothing remains, and nothing binds.
    let mut transaction = proxy.connect().await;
    let begun = transaction.transaction().await.unwrap();
    begun
        .query_one(
            "SELECT set_config('app.tenant', $1, true), set_config('role', $2, true), set_config('app.b', 'c', true)",
            &[&"brief", &"postgres"],
        )
        .await
        .unwrap();
    assert_eq!(begun.query_one(shown, &[]).await.unwrap().get::<_, &str>(0), "brief");
    begun.commit().await.unwrap();
    assert_eq!(pins(&transaction).await, "");
    assert_eq!(value(&transaction, "SELECT coalesce(current_setting('app.tenant', true), '')").await, "");
    assert_ne!(last_route(&transaction).await.2, "pinned");
}

#[tokio::test]
async fn one_text_of_two_roles_is_two_statements() {
    const NAME: &str = "bonds_roles";
    database(NAME).await;
    let direct = connect(&format!("postgres://postgres@127.0.0.1:{}/{NAME}", shared().primary().port)).await;
    for (role, kind) in [("bonds_int", "int"), ("bonds_text", "text")] {
        // By default a role's own schema comes first.
        direct
            .batch_execute(&format!(
                "CREATE ROLE {role} LOGIN; CREATE SCHEMA AUTHORIZATION {role};
                 SET ROLE {role}; CREATE TABLE {role}.t (a {kind}); INSERT INTO {role}.t VALUES ('1'); RESET ROLE"
            ))
            .await
            .unwrap();
    }
    let proxy = Proxy::with(shared(), &[("TIDEGATE_POOL_SIZE", "4"), ("TIDEGATE_WORKERS", "1")]).await;
    proxy.wait_catalog(NAME).await;
    let url = |role: &str| proxy.url(NAME).replace("postgres@", &format!("{role}@"));
    let (int, text) = (connect(&url("bonds_int")).await, connect(&url("bonds_text")).await);
    for client in [&int, &text] {
        client.batch_execute("SET tidegate.route = primary").await.unwrap();
    }
    let of_int = int.prepare("SELECT * FROM t").await.unwrap();
    let of_text = text.prepare("SELECT * FROM t").await.unwrap();
    // Definitions change, and the server connections that know the statements are gone.
    proxy.connect_to(NAME).await.batch_execute("CREATE TABLE unrelated (x int)").await.unwrap();
    let ended = "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity \
                 WHERE usename IN ('bonds_int', 'bonds_text')";
    assert_eq!(direct.query_one(ended, &[]).await.unwrap().get::<_, i64>(0), 2);
    assert_eq!(text.query_one(&of_text, &[]).await.unwrap().get::<_, &str>(0), "1");
    assert_eq!(int.query_one(&of_int, &[]).await.unwrap().get::<_, i32>(0), 1);
}

#[tokio::test]
async fn a_statement_is_read_once_whatever_is_set_later_and_wherever_it_runs() {
    const NAME: &str = "bonds_reading";
    database(NAME).await;
    let direct = connect(&format!("postgres://postgres@127.0.0.1:{}/{NAME}", shared().primary().port)).await;
    let tables = "CREATE SCHEMA a; CREATE TABLE a.t AS SELECT 1 AS x; CREATE SCHEMA b; CREATE TABLE b.t AS SELECT 2 AS x";
    direct.batch_execute(tables).await.unwrap();
    shared().wait_caught_up().await.unwrap();
    let proxy = Proxy::start(shared()).await;
    proxy.wait_catalog(NAME).await;
    let cases = [
        (
            "datestyle = 'SQL, DMY'",
            "datestyle = 'ISO, MDY'",
            "SELECT ('5/3/2024'::date - '2024-01-01'::date)::text",
        ),
        (
            "datestyle = 'SQL, DMY'",
            "search_path = b",
            "SELECT ('5/3/2024'::date - '2024-01-01'::date)::text || x FROM t",
        ),
        (
            "datestyle = 'SQL, DMY'",
            "datestyle = 'ISO, MDY'; SET search_path = b",
            "SELECT ('5/3/2024'::date - '2024-01-01'::date)::text || x FROM t",
        ),
        (
            "TIME ZONE 5",
            "TIME ZONE 'UTC'",
            "SELECT extract(epoch FROM '2024-03-05 12:00'::timestamptz)::text",
        ),
        (
            "standard_conforming_strings = off",
            "standard_conforming_strings = on",
            r"SELECT length('a\\b')::text",
        ),
        (
            "standard_conforming_strings = off",
            "standard_conforming_strings = on; SET search_path = b",
            r"SELECT length('a\\b')::text || x FROM t",
        ),
        (
            "transform_null_equals = on",
            "transform_null_equals = off",
            "SELECT ((SELECT NULL::int) = NULL)::text",
        ),
        ("array_nulls = off", "array_nulls = on", "SELECT (('{NULL}'::text[])[1] IS NULL)::text"),
        // As many as there are ways to run it there: each is new to its server.
        ("work_mem = '1MB'", "work_mem = '2MB'", "SELECT current_setting('work_mem')"),
    ];
    let run = async |client: &Client, through: bool| {
        let mut told = Vec::new();
        for (number, (then, now, sql)) in cases.iter().enumerate() {
            client.batch_execute("RESET ALL").await.unwrap();
            client.batch_execute("SET search_path = a").await.unwrap();
            client.batch_execute(&format!("SET {then}")).await.unwrap();
            let prepared = client.prepare(&format!("/* {number} */ {sql}")).await.unwrap();
            for statement in format!("SET {now}").split("; ") {
                client.batch_execute(statement).await.unwrap();
            }
            for (route, begin) in [
                ("primary", ""),
                ("replica", ""),
                ("replica", ""),
                ("replica", "BEGIN READ ONLY"),
                ("primary", "BEGIN"),
            ] {
                if through {
                    client.batch_execute(&format!("SET tidegate.route = {route}")).await.unwrap();
                }
                client
                    .batch_execute(begin)
                    .await
                    .unwrap_or_else(|e| panic!("{number} {route} {begin} {sql}: {e:?}"));
                let row = client
                    .query_one(&prepared, &[])
                    .await
                    .unwrap_or_else(|e| panic!("{route} {begin} {sql}: {e:?}"));
                told.push((number, row.get::<_, String>(0)));
                let set = if number == 8 { "SHOW work_mem" } else { "SHOW datestyle" };
                told.push((number, value(client, set).await));
                client.batch_execute(if begin.is_empty() { "" } else { "COMMIT" }).await.unwrap();
            }
        }
        told
    };
    let alone = run(&direct, false).await;
    assert_eq!(run(&proxy.connect_to(NAME).await, true).await, alone);
    // What the first one has left on the servers is nothing to others, who say the same by other settings.
    assert_eq!(run(&proxy.connect_to(NAME).await, true).await, alone);
    let other = proxy.connect_to(NAME).await;
    for (route, days) in [("primary", "123"), ("replica", "123"), ("replica", "123")] {
        other.batch_execute(&format!("SET tidegate.route = {route}")).await.unwrap();
        let row = other.query_one(&format!("/* 0 */ {}", cases[0].2), &[]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), days);
    }
}
