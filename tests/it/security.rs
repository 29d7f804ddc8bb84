//! Who comes in, and how both sides of the proxy are encrypted: by real clients, with a server that wants passwords.

use std::fs;
use std::future::poll_fn;
use std::process::{Command, Output};
use std::time::Instant;

use tidegate::config::settings::{ClientTls, KeyPair, NodeSettings};
use tidegate::config::url;
use tidegate::demo::cluster::{Cluster, Server};
use tidegate::net::listen::{Listener, listen_for_clients};
use tidegate::net::{Acceptor, Connector, Stream, Way, local_runtime, run, spawn};

use crate::support::Proxy;
use crate::support::certs::Certs;
use crate::support::guarded::{guarded, reload, set_rules};
use crate::support::proxy::{PATIENCE, connect, rows, signal, sqlstate, value};
use crate::support::psql::{answers, err, is_told, out, psql};

/// SCRAM, or md5 for roles of whom that is stored.
const BY_PASSWORD: &str = "host all all all md5";

const ROLES: &str = "\
    CREATE ROLE anna LOGIN PASSWORD 'first';
    CREATE ROLE ended LOGIN PASSWORD 'p' VALID UNTIL '2001-01-01';
    CREATE ROLE lasting LOGIN PASSWORD 'p' VALID UNTIL 'infinity';
    CREATE ROLE locked NOLOGIN PASSWORD 'p';
    CREATE ROLE bare LOGIN;
    SET password_encryption = 'md5';
    CREATE ROLE old LOGIN PASSWORD 'p';";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_role_comes_in_with_the_password_that_postgresql_has() {
    let cluster = guarded(1, ROLES, BY_PASSWORD).await;
    let admin = cluster.primary().connect().await.unwrap();
    // No list of users, no password anywhere.
    let rules = "host all old all md5; host all all all scram-sha-256";
    let proxy = Proxy::with(&cluster, &[("TIDEGATE_AUTH_RULES", rules), ("TIDEGATE_AUTH_CACHE", "2s")]).await;
    let at = |port: u16, user: &str, password: &str| {
        format!("host=127.0.0.1 port={port} dbname=postgres user={user} password={password}")
    };
    let who = "SELECT current_user, session_user";
    answers(at(proxy.port, "anna", "first"), who, "anna|anna").await;
    answers(at(proxy.port, "lasting", "p"), who, "lasting|lasting").await;
    answers(at(proxy.port, "old", "p"), who, "old|old").await;
    // A write, and a read of it.
    answers(
        at(proxy.port, "anna", "first"),
        "CREATE TEMP TABLE t AS SELECT 1 AS x; SELECT x FROM t",
        "SELECT 1\n1",
    )
    .await;
    // What is refused, is refused in PostgreSQL's words.
    for (user, password) in
        [("anna", "wrong"), ("ended", "p"), ("bare", "p"), ("nobody", "p"), ("old", "wrong"), ("locked", "p")]
    {
        let direct = psql(at(cluster.primary().port, user, password), "SELECT 1").await;
        let through = psql(at(proxy.port, user, password), "SELECT 1").await;
        let words = |output: &Output| err(output).split_once("FATAL:").unwrap().1.to_owned();
        assert_eq!(words(&through), words(&direct), "{user}");
    }
    // A changed password: the old one is believed no longer than the answer is, the new one at the second attempt.
    let kept = connect(&format!("postgres://anna:first@127.0.0.1:{}/postgres", proxy.port)).await;
    admin.batch_execute("ALTER ROLE anna PASSWORD 'second'").await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    let began = Instant::now();
    while out(&psql(at(proxy.port, "anna", "second"), who).await) != "anna|anna" {
        assert!(began.elapsed() < PATIENCE, "the new password is never taken");
    }
    is_told(at(proxy.port, "anna", "first"), "password authentication failed for user \"anna\"").await;
    // Who was in, stays in, and is let in at servers with what the newer login has brought.
    admin
        .batch_execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'anna'")
        .await
        .unwrap();
    assert_eq!(value(&kept, "SELECT 'still ' || current_user").await, "still anna");
    // A name that has become another role's: the idle connections of the first one are not for the second, and the key of
    // the second does not serve a session of the first.
    let at_anna = format!("postgres://anna:second@127.0.0.1:{}/postgres", proxy.port);
    let first = connect(&at_anna).await;
    admin
        .batch_execute("ALTER ROLE anna RENAME TO boss; CREATE ROLE anna SUPERUSER LOGIN PASSWORD 'other'")
        .await
        .unwrap();
    cluster.wait_caught_up().await.unwrap();
    let began = Instant::now();
    while out(&psql(at(proxy.port, "anna", "other"), who).await) != "anna|anna" {
        assert!(began.elapsed() < PATIENCE, "the new role never comes in");
    }
    let _second = connect(&at_anna.replace("second", "other")).await;
    admin
        .batch_execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IN ('anna', 'boss')",
        )
        .await
        .unwrap();
    let still = first.simple_query("/* tidegate: route=primary */ SELECT session_user").await;
    assert!(still.is_err(), "a session of the old role has become another: {still:?}");
    // A renamed role, and one that may no longer log in.
    admin.batch_execute("ALTER ROLE lasting RENAME TO renamed; ALTER ROLE old NOLOGIN").await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    let began = Instant::now();
    while out(&psql(at(proxy.port, "renamed", "p"), who).await) != "renamed|renamed" {
        assert!(began.elapsed() < PATIENCE, "the new name is never taken");
    }
    let refused = "role \"old\" is not permitted to log in";
    while !err(&psql(at(proxy.port, "old", "p"), who).await).ends_with(refused) {
        assert!(began.elapsed() < PATIENCE, "the role still comes in");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_rule_that_fits_counts() {
    let cluster =
        guarded(1, "CREATE ROLE anna LOGIN PASSWORD 'p'; CREATE ROLE bert LOGIN PASSWORD 'p'", BY_PASSWORD)
            .await;
    cluster.primary().execute("CREATE DATABASE shop").await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    let certs = Certs::new("rules");
    certs.issue("server", &["localhost"]);
    let rules = "host shop bert all reject; hostssl shop all 127.0.0.0/8 password; \
                 hostnossl postgres all 127.0.0.1 255.255.255.255 scram-sha-256; host all postgres ::1/128 trust";
    let (cert, key) = (certs.path("server.crt"), certs.path("server.key"));
    let variables =
        [("TIDEGATE_AUTH_RULES", rules), ("TIDEGATE_TLS_CERT", &cert), ("TIDEGATE_TLS_KEY", &key)];
    let proxy = Proxy::with(&cluster, &variables).await;
    let at = |rest: &str| format!("host=127.0.0.1 port={} password=p {rest}", proxy.port);
    answers(at("user=anna dbname=shop sslmode=require"), "SELECT current_user", "anna").await;
    answers(at("user=bert dbname=postgres sslmode=disable"), "SELECT current_user", "bert").await;
    is_told(
        at("user=bert dbname=shop sslmode=require"),
        "pg_hba.conf rejects connection for host \"127.0.0.1\", user \"bert\", database \"shop\", SSL encryption",
    )
    .await;
    for (rest, encryption) in [
        ("user=anna dbname=shop sslmode=disable", "no encryption"),
        ("user=anna dbname=postgres sslmode=require", "SSL encryption"),
        ("user=postgres dbname=postgres sslmode=require", "SSL encryption"),
    ] {
        let output = psql(at(rest), "SELECT 1").await;
        assert!(err(&output).contains("no pg_hba.conf entry for host \"127.0.0.1\""), "{output:?}");
        assert!(err(&output).ends_with(encryption), "{output:?}");
    }
    // Words that PostgreSQL takes for "off" are no way around the rules.
    for word in ["of", "fals", "FALSE", "0"] {
        let output =
            psql(at(&format!("user=bert dbname=shop sslmode=require replication={word}")), "SELECT 1").await;
        assert!(err(&output).contains("pg_hba.conf rejects connection for host"), "{word}: {output:?}");
    }
    let output = psql(at("user=bert dbname=shop sslmode=require replication=maybe"), "SELECT 1").await;
    assert!(err(&output).contains("invalid value for parameter \"replication\""), "{output:?}");
    is_told(
        at("user=anna dbname=shop sslmode=require").replace("password=p", "password=wrong"),
        "password authentication failed for user \"anna\"",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_speak_tls_and_are_known_by_certificates() {
    let cluster = guarded(
        1,
        "CREATE ROLE anna LOGIN PASSWORD 'p'; CREATE ROLE \"an app\" LOGIN; CREATE ROLE bert LOGIN",
        BY_PASSWORD,
    )
    .await;
    // Those with certificates have no password that servers could ask for.
    set_rules(&cluster, "host all anna all scram-sha-256\nhost all all 127.0.0.1/32 trust").await;
    let (certs, strangers) = (Certs::new("clients"), Certs::new("strangers"));
    certs.issue("server", &["localhost"]);
    certs.issue("other", &["db.example"]);
    certs.issue("an app", &[]);
    certs.issue("machine", &[]);
    strangers.issue("an app", &[]);
    let file = certs.path("tidegate.toml");
    let config = format!(
        "[auth]\nrules = ['hostssl all bert all cert map=machines', 'hostssl all \"an app\" all cert', \
         'hostssl all anna all scram-sha-256 clientcert=verify-ca', 'hostssl all passing all cert', 'hostssl all postgres all scram-sha-256']\n\
         maps = ['machines machine bert']\n[tls]\nmode = 'require'\ncert = '{}'\nkey = '{}'\nclient_ca = '{}'\n\
         [[tls.more]]\ncert = '{}'\nkey = '{}'\n",
        certs.path("server.crt"),
        certs.path("server.key"),
        certs.path("root.crt"),
        certs.path("other.crt"),
        certs.path("other.key")
    );
    fs::write(&file, config).unwrap();
    let proxy = Proxy::with(&cluster, &[("TIDEGATE_CONFIG", &file), ("TIDEGATE_AUTH_CACHE", "1s")]).await;
    let root = certs.path("root.crt");
    let at = |host: &str, rest: &str| {
        format!(
            "host={host} hostaddr=127.0.0.1 port={} dbname=postgres sslrootcert={root} {rest}",
            proxy.port
        )
    };
    let with = |name: &str| format!("sslcert='{0}.crt' sslkey='{0}.key'", certs.path(name));
    let encrypted = "SELECT current_user, 1";
    let (app, machine) = (with("an app"), with("machine"));
    let full = |rest: &str| at("localhost", &format!("sslmode=verify-full {rest}"));
    answers(full(&format!("user='an app' {app}")), encrypted, "an app|1").await;
    answers(full(&format!("user=bert {machine}")), encrypted, "bert|1").await;
    answers(full(&format!("user=anna password=p {app} channel_binding=require")), encrypted, "anna|1").await;
    // Another host's name, another certificate.
    answers(at("db.example", &format!("sslmode=verify-full user='an app' {app}")), encrypted, "an app|1")
        .await;
    is_told(
        at("unknown.example", &format!("sslmode=verify-full user='an app' {app}")),
        "host name \"unknown.example\"",
    )
    .await;
    is_told(full("user='an app' sslcert=/none"), "connection requires a valid client certificate").await;
    is_told(full("user=anna password=p sslcert=/none"), "connection requires a valid client certificate")
        .await;
    is_told(
        full(&format!("user='an app' {machine}")),
        "certificate authentication failed for user \"an app\"",
    )
    .await;
    // Dropped, or no longer let in: also while an idle connection is there.
    let admin = cluster.primary().connect().await.unwrap();
    admin.batch_execute("CREATE ROLE passing LOGIN").await.unwrap();
    certs.issue("passing", &[]);
    let passing = format!("user=passing {}", with("passing"));
    answers(full(&passing), encrypted, "passing|1").await;
    for (change, words) in [
        ("ALTER ROLE passing NOLOGIN", "role \"passing\" is not permitted to log in"),
        ("DROP ROLE passing", "role \"passing\" does not exist"),
    ] {
        admin.batch_execute(change).await.unwrap();
        cluster.wait_caught_up().await.unwrap();
        let began = Instant::now();
        while !err(&psql(full(&passing), "SELECT 1").await).ends_with(words) {
            assert!(began.elapsed() < PATIENCE, "{change}: it still comes in");
        }
    }
    is_told(full(&format!("user=bert {app}")), "certificate authentication failed for user \"bert\"").await;
    let stranger = format!("sslcert='{0}.crt' sslkey='{0}.key'", strangers.path("an app"));
    let output = psql(full(&format!("user='an app' {stranger}")), "SELECT 1").await;
    assert!(!output.status.success() && err(&output).contains("unknown ca"), "{output:?}");
    // Without TLS nobody comes in.
    let output = psql(at("localhost", &format!("sslmode=disable user='an app' {app}")), "SELECT 1").await;
    assert!(err(&output).ends_with("no encryption"), "{output:?}");
    // New certificates: who is in stays in.
    let url = format!("postgres://127.0.0.1:{}/postgres?sslmode=require", proxy.port);
    let before = shown(&url).await;
    let (cert, key) = (certs.path("an app.crt"), certs.path("an app.key"));
    let own = format!("{url}&sslcert={cert}&sslkey={key}").replace("an app", "an%20app");
    let kept = over_tls(own, "an app").await;
    certs.issue("server", &["localhost", "renewed.example"]);
    proxy.signal("-HUP");
    let began = Instant::now();
    while shown(&url).await == before {
        assert!(began.elapsed() < PATIENCE, "the new certificate is never shown");
    }
    answers(
        at("renewed.example", &format!("sslmode=verify-full user='an app' {app}")),
        encrypted,
        "an app|1",
    )
    .await;
    assert_eq!(value(&kept, encrypted).await, "an app|1");
    // A key that does not fit is not taken, and all goes on.
    fs::copy(certs.path("other.key"), certs.path("server.key")).unwrap();
    proxy.signal("-HUP");
    answers(
        at("renewed.example", &format!("sslmode=verify-full user='an app' {app}")),
        encrypted,
        "an app|1",
    )
    .await;
}

fn node(url: &str) -> NodeSettings {
    url::node("node", url).unwrap()
}

/// The hash of the certificate that is shown there.
async fn shown(url: &str) -> Vec<u8> {
    let stream = Connector::new(&node(url)).unwrap().connect(Way::Tls).await.unwrap();
    stream.tls().unwrap().end_point().unwrap()
}

/// TLS from the first byte on, as libpq does since version 17, and only for those who say what they want to speak.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_may_begin_at_once() {
    let cluster = guarded(1, "", BY_PASSWORD).await;
    let certs = Certs::new("direct");
    certs.issue("server", &["localhost"]);
    let (cert, key) = (certs.path("server.crt"), certs.path("server.key"));
    let variables = [
        ("TIDEGATE_AUTH_RULES", "hostssl all all all trust"),
        ("TIDEGATE_TLS_CERT", &cert),
        ("TIDEGATE_TLS_KEY", &key),
    ];
    let proxy = Proxy::with(&cluster, &variables).await;
    let url = format!(
        "postgres://localhost:{}/postgres?sslmode=verify-full&sslrootcert={}&sslnegotiation=direct",
        proxy.port,
        certs.path("root.crt")
    );
    let client = over_tls(url.clone(), "postgres").await;
    assert_eq!(value(&client, "SELECT repeat('x', 100000)").await.len(), 100_000);
    // Cancelled over TLS, too.
    let token = client.cancel_token();
    let sleeper = tokio::spawn(async move { sqlstate(&client, "SELECT pg_sleep(60)").await });
    let began = Instant::now();
    while !sleeper.is_finished() {
        assert!(began.elapsed() < PATIENCE, "it sleeps on");
        let stream = Connector::new(&node(&url)).unwrap().connect(Way::Tls).await.unwrap();
        token.cancel_query_raw(stream, tokio_postgres::NoTls).await.unwrap();
    }
    assert_eq!(sleeper.await.unwrap(), "57014");
}

/// To a client that goes by SCRAM-SHA-256-PLUS, a man in the middle with a certificate of his own is no server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_man_in_the_middle_is_found_out() {
    let cluster = guarded(1, "CREATE ROLE anna LOGIN PASSWORD 'p'", BY_PASSWORD).await;
    let certs = Certs::new("middle");
    certs.issue("server", &["localhost"]);
    certs.issue("man", &["localhost"]);
    let (cert, key) = (certs.path("server.crt"), certs.path("server.key"));
    let variables = [
        ("TIDEGATE_AUTH_RULES", "hostssl all all all scram-sha-256"),
        ("TIDEGATE_TLS_CERT", &cert),
        ("TIDEGATE_TLS_KEY", &key),
    ];
    let proxy = Proxy::with(&cluster, &variables).await;
    let man = listen_in_the_middle(&certs, proxy.port);
    let at = |port: u16, binding: &str| {
        format!(
            "host=localhost hostaddr=127.0.0.1 port={port} dbname=postgres user=anna password=p sslmode=verify-full \
             sslrootcert={} channel_binding={binding}",
            certs.path("root.crt")
        )
    };
    for binding in ["require", "prefer", "disable"] {
        answers(at(proxy.port, binding), "SELECT current_user", "anna").await;
    }
    // He passes everything on, and is trusted by the client's root: without binding nobody would notice.
    answers(at(man, "disable"), "SELECT current_user", "anna").await;
    for binding in ["require", "prefer"] {
        is_told(at(man, binding), "SCRAM channel binding check failed").await;
    }
}

/// A client whose TLS is that of our own way to nodes. Its connection stays on a thread of its own, as those do.
async fn over_tls(url: String, user: &'static str) -> tokio_postgres::Client {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        local_runtime().unwrap().block_on(async {
            let stream = Connector::new(&node(&url)).unwrap().connect(Way::Tls).await.unwrap();
            let (client, connection) = tokio_postgres::Config::new()
                .user(user)
                .dbname("postgres")
                .ssl_mode(tokio_postgres::config::SslMode::Disable)
                .connect_raw(stream, tokio_postgres::NoTls)
                .await
                .unwrap();
            sender.send(client).unwrap();
            let _ = connection.await;
        });
    });
    receiver.await.unwrap()
}

/// Ends the TLS of whoever connects, and begins one of his own with the proxy.
fn listen_in_the_middle(certs: &Certs, port: u16) -> u16 {
    let pair = KeyPair { cert: certs.path("man.crt").into(), key: certs.path("man.key").into() };
    let tls = ClientTls { required: true, certificates: vec![pair], client_ca: None };
    let acceptor = Acceptor::new(&tls).unwrap();
    let connector = Connector::new(&node(&format!("postgres://127.0.0.1:{port}/x?sslmode=require"))).unwrap();
    let listener = listen_for_clients(([127, 0, 0, 1], 0).into()).unwrap();
    let own = listener.local_addr().unwrap().port();
    let serve = async move || {
        let listener = Listener::new(listener).unwrap();
        while let Ok((socket, _)) = poll_fn(|cx| listener.poll_accept(cx)).await {
            let mut client = Stream::tcp(socket).unwrap();
            let mut request = bytes::BytesMut::with_capacity(8);
            while request.len() < 8 && client.read(&mut request).await.unwrap() > 0 {}
            client.write_all(b"S").await.unwrap();
            if client.secure(acceptor.session().unwrap(), bytes::BytesMut::new()).await.is_err() {
                continue;
            }
            let mut server = connector.connect(Way::Tls).await.unwrap();
            spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    };
    // A future of that kind stays where it is made.
    std::thread::spawn(move || run(None, serve()).unwrap());
    own
}

/// The way to the nodes: each `sslmode` does what libpq's does, for clients' connections and the monitor's alike.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_reached_as_sslmode_says() {
    let cluster = guarded(1, "CREATE ROLE anna LOGIN PASSWORD 'p'", BY_PASSWORD).await;
    let (certs, others) = (Certs::new("nodes"), Certs::new("others"));
    certs.issue("node", &["localhost"]);
    certs.issue("postgres", &[]);
    for server in cluster.servers() {
        certs.give("node", &server.data);
        let admin = server.connect().await.unwrap();
        admin.batch_execute("ALTER SYSTEM SET ssl = on").await.unwrap();
        admin.batch_execute("ALTER SYSTEM SET ssl_ca_file = 'root.crt'").await.unwrap();
    }
    set_rules(&cluster, "host all all all scram-sha-256").await;
    let urls = |host: &str, rest: &str| -> Vec<String> {
        let one = |s: &Server| format!("postgres://postgres@{host}:{}/postgres?{rest}", s.port);
        cluster.servers().iter().map(one).collect()
    };
    let (root, wrong) = (certs.path("root.crt"), others.path("root.crt"));
    let encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let monitors = "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                    WHERE application_name = 'tidegate monitor'";
    for (host, rest, ssl) in [
        ("127.0.0.1", "sslmode=disable".to_owned(), "f"),
        ("127.0.0.1", "sslmode=allow".to_owned(), "f"),
        ("127.0.0.1", String::new(), "t"),
        ("127.0.0.1", "sslmode=require".to_owned(), "t"),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={root}"), "t"),
        ("localhost", format!("sslmode=verify-full&sslrootcert={root}"), "t"),
    ] {
        let proxy =
            Proxy::before(&urls(host, &rest), &[("TIDEGATE_AUTH_RULES", "host all all all scram-sha-256")])
                .await;
        let at = format!("host=127.0.0.1 port={} dbname=postgres user=anna password=p", proxy.port);
        answers(at.clone(), encrypted, ssl).await;
        let admin = cluster.primary().connect().await.unwrap();
        assert_eq!(rows(&admin, monitors).await, [ssl], "{rest}");
    }
    // Whoever is not who he should be is not spoken to.
    for (host, rest) in [
        ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={root}")),
        ("localhost", format!("sslmode=verify-ca&sslrootcert={wrong}")),
        ("localhost", format!("sslmode=require&sslrootcert={wrong}")),
    ] {
        let check = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["check", "--auth", "trust"])
            .args(urls(host, &rest).iter().flat_map(|url| ["--node", url]))
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&check.stdout).into_owned();
        assert!(told.contains("not usable: invalid peer certificate"), "{rest}: {told}");
    }
    // Servers that want a certificate of ours, and take no connection without TLS.
    for server in cluster.servers() {
        let rules = "hostssl all postgres all cert\nhostnossl all postgres 127.0.0.1/32 reject\n\
                     host replication postgres 127.0.0.1/32 trust\nhostssl all all all scram-sha-256\n";
        fs::write(server.data.join("pg_hba.conf"), rules).unwrap();
        signal("-HUP", server.postmaster().unwrap());
    }
    let own = format!("sslcert={}&sslkey={}", certs.path("postgres.crt"), certs.path("postgres.key"));
    for rest in [format!("sslmode=verify-ca&sslrootcert={root}&{own}"), format!("sslmode=allow&{own}")] {
        let proxy = Proxy::before(
            &urls("localhost", &rest),
            &[("TIDEGATE_AUTH_RULES", "host all all all scram-sha-256")],
        )
        .await;
        let at = format!("host=127.0.0.1 port={} dbname=postgres user=anna password=p", proxy.port);
        answers(at.clone(), encrypted, "t").await;
        // Cancelled over TLS.
        let url = format!("postgres://anna:p@127.0.0.1:{}/postgres", proxy.port);
        let client = connect(&url).await;
        let token = client.cancel_token();
        let sleeper = tokio::spawn(async move { sqlstate(&client, "SELECT pg_sleep(60)").await });
        let began = Instant::now();
        while !sleeper.is_finished() {
            assert!(began.elapsed() < PATIENCE, "it sleeps on");
            token.cancel_query(tokio_postgres::NoTls).await.unwrap();
        }
        assert_eq!(sleeper.await.unwrap(), "57014");
    }
}

/// A node whose certificate is its own root, as `openssl req -x509` makes it: trusted if it is the one that is named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_may_vouch_for_itself() {
    let cluster = guarded(1, "", BY_PASSWORD).await;
    let certs = Certs::new("alone");
    certs.self_signed("alone", &["localhost"]);
    let primary = cluster.primary();
    certs.give("alone", &primary.data);
    primary.execute("ALTER SYSTEM SET ssl = on").await.unwrap();
    reload(primary).await;
    for (host, mode, fine) in [
        ("localhost", "verify-full", true),
        ("127.0.0.1", "verify-ca", true),
        ("127.0.0.1", "verify-full", false),
    ] {
        let url = format!(
            "postgres://{host}:{}/x?sslmode={mode}&sslrootcert={}",
            primary.port,
            certs.path("alone.crt")
        );
        let connected = Connector::new(&node(&url)).unwrap().connect(Way::Tls).await;
        assert_eq!(connected.is_ok(), fine, "{host} {mode}: {connected:?}");
    }
}

/// Only this machine may ask for metrics, unless others are named.
#[tokio::test]
async fn http_answers_whom_it_is_told_to() {
    let cluster = Cluster::start(1).unwrap();
    let proxy = Proxy::start(&cluster).await;
    let status = async |port| tidegate::demo::scrape::get(port, "/metrics").await.unwrap().0;
    assert_eq!(status(proxy.http).await, 200);
    // Named once more at a reload: nothing else changes.
    let file = std::env::temp_dir().join(format!("tidegate-http-{}.toml", std::process::id()));
    fs::write(&file, "[auth]\nmethod = 'trust'\n").unwrap();
    let proxy =
        Proxy::with(&cluster, &[("TIDEGATE_CONFIG", file.to_str().unwrap()), ("TIDEGATE_AUTH_CACHE", "1s")])
            .await;
    fs::write(&file, "http_from = ['10.0.0.0/8']\n[auth]\nmethod = 'trust'\n").unwrap();
    proxy.signal("-HUP");
    let began = Instant::now();
    while status(proxy.http).await != 403 {
        assert!(began.elapsed() < PATIENCE, "everybody is still answered");
    }
    fs::remove_file(&file).unwrap();
}
