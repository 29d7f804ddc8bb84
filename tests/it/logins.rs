//! What is believed of roles at logins: for how long, and where from.

use std::fs;
use std::time::Instant;

use tokio_postgres::{Client, Error, NoTls};

use crate::support::guarded::guarded;
use crate::support::proxy::{PATIENCE, value};
use crate::support::{Proxy, shared};

const BY_SCRAM: &str = "host all all all scram-sha-256";

/// So long that no test sees the end of what was believed at first.
const LONG: (&str, &str) = ("TIDEGATE_AUTH_CACHE", "5min");

async fn log_in(proxy: &Proxy, user: &str, password: &str) -> Result<Client, Error> {
    let url = format!("postgres://{user}:{password}@127.0.0.1:{}/postgres", proxy.port);
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The SQLSTATE of a login that is refused.
async fn refusal(proxy: &Proxy, user: &str, password: &str) -> String {
    let error = log_in(proxy, user, password).await.expect_err("they are let in");
    error.as_db_error().map_or_else(|| error.to_string(), |told| told.code().code().to_owned())
}

/// Waits until that role comes in with that password.
async fn comes_in(proxy: &Proxy, user: &str, password: &str) -> Client {
    let began = Instant::now();
    loop {
        match log_in(proxy, user, password).await {
            Ok(client) => return client,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{user} never comes in: {error:?}"),
        }
    }
}

/// Who fails by what is believed has the database asked anew: nobody waits for `auth.cache` to be over.
#[tokio::test]
async fn a_failed_login_has_the_role_asked_for_anew() {
    let cluster = guarded(0, "CREATE ROLE anna LOGIN PASSWORD 'first'", BY_SCRAM).await;
    let proxy = Proxy::with(&cluster, &[("TIDEGATE_AUTH", "scram"), LONG]).await;
    log_in(&proxy, "anna", "first").await.unwrap();
    cluster.primary().execute("ALTER ROLE anna PASSWORD 'second'").await.unwrap();
    let client = comes_in(&proxy, "anna", "second").await;
    assert_eq!(value(&client, "SELECT current_user").await, "anna");
    assert_eq!(refusal(&proxy, "anna", "first").await, "28P01");
}

/// The same where there is no password: a role that was not there is not taken for missing ever after.
#[tokio::test]
async fn a_role_that_was_missing_is_asked_for_anew() {
    let proxy = Proxy::with(shared(), &[("TIDEGATE_AUTH", "trust"), LONG]).await;
    assert_eq!(refusal(&proxy, "logins_late", "").await, "28000");
    shared().primary().execute("CREATE ROLE logins_late LOGIN").await.unwrap();
    shared().wait_caught_up().await.unwrap();
    let client = comes_in(&proxy, "logins_late", "").await;
    assert_eq!(value(&client, "SELECT current_user").await, "logins_late");
}

/// A verifier in the configuration is enough where the monitor may not read those of the database.
#[tokio::test]
async fn a_configured_verifier_needs_no_question() {
    let roles = "CREATE ROLE anna LOGIN PASSWORD 'secret'; CREATE ROLE bert LOGIN PASSWORD 'secret';
                 CREATE ROLE watcher LOGIN; GRANT pg_monitor TO watcher";
    let cluster = guarded(1, roles, BY_SCRAM).await;
    let admin = cluster.primary().connect().await.unwrap();
    let verifier = value(&admin, "SELECT rolpassword FROM pg_authid WHERE rolname = 'anna'").await;
    let file = std::env::temp_dir().join(format!("tidegate-verifier-{}.toml", std::process::id()));
    fs::write(&file, format!("[[auth.users]]\nname = 'anna'\nverifier = '{verifier}'\n")).unwrap();
    let watched = |url: String| url.replacen("postgres@", "watcher@", 1);
    let urls: Vec<_> = cluster.servers().iter().map(|server| watched(server.url())).collect();
    let variables = [("TIDEGATE_CONFIG", file.to_str().unwrap()), ("TIDEGATE_AUTH", "scram")];
    let proxy = Proxy::before(&urls, &variables).await;
    let client = log_in(&proxy, "anna", "secret").await.unwrap();
    client.batch_execute("CREATE TEMP TABLE t (n int)").await.unwrap();
    assert_eq!(value(&client, "SELECT session_user").await, "anna");
    assert_eq!(refusal(&proxy, "anna", "wrong").await, "28P01");
    // Of all others nothing can be known.
    assert_eq!(refusal(&proxy, "bert", "secret").await, "57P03");
    fs::remove_file(&file).unwrap();
}
