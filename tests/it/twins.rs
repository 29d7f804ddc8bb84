//! Whatever sessions do to their state, each sees what it would see alone: random operations of several clients over
//! few servers, every one of them also done on a private connection, and the answers compared.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Client, Row, SimpleQueryMessage, Statement};

use crate::support::proxy::connect;
use crate::support::{Proxy, database, shared};

/// Statements whose answer depends on nothing but the session's own history. `{n}` stands for a small number.
const OPERATIONS: &[&str] = &[
    // Settings, all ways.
    "SET work_mem = '{n}MB'",
    "SET LOCAL work_mem = '{n}1MB'",
    "SET search_path TO s{n}, public",
    "SET SESSION statement_timeout = '{n}00s'",
    "SET TIME ZONE {n}",
    "SET datestyle = 'SQL, DMY'",
    "SET datestyle = German",
    "SET datestyle = YMD",
    "SET datestyle TO postgres",
    "SELECT set_config('datestyle', 'European', false)",
    "RESET datestyle",
    "SELECT date '2026-02-01'::text",
    "SET application_name = 'app {n}'",
    "SET my.own = 'x{n}'",
    "SET LOCAL my.own = 'local {n}'",
    "RESET work_mem",
    "RESET search_path",
    "RESET my.own",
    "RESET ALL",
    "SET work_mem TO DEFAULT",
    "SET standard_conforming_strings = off",
    "SET standard_conforming_strings = on",
    "SET work_mem = 'nonsense'",
    "SELECT set_config('work_mem', '{n}2MB', false)",
    "SELECT set_config('my.own', 'y{n}', true)",
    "SELECT set_config('my.' || 'own', 'computed {n}', false)",
    "SELECT set_in_function({n})",
    "SELECT set_path_in_function({n})",
    "CALL set_in_procedure({n})",
    "DO 'BEGIN PERFORM set_config(''my.own'', ''done'', false); END'",
    "SET ROLE twin_{n}",
    "SET LOCAL ROLE twin_{n}",
    "RESET ROLE",
    "SET SESSION AUTHORIZATION twin_{n}",
    "RESET SESSION AUTHORIZATION",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
    "SET default_transaction_isolation = 'serializable'",
    "RESET default_transaction_isolation",
    // Transactions.
    "BEGIN",
    "BEGIN ISOLATION LEVEL REPEATABLE READ",
    "BEGIN READ ONLY",
    "SET TRANSACTION READ ONLY",
    "COMMIT",
    "COMMIT",
    "ROLLBACK",
    "ROLLBACK",
    "SAVEPOINT a",
    "SAVEPOINT b",
    "ROLLBACK TO a",
    "ROLLBACK TO b",
    "RELEASE a",
    "SELECT 1/0",
    "SELECT no_such_column",
    "SET work_mem = '{n}3MB'; SELECT current_setting('work_mem')",
    "SET work_mem = '{n}4MB'; SELECT 1/0",
    "BEGIN; SET my.own = 'in {n}'; COMMIT; SET LOCAL my.own = 'z'",
    // Prepared statements and cursors in SQL.
    "SELECT pg_try_advisory_xact_lock_shared({n}), pg_advisory_lock_shared({n}) IS NULL",
    "SELECT pg_advisory_unlock_all() IS NULL",
    "SELECT pg_try_advisory_lock_shared({n})",
    "SELECT pg_advisory_unlock_shared({n})",
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    "SELECT set_config('my.own', 'brief {n}', true), set_config('work_mem', '{n}5MB', true)",
    "PREPARE p{n} AS SELECT {n} AS prepared",
    "EXECUTE p{n}",
    "DEALLOCATE p{n}",
    "DEALLOCATE ALL",
    "DECLARE c CURSOR FOR SELECT generate_series(1, 9)",
    "DECLARE h CURSOR WITH HOLD FOR SELECT generate_series(1, 9)",
    "FETCH 2 FROM c",
    "FETCH 2 FROM h",
    "CLOSE ALL",
    "CLOSE h",
    "CLOSE k",
    "FETCH 1 FROM k",
    // Temporary tables, locks, sequences, notifications.
    "CREATE TEMP TABLE t{n} AS SELECT {n} AS x",
    "CREATE TEMP TABLE t{n} ON COMMIT DROP AS SELECT {n} AS x",
    "SELECT fill_in_function({n})",
    "SELECT fill_by_another({n})",
    "SELECT lock_in_function({n})",
    "CALL listen_in_procedure({n})",
    "SELECT keep_in_function()",
    "INSERT INTO public.audited VALUES ({n})",
    "SELECT * FROM t{n}",
    "INSERT INTO t{n} VALUES (7) RETURNING x",
    "DROP TABLE t{n}",
    "DISCARD TEMP",
    "DISCARD ALL",
    "DISCARD PLANS",
    "LISTEN l{n}",
    "UNLISTEN *",
    "UNLISTEN l{n}",
    // Looks.
    "SHOW work_mem",
    "SHOW search_path",
    "SHOW TimeZone",
    "SHOW datestyle",
    "SHOW application_name",
    "SHOW statement_timeout",
    "SHOW transaction_isolation",
    "SHOW transaction_read_only",
    // A parameter of the application's own that was ever set on a connection is '' there when it is reset, not null:
    // PostgreSQL keeps its place, and no statement takes that away.
    "SELECT nullif(current_setting('my.own', true), ''), current_setting('work_mem'), current_user, session_user",
    "SELECT current_schemas(false), now() > '2020-01-01', 'a\\b' AS escaped",
    "SELECT to_char('2024-03-05 12:00+00'::timestamptz, 'YYYY-MM-DD HH24 TZH'), '5/3/2024'::date",
    "SELECT x FROM only_in_{n}",
    "SELECT pg_listening_channels() ORDER BY 1",
    "SELECT count(*) FROM pg_prepared_statements WHERE from_sql",
    "SELECT name FROM pg_cursors ORDER BY 1",
    "",
];

/// The answer to a text: rows, command tags, or what went wrong behind them.
async fn answer(client: &Client, sql: &str) -> String {
    match client.simple_query(sql).await {
        Ok(messages) => messages
            .iter()
            .map(|message| match message {
                SimpleQueryMessage::Row(row) => {
                    let cells: Vec<_> = (0..row.len()).map(|n| row.get(n).unwrap_or("null")).collect();
                    cells.join("|")
                }
                SimpleQueryMessage::CommandComplete(count) => format!("done {count}"),
                _ => String::new(),
            })
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>()
            .join("\n"),
        Err(error) => match error.as_db_error() {
            Some(db) => format!("{} {}", db.code().code(), db.message()),
            None => format!("broken: {error}"),
        },
    }
}

/// The same through the extended protocol, unnamed or prepared before.
async fn answer_extended(client: &Client, sql: &str, named: bool) -> String {
    let found = if named {
        match client.prepare(sql).await {
            Ok(statement) => client.query(&statement, &[]).await,
            Err(error) => Err(error),
        }
    } else {
        client.query_typed(sql, &[]).await
    };
    told(found)
}

/// The answer to a statement that was prepared some steps ago.
async fn answer_kept(client: &Client, kept: &Statement) -> String {
    let found = told(client.query(kept, &[]).await);
    // Drivers name statements by a count of their own.
    if found.starts_with("26000") { "26000".to_owned() } else { found }
}

fn cell(row: &Row, at: usize) -> String {
    fn of<'a, T: FromSql<'a> + ToString>(row: &'a Row, at: usize) -> String {
        row.get::<_, Option<T>>(at).map_or("null".to_owned(), |value| value.to_string())
    }
    match *row.columns()[at].type_() {
        Type::BOOL => of::<bool>(row, at),
        Type::INT4 => of::<i32>(row, at),
        Type::INT8 => of::<i64>(row, at),
        Type::TEXT | Type::NAME => of::<String>(row, at),
        ref other => format!("of type {other}"),
    }
}

fn told(found: Result<Vec<Row>, tokio_postgres::Error>) -> String {
    match found {
        Ok(rows) => rows
            .iter()
            .map(|row| (0..row.len()).map(|at| cell(row, at)).collect::<Vec<_>>().join("|") + "\n")
            .collect(),
        Err(error) => match error.as_db_error() {
            Some(db) => format!("{} {}", db.code().code(), db.message()),
            None => format!("broken: {error}"),
        },
    }
}

/// Whether a query has run in the transaction, which the text of 25001 tells, is another matter where DEALLOCATE is
/// answered by Tidegate itself.
fn without_history(answer: String) -> String {
    if answer.starts_with("25001") { "25001".to_owned() } else { answer }
}

struct Twin {
    through: Client,
    alone: Client,
    history: Vec<String>,
    /// What it has prepared and may run again, there and here.
    kept: Vec<(Statement, Statement, String)>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_session_sees_what_it_would_see_alone() {
    const NAME: &str = "twins";
    database(NAME).await;
    let setup = shared().primary();
    let direct = format!("postgres://postgres@127.0.0.1:{}/{NAME}", setup.port);
    let admin = connect(&direct).await;
    admin
        .batch_execute(
            "CREATE FUNCTION probe() RETURNS int STABLE LANGUAGE sql AS 'SELECT 1';
             CREATE FUNCTION set_in_function(n int) RETURNS text LANGUAGE plpgsql AS
                 $$ BEGIN PERFORM set_config('application_name', 'by function ' || n, false); RETURN 'set'; END $$;
             CREATE FUNCTION set_path_in_function(n int) RETURNS text LANGUAGE plpgsql AS
                 $$ BEGIN PERFORM set_config('search_path', 's' || n, false); RETURN 'set'; END $$;
             CREATE PROCEDURE set_in_procedure(n int) LANGUAGE plpgsql AS
                 $$ BEGIN PERFORM set_config('work_mem', n || '9MB', false); END $$;
             CREATE FUNCTION fill_in_function(n int) RETURNS int LANGUAGE plpgsql AS
                 $$ BEGIN EXECUTE format('CREATE TEMP TABLE t%s AS SELECT 10 + %s AS x', n, n); RETURN n; END $$;
             CREATE FUNCTION fill_by_another(n int) RETURNS int LANGUAGE sql AS 'SELECT fill_in_function(n)';
             CREATE FUNCTION lock_in_function(n int) RETURNS bool LANGUAGE sql AS
                 'SELECT pg_advisory_lock_shared(n) IS NULL';
             CREATE PROCEDURE listen_in_procedure(n int) LANGUAGE plpgsql AS
                 $$ BEGIN EXECUTE format('LISTEN l%s', n); END $$;
             CREATE TABLE audited (n int);
             CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN PERFORM public.fill_in_function(new.n), public.lock_in_function(new.n); RETURN NULL; END $$;
             CREATE TRIGGER audit BEFORE INSERT ON audited FOR EACH ROW EXECUTE FUNCTION audit();
             GRANT INSERT ON audited TO PUBLIC;
             CREATE FUNCTION keep_in_function() RETURNS int LANGUAGE plpgsql AS
                 $$ BEGIN EXECUTE 'DECLARE k CURSOR WITH HOLD FOR SELECT generate_series(1, 9)'; RETURN 1; END $$;
             DO $$ BEGIN FOR n IN 1..3 LOOP
                 EXECUTE format('CREATE ROLE twin_%s', n);
                 EXECUTE format('CREATE SCHEMA s%s', n);
                 EXECUTE format('CREATE TABLE s%s.only_in_%s AS SELECT %s AS x', n, n, n);
                 EXECUTE format('GRANT USAGE ON SCHEMA s%s TO PUBLIC', n);
                 EXECUTE format('GRANT SELECT ON s%s.only_in_%s TO PUBLIC', n, n);
             END LOOP; END $$",
        )
        .await
        .unwrap();
    shared().wait_caught_up().await.unwrap();
    let variables = [("TIDEGATE_POOL_SIZE", "7"), ("TIDEGATE_WORKERS", "1")];
    let proxy = Proxy::with(shared(), &variables).await;
    // Before, it is not known which functions set anything.
    proxy.wait_catalog(NAME).await;
    let seed = std::env::var("TWINS_SEED").ok().and_then(|s| s.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| rand::rng().random());
    let mut random = StdRng::seed_from_u64(seed);
    for round in 0..4 {
        let mut twins = Vec::new();
        for _ in 0..6 {
            let (through, alone) = (proxy.connect_to(NAME).await, connect(&direct).await);
            twins.push(Twin { through, alone, history: Vec::new(), kept: Vec::new() });
        }
        for step in 0..500 {
            let at = random.random_range(0..twins.len());
            let twin = &mut twins[at];
            let n = random.random_range(1..=3).to_string();
            let mut sql = OPERATIONS.choose(&mut random).unwrap().replace("{n}", &n);
            let way = random.random_range(0..7);
            twin.history.push(format!("{way}: {sql}"));
            let single = !sql.contains(';') && !sql.is_empty();
            let (through, alone) = match way {
                0 if single => (
                    answer_extended(&twin.through, &sql, false).await,
                    answer_extended(&twin.alone, &sql, false).await,
                ),
                1 if single => (
                    answer_extended(&twin.through, &sql, true).await,
                    answer_extended(&twin.alone, &sql, true).await,
                ),
                5 if single => {
                    let (through, alone) = (twin.through.prepare(&sql).await, twin.alone.prepare(&sql).await);
                    let told = |e: &tokio_postgres::Error| e.as_db_error().map(|e| e.message().to_owned());
                    let errors = [through.as_ref().err().and_then(told), alone.as_ref().err().and_then(told)];
                    // Of one that was prepared before its cursor was declared, PostgreSQL sends rows that it has not described.
                    if let (Ok(through), Ok(alone)) = (through, alone)
                        && !sql.starts_with("FETCH")
                    {
                        twin.kept.push((through, alone, sql.clone()));
                    }
                    errors.map(Option::unwrap_or_default).into()
                }
                6 if !twin.kept.is_empty() => {
                    let (through, alone, text) = &twin.kept[random.random_range(0..twin.kept.len())];
                    sql.clone_from(text);
                    twin.history.push(format!("{way}, which is: {sql}"));
                    (answer_kept(&twin.through, through).await, answer_kept(&twin.alone, alone).await)
                }
                _ => (answer(&twin.through, &sql).await, answer(&twin.alone, &sql).await),
            };
            // Nobody can see that this procedure listens, and so it stays on the replica of a READ ONLY transaction.
            let hidden = sql.starts_with("CALL listen_in")
                && (through.as_str(), alone.as_str())
                    == ("25006 cannot execute LISTEN during recovery", "done 0")
                && answer(&twin.through, "SHOW tidegate.pins").await.starts_with("25P02");
            if hidden || through.contains("READ ONLY transaction that has read from a replica") {
                // The one thing that does not work: what binds a session, behind a read in such a transaction.
                twin.history.push("2: ROLLBACK".to_owned());
                assert_eq!(answer(&twin.through, "ROLLBACK").await, "done 0");
                answer(&twin.alone, "ROLLBACK").await;
                // What a PREPARE, a LISTEN or a function that locks had done there outlives it.
                let undo = "DEALLOCATE ALL; UNLISTEN *; SELECT pg_advisory_unlock_all()";
                answer(&twin.alone, undo).await;
                answer(&twin.through, undo).await;
                continue;
            }
            let (through, alone) = (without_history(through), without_history(alone));
            let state = answer(&twin.through, "SHOW tidegate.last_route").await
                + &answer(&twin.through, "SHOW tidegate.pins").await;
            assert_eq!(
                through,
                alone,
                "TWINS_SEED={seed}, round {round}, step {step}, {state}; this session's history:\n{}",
                twin.history.join("\n")
            );
        }
    }
}
