//! The same messages, sent to PostgreSQL and through the proxy, are answered with the same bytes.
//!
//! Each scene is a list of turns: what is sent at once, and what to wait for. What may differ is blanked on both
//! sides: the process id of the client itself, and the source lines of fatal errors. Parameters reported while logging in are left out.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BytesMut;
use tidegate::wire::build;

use crate::support::peer::{Peer, Script};
use crate::support::proxy::connect;
use crate::support::{Proxy, shared};

/// How a turn ends.
#[derive(Clone, Copy)]
enum Until {
    /// At so many ReadyForQuery.
    Ready(usize),
    /// At the first message of this type, such as what a Flush brings, or CopyInResponse.
    Tag(u8),
    /// At the end of the connection.
    End,
}
use Until::{End, Ready, Tag};

struct Scene {
    name: &'static str,
    turns: Vec<(BytesMut, Until)>,
}

fn scene<const N: usize>(name: &'static str, turns: [(Script, Until); N]) -> Scene {
    Scene { name, turns: turns.into_iter().map(|(script, until)| (script.0, until)).collect() }
}

fn s() -> Script {
    Script::default()
}

/// What a scene is answered with, a line per message.
fn play(port: u16, database: &str, scene: &Scene, chunk: usize) -> Vec<String> {
    let (mut peer, own) = enter(port, database);
    let mut lines = Vec::new();
    for (bytes, until) in &scene.turns {
        for piece in bytes.chunks(chunk) {
            match until {
                // Its first byte may be enough for whoever is to hang up.
                End if peer.stream.write_all(piece).is_err() => break,
                End => {}
                Ready(_) | Tag(_) => peer.send(piece),
            }
        }
        let mut ready = 0;
        loop {
            let Some((tag, mut body)) = peer.receive() else {
                lines.push("the end".to_owned());
                assert!(matches!(until, End), "{}: {lines:#?}", scene.name);
                break;
            };
            if tag == b'A' && body[..4] == own {
                body[..4].copy_from_slice(b"mine");
            } else if tag == b'E' && body.starts_with(b"SFATAL") {
                // Some of these are ours to say: without PostgreSQL's source file and line.
                let source = body.windows(2).position(|w| w == b"\0F");
                body.truncate(source.unwrap_or(body.len() - 2));
            }
            lines.push(format!("{} {}", char::from(tag), body.escape_ascii()));
            ready += usize::from(tag == b'Z');
            match until {
                Ready(n) if ready == *n => break,
                Tag(wanted) if tag == *wanted => break,
                _ => {}
            }
        }
    }
    lines
}

/// From the line before the first that differs.
fn difference(expected: &[String], got: &[String]) -> String {
    let same = expected.iter().zip(got).take_while(|(a, b)| a == b).count();
    let rest = |lines: &[String]| {
        lines[same.saturating_sub(1)..].iter().take(6).cloned().collect::<Vec<_>>().join("\n    ")
    };
    format!("  PostgreSQL:\n    {}\n  through the proxy:\n    {}", rest(expected), rest(got))
}

/// Scenes are played one after the other: on both sides they leave the database as they found it.
async fn same(name: &str, scenes: Vec<Scene>) {
    let direct = shared().primary().port;
    let database = format!("transcripts_{name}");
    crate::support::database(&database).await;
    let client = connect(&format!("postgres://postgres@127.0.0.1:{direct}/{database}")).await;
    client.batch_execute("CREATE TABLE numbers AS SELECT generate_series(1, 10) AS n").await.unwrap();
    client.batch_execute("CREATE TABLE one (id int PRIMARY KEY, note text)").await.unwrap();
    // Few server connections, so that a turn seldom meets the one of the turn before.
    let proxy = Proxy::with(shared(), &[("TIDEGATE_POOL_SIZE", "4")]).await;
    let others = Others::start(proxy.port, &database);
    let mut different = Vec::new();
    for scene in scenes {
        let expected = tokio::task::block_in_place(|| play(direct, &database, &scene, usize::MAX));
        for chunk in [usize::MAX, 1] {
            let got = tokio::task::block_in_place(|| play(proxy.port, &database, &scene, chunk));
            if got != expected {
                different.push(format!(
                    "{} (in pieces of {chunk})\n{}",
                    scene.name,
                    difference(&expected, &got)
                ));
            }
        }
    }
    others.stop();
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// Other clients of the same pool, so that a session seldom meets the server connection that it had before.
struct Others {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Others {
    fn start(port: u16, database: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let other = |n: usize| {
            let stop = stop.clone();
            let database = database.to_owned();
            std::thread::spawn(move || {
                let (mut peer, _) = enter(port, &database);
                let set = format!("SET work_mem = '{}MB'; SET DateStyle = 'SQL'", n + 1);
                peer.send(&s().query(&set).parse("", "SELECT 'mine'").parse("a", "SELECT 'mine'").sync().0);
                assert_eq!(peer.tags(), "CCSZI");
                assert_eq!(peer.tags(), "11ZI");
                while !stop.load(Ordering::Relaxed) {
                    peer.send(&s().query("UPDATE numbers SET n = n WHERE n = 0").0);
                    assert_eq!(peer.tags(), "CZI");
                    peer.send(&s().bind("a").execute().sync().0);
                    let all = peer.until(b'Z');
                    let tags: String = all.iter().map(|m| char::from(m.0)).collect();
                    assert_eq!(
                        tags,
                        "2DCZ",
                        "{:?}",
                        all.iter().map(|m| String::from_utf8_lossy(&m.1).into_owned()).collect::<Vec<_>>()
                    );
                }
            })
        };
        let threads = (0..3).map(other).collect();
        Self { stop, threads }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

/// A client that is in, and its process id.
fn enter(port: u16, database: &str) -> (Peer, [u8; 4]) {
    let mut peer = Peer::open(port);
    peer.stream.set_nodelay(true).unwrap();
    let mut packet = BytesMut::new();
    build::startup(&mut packet, &[("user", "postgres"), ("database", database)]);
    peer.send(&packet);
    let told = peer.until(b'Z');
    let key = told.iter().find(|(tag, _)| *tag == b'K').unwrap();
    let own = key.1[..4].try_into().unwrap();
    (peer, own)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn portals_are_suspended_resumed_and_ended_as_in_postgresql() {
    let rows = "SELECT n FROM numbers ORDER BY n";
    same(
        "portals",
        vec![
            scene(
                "rows in portions",
                [(
                    s().parse("", rows)
                        .bind_portal("", "", &[])
                        .describe_portal("")
                        .execute_portal("", 3)
                        .execute_portal("", 3)
                        .execute_portal("", 0)
                        .execute_portal("", 1)
                        .sync(),
                    Ready(1),
                )],
            ),
            scene(
                "portions with a flush between",
                [
                    (
                        s().parse("p", rows).bind_portal("x", "p", &[]).execute_portal("x", 4).bare(b'H'),
                        Tag(b's'),
                    ),
                    (s().execute_portal("x", 4).bare(b'H'), Tag(b's')),
                    (s().execute_portal("x", 4).bare(b'H'), Tag(b'C')),
                    (s().close_portal("x").sync(), Ready(1)),
                    (s().execute_portal("x", 1).sync(), Ready(1)),
                ],
            ),
            scene(
                "several portals of one statement in a transaction",
                [
                    (s().query("BEGIN"), Ready(1)),
                    (s().parse("p", "SELECT n FROM numbers WHERE n > $1 ORDER BY n").sync(), Ready(1)),
                    (s().bind_portal("a", "p", &["2"]).bind_portal("b", "p", &["5"]).sync(), Ready(1)),
                    (
                        s().execute_portal("a", 1).execute_portal("b", 2).execute_portal("a", 1).sync(),
                        Ready(1),
                    ),
                    (s().query("SELECT 'between'"), Ready(1)),
                    (s().describe_portal("b").execute_portal("b", 0).close_portal("a").sync(), Ready(1)),
                    (s().execute_portal("a", 0).sync(), Ready(1)),
                    (s().query("SELECT 1"), Ready(1)),
                    (s().query("ROLLBACK"), Ready(1)),
                    (s().describe_portal("b").sync(), Ready(1)),
                    (s().bind_portal("c", "p", &["9"]).execute_portal("c", 0).sync(), Ready(1)),
                ],
            ),
            scene(
                "a portal ends with its pipeline",
                [
                    (s().parse("p", rows).bind_portal("a", "p", &[]).execute_portal("a", 1).sync(), Ready(1)),
                    (s().execute_portal("a", 1).sync(), Ready(1)),
                    (s().describe_portal("a").sync(), Ready(1)),
                    (s().close_portal("never").sync(), Ready(1)),
                ],
            ),
            scene(
                "a read only transaction with portals",
                [
                    (s().query("BEGIN READ ONLY"), Ready(1)),
                    (s().parse("", rows).bind_portal("a", "", &[]).execute_portal("a", 2).sync(), Ready(1)),
                    (s().execute_portal("a", 2).bare(b'H'), Tag(b's')),
                    (s().sync(), Ready(1)),
                    (s().parse("", "COMMIT").bind("").execute().sync(), Ready(1)),
                ],
            ),
            scene(
                "cursors of SQL and portals are one and the same",
                [
                    (s().query("BEGIN; DECLARE c CURSOR FOR SELECT n FROM numbers ORDER BY n"), Ready(1)),
                    (s().execute_portal("c", 2).sync(), Ready(1)),
                    (s().query("FETCH 2 FROM c; MOVE 1 IN c"), Ready(1)),
                    (s().describe_portal("c").close_portal("c").sync(), Ready(1)),
                    (s().query("FETCH c"), Ready(1)),
                    (s().query("COMMIT"), Ready(1)),
                ],
            ),
            scene(
                "the unnamed portal is replaced, a named one is not",
                [(
                    s().parse("", rows)
                        .bind_portal("", "", &[])
                        .execute_portal("", 1)
                        .bind_portal("", "", &[])
                        .execute_portal("", 1)
                        .bind_portal("a", "", &[])
                        .bind_portal("a", "", &[])
                        .execute_portal("a", 1)
                        .sync(),
                    Ready(1),
                )],
            ),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_are_described_replaced_and_missed_as_in_postgresql() {
    same(
        "statements",
        vec![
            scene(
                "described before anything",
                [
                    (s().describe("").sync(), Ready(1)),
                    (s().describe("none").sync(), Ready(1)),
                    (s().describe_portal("").sync(), Ready(1)),
                    (s().bind("").execute().sync(), Ready(1)),
                    (s().bind("none").sync(), Ready(1)),
                    (s().execute().sync(), Ready(1)),
                    (s().close("none").close("").sync(), Ready(1)),
                ],
            ),
            scene(
                "the unnamed statement",
                [
                    (s().parse("", "SELECT 1").sync(), Ready(1)),
                    (s().bind("").execute().sync(), Ready(1)),
                    (s().bind("").execute().sync(), Ready(1)),
                    (s().parse("", "SELECT 2").describe("").sync(), Ready(1)),
                    (s().bind("").execute().sync(), Ready(1)),
                    (s().query("SELECT 3"), Ready(1)),
                    (s().bind("").execute().sync(), Ready(1)),
                    (s().parse("", "SELECT 4").parse("", "nonsense").sync(), Ready(1)),
                    (s().bind("").execute().sync(), Ready(1)),
                    (s().parse("", "SELECT 5").close("").sync(), Ready(1)),
                    (s().bind("").execute().sync(), Ready(1)),
                ],
            ),
            scene(
                "parameters",
                [
                    (s().parse("p", "SELECT $1::int + $2").describe("p").sync(), Ready(1)),
                    (s().bind_portal("", "p", &["1", "2"]).describe_portal("").execute().sync(), Ready(1)),
                    (s().bind_portal("", "p", &["1"]).execute().sync(), Ready(1)),
                    (s().bind_portal("", "p", &["1", "x"]).execute().sync(), Ready(1)),
                    (s().parse("q", "SELECT $1").message(b'D', b"Sq\0").sync(), Ready(1)),
                    (s().message(b'P', b"r\0SELECT $1\0\0\x01\0\0\0\x17").describe("r").sync(), Ready(1)),
                    (s().bind_portal("", "r", &["7"]).execute().sync(), Ready(1)),
                    (s().message(b'P', b"t\0SELECT $1\0\0\x01\0\0\xff\x17").describe("t").sync(), Ready(1)),
                ],
            ),
            scene(
                "results in binary",
                [(
                    s().parse("p", "SELECT 1::int8, 2.5::float8")
                        .message(b'B', b"\0p\0\0\0\0\0\0\x01\0\x01")
                        .describe_portal("")
                        .execute()
                        .sync(),
                    Ready(1),
                )],
            ),
            scene(
                "one name space for SQL and protocol",
                [
                    (s().query("PREPARE a AS SELECT 1"), Ready(1)),
                    (s().bind("a").execute().describe("a").sync(), Ready(1)),
                    (s().parse("a", "SELECT 2").sync(), Ready(1)),
                    (s().parse("b", "SELECT 3").sync(), Ready(1)),
                    (s().query("EXECUTE b"), Ready(1)),
                    (s().query("DEALLOCATE b"), Ready(1)),
                    (s().bind("b").execute().sync(), Ready(1)),
                    (s().close("a").sync(), Ready(1)),
                    (s().query("EXECUTE a"), Ready(1)),
                    (s().parse("c", "SELECT 4").sync().query("DISCARD ALL"), Ready(2)),
                    (s().bind("c").execute().sync(), Ready(1)),
                ],
            ),
            scene(
                "SQL speaks of what messages have prepared",
                [
                    (s().parse("b", "SELECT $1::int + 1").parse("d", "SELECT 4").sync(), Ready(1)),
                    (s().query("EXECUTE b(41)"), Ready(1)),
                    (s().query("CREATE TEMP TABLE made (a) AS EXECUTE d; SELECT a + 0 FROM made"), Ready(1)),
                    (s().query("PREPARE b AS SELECT 5"), Ready(1)),
                    (s().query("SELECT 1/0; EXECUTE d"), Ready(1)),
                    (s().query("BEGIN; SELECT 1/0"), Ready(1)),
                    (s().query("EXECUTE d"), Ready(1)),
                    (s().query("ROLLBACK"), Ready(1)),
                    (s().parse("", "EXECUTE d").bind("").execute().sync(), Ready(1)),
                    (s().parse("d", "SELECT 6").sync(), Ready(1)),
                    (s().parse("e", "SELECT 7").sync().query("EXECUTE E"), Ready(2)),
                    (s().bind("e").execute().describe("e").close("e").bind("e").sync(), Ready(1)),
                    (s().query("DEALLOCATE b; DEALLOCATE d"), Ready(1)),
                    (s().parse("b", "SELECT 8").bind("b").execute().sync(), Ready(1)),
                    (s().query("DEALLOCATE ALL"), Ready(1)),
                    (s().bind("b").sync(), Ready(1)),
                    (s().query("PREPARE e AS SELECT 9; EXECUTE e; DEALLOCATE e"), Ready(1)),
                ],
            ),
            scene(
                "SQL speaks twice of one that messages have prepared, in a transaction",
                [
                    (s().parse("b", "SELECT $1::int + 1").sync().query("BEGIN"), Ready(2)),
                    (s().query("EXECUTE b(41); EXECUTE b(42)"), Ready(1)),
                    (s().query("COMMIT"), Ready(1)),
                ],
            ),
            scene(
                "one that was described before definitions changed is bound twice in a transaction",
                [
                    (s().parse("p", "SELECT 1 + 0").describe("p").bind("p").execute().sync(), Ready(1)),
                    (s().query("CREATE TABLE other (a int)"), Ready(1)),
                    (s().query("BEGIN"), Ready(1)),
                    (s().bind("p").execute().bind("p").execute().sync(), Ready(1)),
                    (s().query("COMMIT; DROP TABLE other"), Ready(1)),
                ],
            ),
            scene(
                "SQL explains what messages have prepared",
                [
                    (s().parse("f", "SELECT $1::int + 1").parse("g", "SELECT 4").sync(), Ready(1)),
                    (s().query("EXPLAIN (VERBOSE, FORMAT JSON) EXECUTE f(NULL)"), Ready(1)),
                    (s().parse("h", "EXPLAIN EXECUTE g").sync(), Ready(1)),
                    (s().bind("h").execute().sync(), Ready(1)),
                    (s().bind("g").execute().sync(), Ready(1)),
                ],
            ),
            scene(
                "names of any kind",
                [
                    (s().parse("\"quoted\"", "SELECT 1").bind("\"quoted\"").execute().sync(), Ready(1)),
                    (s().parse("Große", "SELECT 2").sync().query("EXECUTE \"Große\""), Ready(2)),
                    (
                        s().parse(&"long".repeat(100), "SELECT 3").bind(&"long".repeat(100)).execute().sync(),
                        Ready(1),
                    ),
                    (s().describe(&"none".repeat(40)).sync(), Ready(1)),
                ],
            ),
            scene(
                "empty ones",
                [
                    (
                        s().parse("e", "").describe("e").bind("e").describe_portal("").execute().sync(),
                        Ready(1),
                    ),
                    (s().parse("e2", " -- nothing\n").bind("e2").execute().sync(), Ready(1)),
                    (s().query(""), Ready(1)),
                    (s().query(" ; ;/**/"), Ready(1)),
                    (s().query("-- nothing"), Ready(1)),
                ],
            ),
            scene(
                "two commands in one statement",
                [(s().parse("m", "SELECT 1; SELECT 2").sync(), Ready(1)), (s().bind("m").sync(), Ready(1))],
            ),
            scene(
                "a cached plan whose result type changed",
                [
                    (s().query("CREATE TABLE changing (a int)"), Ready(1)),
                    (
                        s().parse("p", "SELECT a + 0 FROM changing").describe("p").bind("p").execute().sync(),
                        Ready(1),
                    ),
                    (s().query("DROP TABLE changing"), Ready(1)),
                    (s().bind("p").execute().sync(), Ready(1)),
                ],
            ),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelines_and_implicit_transactions_end_as_in_postgresql() {
    same(
        "pipelines",
        vec![
            scene(
                "several statements in one Query are one transaction",
                [
                    (s().query("INSERT INTO one VALUES (1); SELECT 1/0; SELECT 2"), Ready(1)),
                    (s().query("SELECT count(*) FROM one"), Ready(1)),
                    (s().query("INSERT INTO one VALUES (1); COMMIT; SELECT 1/0"), Ready(1)),
                    (s().query("SELECT count(*) FROM one"), Ready(1)),
                    (s().query("DELETE FROM one; BEGIN; SELECT 'in'"), Ready(1)),
                    (s().query("SELECT 1; COMMIT; SELECT 'out'; BEGIN"), Ready(1)),
                    (s().query("ROLLBACK; ROLLBACK"), Ready(1)),
                    (s().query("SELECT 1; ROLLBACK; SELECT 2"), Ready(1)),
                    (s().query("SELECT 1; syntax error here; SELECT 2"), Ready(1)),
                    (s().query("SELECT 1; SAVEPOINT a; SELECT 2"), Ready(1)),
                    (s().query("SET work_mem = '77kB'; SELECT 1/0"), Ready(1)),
                    (s().query("SHOW work_mem"), Ready(1)),
                    (s().query("SET work_mem = '99kB'; COMMIT; SELECT 1/0"), Ready(1)),
                    (s().query("SHOW work_mem"), Ready(1)),
                ],
            ),
            scene(
                "a pipeline is one transaction",
                [
                    (
                        s().parse("i", "INSERT INTO one VALUES (5)")
                            .bind("i")
                            .execute()
                            .parse("z", "SELECT 1/(n-1) FROM numbers ORDER BY n")
                            .bind("z")
                            .execute()
                            .bind("i")
                            .execute()
                            .sync()
                            .query("SELECT count(*) FROM one"),
                        Ready(2),
                    ),
                    (s().bind("i").execute().sync().query("DELETE FROM one"), Ready(2)),
                    (s().bind("i").sync().execute().sync(), Ready(2)),
                ],
            ),
            scene(
                "commands of transactions within a pipeline",
                [
                    (
                        s().parse("", "BEGIN")
                            .bind("")
                            .execute()
                            .parse("", "SELECT 1")
                            .bind("")
                            .execute()
                            .parse("", "COMMIT")
                            .bind("")
                            .execute()
                            .sync(),
                        Ready(1),
                    ),
                    (s().parse("b", "BEGIN").bind("b").execute().sync(), Ready(1)),
                    (s().parse("", "SELECT 1/0").bind("").execute().sync(), Ready(1)),
                    (s().parse("", "SELECT 1").sync(), Ready(1)),
                    (s().query("SELECT 1"), Ready(1)),
                    (s().parse("", "COMMIT").bind("").execute().sync(), Ready(1)),
                    (s().query("COMMIT"), Ready(1)),
                ],
            ),
            scene(
                "many Syncs, and Queries among them",
                [
                    (s().sync().sync().query("SELECT 1").sync().bare(b'H').sync(), Ready(5)),
                    (
                        s().parse("", "nonsense").sync().parse("", "SELECT 1").bind("").execute().sync(),
                        Ready(2),
                    ),
                    (s().parse("", "nonsense").query("SELECT 1").sync(), Ready(1)),
                    (s().parse("", "SELECT 1").bind("").execute().query("SELECT 2").sync(), Ready(2)),
                ],
            ),
            scene(
                "an error that a Flush brings",
                [
                    (s().parse("", "SELECT 1/0").bind("").execute().bare(b'H'), Tag(b'E')),
                    (s().parse("", "SELECT 1").bind("").bare(b'H').execute().sync(), Ready(1)),
                    (s().query("SELECT 1"), Ready(1)),
                ],
            ),
            scene(
                "savepoints",
                [
                    (s().query("BEGIN; SAVEPOINT a; INSERT INTO one VALUES (1); SELECT 1/0"), Ready(1)),
                    (s().query("SELECT 1"), Ready(1)),
                    (s().query("ROLLBACK TO a"), Ready(1)),
                    (s().query("SELECT count(*) FROM one; RELEASE a"), Ready(1)),
                    (s().query("RELEASE a"), Ready(1)),
                    (s().query("COMMIT AND CHAIN"), Ready(1)),
                    (s().query("ROLLBACK AND CHAIN"), Ready(1)),
                    (s().query("COMMIT"), Ready(1)),
                    (s().query("COMMIT AND CHAIN"), Ready(1)),
                    (s().query("SAVEPOINT outside"), Ready(1)),
                    (s().query("SET LOCAL work_mem = '1MB'"), Ready(1)),
                    (s().query("PREPARE TRANSACTION 'x'"), Ready(1)),
                ],
            ),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_copies_notices_and_reports_are_the_same() {
    same("copies", vec![
        scene(
            "fast-path calls",
            [
                // int4pl, float8out, and one that is not there.
                (s().call(177, &["19", "23"]), Ready(1)),
                (s().call(177, &["19", "x"]), Ready(1)),
                (s().call(177, &["19"]), Ready(1)),
                (s().call(4_000_000_000, &[]), Ready(1)),
                (s().query("BEGIN").call(177, &["1", "2"]), Ready(2)),
                (s().call(177, &["x", "2"]).call(177, &["1", "2"]), Ready(2)),
                (s().query("ROLLBACK").call(177, &["1", "2"]).query("SELECT 1"), Ready(3)),
                (s().parse("", "SELECT 1").bind("").execute().call(177, &["1", "2"]).sync(), Ready(2)),
            ],
        ),
        scene(
            "notices and warnings",
            [
                (s().query("DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two'; END $$"), Ready(1)),
                (s().query("COMMIT; ROLLBACK"), Ready(1)),
                (s().query("SET client_min_messages = error"), Ready(1)),
                (s().query("COMMIT"), Ready(1)),
                (s().query("DO $$ BEGIN RAISE WARNING 'never seen'; END $$"), Ready(1)),
                (s().query("RESET client_min_messages; DROP TABLE IF EXISTS not_there"), Ready(1)),
                (
                    s().parse("", "DROP TABLE IF EXISTS not_there").bind("").execute().sync(),
                    Ready(1),
                ),
                (s().query("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'P1234', MESSAGE = 'm', DETAIL = 'd', HINT = 'h', TABLE = 't', COLUMN = 'c', CONSTRAINT = 'k', DATATYPE = 'y', SCHEMA = 's'; END $$"), Ready(1)),
            ],
        ),
        scene(
            "reported settings",
            [
                (s().query("SET application_name = 'a'"), Ready(1)),
                (s().query("BEGIN; SET TimeZone = 'Europe/Berlin'; SET DateStyle = 'German'"), Ready(1)),
                (s().query("SELECT timestamptz '2026-01-01 00:00 UTC'"), Ready(1)),
                (s().query("ROLLBACK"), Ready(1)),
                (s().parse("", "SET IntervalStyle = iso_8601").bind("").execute().sync(), Ready(1)),
                (s().query("SELECT interval '1 day'"), Ready(1)),
                (s().query("SELECT set_config('application_name', 'b', false)"), Ready(1)),
                (s().query("SET LOCAL application_name = 'c'; SHOW application_name"), Ready(1)),
                (s().query("SET client_encoding = 'LATIN1'"), Ready(1)),
                (s().query("SELECT chr(228)"), Ready(1)),
                (s().query("RESET ALL"), Ready(1)),
                (s().query("SELECT chr(228), interval '1 day'"), Ready(1)),
            ],
        ),
        scene(
            "notifications to oneself",
            [
                (s().query("LISTEN here"), Ready(1)),
                (s().query("NOTIFY here, 'one'"), Ready(1)),
                (s().query("BEGIN; NOTIFY here, 'two'; NOTIFY elsewhere"), Ready(1)),
                (s().query("COMMIT"), Ready(1)),
                (s().query("SELECT pg_notify('here', 'three')"), Ready(1)),
                (s().query("UNLISTEN here; NOTIFY here, 'four'"), Ready(1)),
            ],
        ),
        scene(
            "copies in and out",
            [
                (s().query("COPY one FROM STDIN"), Tag(b'G')),
                (s().data("1\tone\n").data("2\ttwo\n").bare(b'c'), Ready(1)),
                (s().query("COPY one TO STDOUT"), Ready(1)),
                (s().query("SELECT 1; COPY one TO STDOUT; SELECT 2; COPY one FROM STDIN; SELECT 3"), Tag(b'G')),
                (s().data("3\tthree\n").bare(b'c'), Ready(1)),
                (s().query("COPY one FROM STDIN"), Tag(b'G')),
                (s().data("3\tagain\n").message(b'f', b"enough\0"), Ready(1)),
                (s().query("COPY one FROM STDIN"), Tag(b'G')),
                (s().data("x\n").data("4\tfour\n").bare(b'c'), Ready(1)),
                (s().query("SELECT * FROM one ORDER BY id"), Ready(1)),
                (s().bare(b'c').message(b'f', b"stray\0").data("stray").query("DELETE FROM one"), Ready(1)),
                // A Query instead of the data.
                (s().query("COPY one FROM STDIN"), Tag(b'G')),
                (s().query("SELECT 1"), End),
            ],
        ),
        scene(
            "copies in pipelines",
            [
                (s().parse("", "COPY one FROM STDIN").bind("").execute().bare(b'H'), Tag(b'G')),
                (s().data("1\tone\n").bare(b'c').sync(), Ready(1)),
                (s().parse("", "COPY one TO STDOUT").bind("").describe_portal("").execute().sync(), Ready(1)),
                (s().parse("", "COPY one FROM STDIN").bind("").execute().bare(b'H'), Tag(b'G')),
                (s().message(b'f', b"enough\0").sync(), Ready(1)),
                (s().parse("", "COPY one FROM STDIN").bind("").execute().sync(), Tag(b'G')),
                (s().bare(b'c').sync(), Ready(1)),
                (s().query("DELETE FROM one"), Ready(1)),
            ],
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timeouts_and_ends_are_the_same() {
    same(
        "ends",
        vec![
            scene(
                "statement and lock timeouts",
                [
                    (s().query("SET statement_timeout = '20ms'"), Ready(1)),
                    (s().query("SELECT pg_sleep(60)"), Ready(1)),
                    (s().parse("", "SELECT pg_sleep(60)").bind("").execute().sync(), Ready(1)),
                    (s().query("BEGIN; SET LOCAL statement_timeout = 0; SELECT 1"), Ready(1)),
                    (s().query("ROLLBACK"), Ready(1)),
                    (s().query("SHOW statement_timeout"), Ready(1)),
                ],
            ),
            scene(
                "idle in a transaction",
                [
                    (s().query("SET idle_in_transaction_session_timeout = '20ms'"), Ready(1)),
                    (s().query("BEGIN"), End),
                ],
            ),
            scene("idle", [(s().query("SET idle_session_timeout = '20ms'"), End)]),
            scene(
                "idle, after a while in a transaction",
                [
                    (s().query("BEGIN; SET idle_session_timeout = '50ms'"), Ready(1)),
                    (s().query("SELECT pg_sleep(0.1)"), Ready(1)),
                    (s().query("ROLLBACK"), Ready(1)),
                    (s().query("SELECT set_config('idle_session_timeout', '30ms', false)"), End),
                ],
            ),
            scene("ended by the client", [(s().query("SELECT 1"), Ready(1)), (s().bare(b'X'), End)]),
        ],
    )
    .await;
}
