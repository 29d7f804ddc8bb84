//! A monitor that is no superuser, and what logins are told of roles.

use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidegate::app::cli::RunArgs;
use tidegate::app::load;
use tidegate::auth::RoleSecret;
use tidegate::demo::cluster::Cluster;
use tidegate::monitor::{Clock, LookupError, Monitor, Published, Verifiers};
use tidegate::net::Connector;
use tokio::task::LocalSet;

use crate::support::{Proxy, shared};

const TTL: Duration = Duration::from_secs(10);

/// The nodes' URLs with another user.
fn urls(cluster: &Cluster, user: &str) -> Vec<String> {
    cluster.servers().iter().map(|s| s.url().replacen("postgres@", &format!("{user}@"), 1)).collect()
}

/// Runs what `tidegate check --print-setup` prints, twice.
pub(crate) fn set_up(admin: &str, user: &str) {
    let url = admin.replacen("postgres@", &format!("{user}:hunter2@"), 1);
    let printed = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["check", "--print-setup", "--auth", "trust", "--node", &url])
        .output()
        .unwrap();
    assert!(printed.status.success(), "{printed:?}");
    let sql = String::from_utf8(printed.stdout).unwrap();
    assert!(!sql.contains("hunter2"));
    // PostgreSQL lets no two sessions change the same object's grants at a time.
    static ONE_BY_ONE: Mutex<()> = Mutex::new(());
    let _turn = ONE_BY_ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let file = shared().dir().join("setup.sql");
    std::fs::write(&file, sql).unwrap();
    for _ in 0..2 {
        let done = Command::new("psql").args(["-Xq", "-d", admin, "-f"]).arg(&file).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    }
}

/// A monitor of its own, and its clock. To be called in a `LocalSet`.
async fn monitor(urls: Vec<String>, query: Option<&str>, ttl: Duration) -> (Monitor, Clock) {
    let args = RunArgs { nodes: urls, auth: Some("trust".to_owned()), ..RunArgs::default() };
    let (settings, clock) = (load::load(&args).unwrap(), Clock::start());
    let connectors = settings.nodes.iter().map(|n| Connector::new(n).unwrap()).collect();
    let query = query.map(str::to_owned);
    let (monitor, watch) = Monitor::start(Published::new(settings), connectors, 1, clock, query, ttl);
    tokio::task::spawn_local(watch.run());
    while monitor.topology.load().nodes.iter().any(|n| !n.up) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (monitor, clock)
}

fn password(found: Result<Option<RoleSecret>, LookupError>, clock: Clock) -> Option<String> {
    found.unwrap().and_then(|role| role.usable_password(clock.now()).map(str::to_owned))
}

#[tokio::test]
async fn a_monitor_that_is_no_superuser_sees_what_it_needs() {
    // Percent signs stand for a quote, a double quote and a space.
    let user = "monitor%27s%20%22one%22";
    set_up(&shared().primary().url(), user);
    shared().wait_caught_up().await.unwrap();
    let proxy = Proxy::before(&urls(shared(), user), &[]).await;
    let client = proxy.connect().await;
    client.batch_execute("CREATE TEMP TABLE x (id int)").await.unwrap();
    let lag = crate::support::proxy::rows(&client, "SHOW tidegate.lag").await;
    assert!(lag[1..].iter().all(|row| row.contains("|replica|t|0/")), "{lag:?}");
    let name = "monitor's \"\"one\"\"";
    let timeline = shared().replica(0).connect().await.unwrap();
    timeline.batch_execute(&format!("SET ROLE \"{name}\"")).await.unwrap();
    let row = timeline.query_one("SELECT received_tli FROM pg_stat_wal_receiver", &[]).await.unwrap();
    assert_eq!(row.get::<_, Option<i32>>(0), Some(1));
    let denied = timeline.batch_execute("SELECT rolpassword FROM pg_authid").await.unwrap_err();
    assert_eq!(denied.code().map(|c| c.code()), Some("42501"));
    // Nobody else may ask.
    let other = shared().primary().connect().await.unwrap();
    other.batch_execute("CREATE ROLE curious; SET ROLE curious").await.unwrap();
    let denied = other.batch_execute("SELECT tidegate.verifier('postgres')").await.unwrap_err();
    assert_eq!(denied.code().map(|c| c.code()), Some("42501"));
}

#[tokio::test]
async fn roles_are_told_as_the_database_has_them() {
    let admin = shared().primary().connect().await.unwrap();
    admin
        .batch_execute(
            "CREATE ROLE v_plain LOGIN PASSWORD 'a'; CREATE ROLE v_none LOGIN; CREATE ROLE v_group PASSWORD 'a';
             SET password_encryption = 'md5'; CREATE ROLE v_md5 LOGIN PASSWORD 'a';
             CREATE ROLE v_over LOGIN PASSWORD 'a' VALID UNTIL '2001-01-01';
             CREATE ROLE v_ago LOGIN PASSWORD 'a' VALID UNTIL '-infinity';
             CREATE ROLE v_ever LOGIN PASSWORD 'a' VALID UNTIL 'infinity'",
        )
        .await
        .unwrap();
    let soon = "DO $$BEGIN EXECUTE format('CREATE ROLE v_soon LOGIN PASSWORD ''a'' VALID UNTIL %L', now() + '1 hour'); END$$";
    admin.batch_execute(soon).await.unwrap();
    set_up(&shared().primary().url(), "verifying_monitor");
    shared().wait_caught_up().await.unwrap();
    for user in ["postgres", "verifying_monitor"] {
        let local = LocalSet::new();
        local
            .run_until(async {
                let (monitor, clock) = monitor(urls(shared(), user), None, TTL).await;
                let role = async |name: &str| monitor.verifiers.role(name, clock.now()).await;
                assert!(password(role("v_plain").await, clock).unwrap().starts_with("SCRAM-SHA-256$4096:"));
                assert!(password(role("v_md5").await, clock).unwrap().starts_with("md5"));
                assert!(password(role("v_ever").await, clock).is_some());
                assert_eq!(role("v_ever").await.unwrap().unwrap().expires, None);
                let left = role("v_soon").await.unwrap().unwrap().expires.unwrap() - clock.now();
                assert!((3_500..=3_600).contains(&left.as_secs()), "{left:?}");
                for name in ["v_none", "v_over", "v_ago"] {
                    assert_eq!(password(role(name).await, clock), None, "{name}");
                    assert!(role(name).await.unwrap().unwrap().can_login);
                }
                assert!(!role("v_group").await.unwrap().unwrap().can_login);
                assert!(password(role("postgres").await, clock).is_none());
                let long = "x".repeat(10_000);
                for nobody in ["", "V_PLAIN", "v_plain ", "v\0x", "' OR true --", "Ā💥", long.as_str()] {
                    assert_eq!(role(nobody).await, Ok(None), "{nobody:.20}");
                }
            })
            .await;
    }
}

#[tokio::test]
async fn a_changed_password_is_seen_after_a_failed_login_and_the_database_is_asked_once() {
    let admin = shared().primary().connect().await.unwrap();
    admin
        .batch_execute(
            "CREATE ROLE v_changing LOGIN PASSWORD 'a'; CREATE SEQUENCE v_asked;
             CREATE FUNCTION v_ask(n text) RETURNS text LANGUAGE sql AS
             $$SELECT pg_catalog.nextval('public.v_asked'); SELECT pg_catalog.pg_sleep(0.05);
               SELECT rolpassword FROM pg_catalog.pg_authid WHERE rolname = n$$",
        )
        .await
        .unwrap();
    let asked = async || -> i64 {
        admin
            .query_one("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM v_asked", &[])
            .await
            .unwrap()
            .get(0)
    };
    let local = LocalSet::new();
    local
        .run_until(async {
            let query = Some("SELECT public.v_ask($1)");
            let (monitor, clock) = monitor(urls(shared(), "postgres"), query, TTL).await;
            let verifiers = monitor.verifiers.clone();
            let storm: Vec<_> = (0..500)
                .map(|_| {
                    let verifiers: Arc<Verifiers> = verifiers.clone();
                    tokio::spawn(async move { verifiers.role("v_changing", clock.now()).await })
                })
                .collect();
            let mut seen = Vec::new();
            for login in storm {
                seen.extend(password(login.await.unwrap(), clock));
            }
            assert!(seen.len() == 500 && seen.iter().all(|p| *p == seen[0]));
            assert_eq!(asked().await, 1);
            admin.batch_execute("ALTER ROLE v_changing PASSWORD 'b'").await.unwrap();
            let now = clock.now();
            assert_eq!(password(verifiers.role("v_changing", now).await, clock).as_ref(), Some(&seen[0]));
            verifiers.login_failed("v_changing", now);
            tokio::time::sleep(Duration::from_secs(1)).await;
            let new = password(verifiers.role("v_changing", clock.now()).await, clock);
            assert!(new.is_some_and(|p| p != seen[0]));
            assert_eq!(asked().await, 2);
        })
        .await;
}

#[tokio::test]
async fn a_flood_of_names_stands_in_line_and_is_turned_away() {
    let local = LocalSet::new();
    local
        .run_until(async {
            let (monitor, clock) = monitor(urls(shared(), "postgres"), None, TTL).await;
            let began = clock.now();
            let flood: Vec<_> = (0..5_000)
                .map(|n| {
                    let verifiers = monitor.verifiers.clone();
                    tokio::spawn(async move { verifiers.role(&format!("v_{n}"), clock.now()).await })
                })
                .collect();
            let (mut none, mut busy) = (0, 0);
            for login in flood {
                match login.await.unwrap() {
                    Ok(None) => none += 1,
                    Err(LookupError::Busy) => busy += 1,
                    other => panic!("{other:?}"),
                }
            }
            let took = (clock.now() - began).as_secs_f64();
            assert!(
                none >= 2_000 && busy > 0 && f64::from(none) <= 1_000.0 * took + 200.0,
                "{none} in {took} s"
            );
            assert_eq!(monitor.verifiers.role("v_0", clock.now()).await, Ok(None));
        })
        .await;
}

#[tokio::test]
async fn what_cannot_be_asked_is_an_error_that_says_which() {
    let primary = shared().primary();
    // A function that anybody could have made is not taken for the one of the setup.
    let sql = "CREATE DATABASE v_elsewhere; CREATE ROLE v_unprivileged LOGIN; CREATE ROLE v_maker";
    for statement in sql.split(';') {
        primary.execute(statement).await.unwrap();
    }
    let elsewhere = |url: &str| format!("{}/v_elsewhere", url.strip_suffix("/postgres").unwrap());
    let url = elsewhere(&primary.url());
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
        .batch_execute(
            "CREATE SCHEMA tidegate AUTHORIZATION v_maker; GRANT USAGE ON SCHEMA tidegate TO PUBLIC;
             CREATE FUNCTION tidegate.verifier(text) RETURNS TABLE(password text, can_login bool, seconds_left float8)
             LANGUAGE sql AS $$SELECT 'forged', true, null::float8$$;
             ALTER FUNCTION tidegate.verifier(text) OWNER TO v_maker",
        )
        .await
        .unwrap();
    shared().wait_caught_up().await.unwrap();
    let urls: Vec<_> = urls(shared(), "v_unprivileged").iter().map(|url| elsewhere(url)).collect();
    for (query, expected) in [
        (None, LookupError::NotSetUp),
        (Some("SELECT no_such_column, $1"), LookupError::NotSetUp),
        (Some("SELECT usename, passwd FROM pg_shadow WHERE usename = $1"), LookupError::NotSetUp),
        (Some("SELECT passwd FROM pg_shadow WHERE usename = $1"), LookupError::NotSetUp),
        (Some("SELECT 'x'"), LookupError::NotSetUp),
        (Some("SELECT ($1 || 'x')::int::text"), LookupError::NotSetUp),
        (Some("SELECT g::text || $1 FROM generate_series(1, 2) AS g"), LookupError::NotSetUp),
        (Some("SELECT pg_sleep(30)::text || $1"), LookupError::Unavailable),
    ] {
        let local = LocalSet::new();
        local
            .run_until(async {
                let (monitor, clock) = monitor(urls.clone(), query, TTL).await;
                let found = monitor.verifiers.role("anna", clock.now()).await;
                assert_eq!(found, Err(expected), "{query:?}");
            })
            .await;
    }
    let local = LocalSet::new();
    local
        .run_until(async {
            let query = Some("SELECT password FROM tidegate.verifier($1)");
            let (monitor, clock) = monitor(urls.clone(), query, TTL).await;
            let found = monitor.verifiers.role("anna", clock.now()).await;
            assert_eq!(password(found, clock).as_deref(), Some("forged"), "named, it is taken");
        })
        .await;
    // The setup leaves nothing of it.
    set_up(&url, "v_unprivileged");
    shared().wait_caught_up().await.unwrap();
    let local = LocalSet::new();
    local
        .run_until(async {
            let (monitor, clock) = monitor(urls, None, TTL).await;
            assert_eq!(monitor.verifiers.role("anna", clock.now()).await, Ok(None));
            assert!(monitor.verifiers.role("v_maker", clock.now()).await.unwrap().is_some());
        })
        .await;
    let stolen = client.batch_execute("SET ROLE v_maker; SELECT tidegate.verifier('postgres')").await;
    assert_eq!(stolen.unwrap_err().code().map(|c| c.code()), Some("42501"));
}

#[tokio::test]
async fn replicas_tell_while_there_is_no_primary_and_broken_connections_are_made_anew() {
    let cluster = Cluster::start(1).unwrap();
    cluster.primary().execute("CREATE ROLE v LOGIN PASSWORD 'a'").await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    let local = LocalSet::new();
    local
        .run_until(async {
            let (monitor, clock) = monitor(urls(&cluster, "postgres"), None, Duration::ZERO).await;
            let role = async || password(monitor.verifiers.role("v", clock.now()).await, clock);
            assert!(role().await.is_some());
            let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tidegate logins'";
            cluster.primary().execute(kill).await.unwrap();
            assert!(role().await.is_some());
            cluster.kill(cluster.primary()).unwrap();
            while monitor.topology.load().primary.is_some() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(role().await.is_some());
            cluster.kill(cluster.replica(0)).unwrap();
            while monitor.topology.load().nodes.iter().any(|n| n.up) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert_eq!(monitor.verifiers.role("v", clock.now()).await, Err(LookupError::Unavailable));
            cluster.boot(cluster.primary()).unwrap();
            while monitor.topology.load().primary.is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert!(role().await.is_some());
        })
        .await;
}
