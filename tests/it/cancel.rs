//! Cancel requests hit the unit that they are for, while it runs, and nothing else.

use std::time::Instant;

use bytes::BytesMut;
use tidegate::demo::cluster::{Cluster, Server};
use tidegate::wire::build;
use tokio_postgres::Client;

use crate::support::peer::{Peer, Script};
use crate::support::proxy::{PATIENCE, connect, last_route, rows, signal, sqlstate, value};
use crate::support::scram::fields;
use crate::support::{Proxy, shared, sockets};

/// A session that has asked for that minor version of the protocol.
struct Session {
    peer: Peer,
    /// All that came before it was let in.
    greeting: Vec<(u8, Vec<u8>)>,
}

impl Session {
    fn open(port: u16, minor: u16) -> Self {
        let mut peer = Peer::open(port);
        let mut packet = BytesMut::new();
        build::startup(&mut packet, &[("user", "postgres"), ("database", "postgres")]);
        packet[6..8].copy_from_slice(&minor.to_be_bytes());
        peer.send(&packet);
        let greeting = peer.until(b'Z');
        Self { peer, greeting }
    }

    fn message(&self, tag: u8) -> Option<&[u8]> {
        self.greeting.iter().find(|message| message.0 == tag).map(|message| &message.1[..])
    }

    /// Process id and key.
    fn key(&self) -> Vec<u8> {
        self.message(b'K').unwrap().to_vec()
    }

    fn query(&mut self, sql: &str) {
        self.peer.send(&Script::default().query(sql).0);
    }

    fn answers(&mut self, sql: &str) -> String {
        self.query(sql);
        self.peer.tags()
    }

    /// What the query that was sent last was told: types of messages, and the error.
    fn told(&mut self) -> String {
        let all = self.peer.until(b'Z');
        let error = all.iter().find(|(tag, _)| *tag == b'E').map(|(_, body)| fields(body));
        error.unwrap_or_else(|| all.iter().map(|(tag, _)| char::from(*tag)).collect())
    }
}

/// What an answer with one row consists of.
const ROW: &str = "TDCZ";

const CANCELLED: &str = "ERROR | 57014 | canceling statement due to user request";

/// Sends a cancel request, and waits until all has been done that is done for it.
fn cancel(port: u16, key: &[u8]) {
    let mut peer = Peer::open(port);
    let len = u32::try_from(8 + key.len()).unwrap().to_be_bytes();
    peer.send(&[&len, &80_877_102_u32.to_be_bytes(), key].concat());
    assert_eq!(peer.receive(), None);
}

/// A lock that others wait for, until it is dropped or released.
struct Lock {
    holder: Client,
    number: u32,
}

impl Lock {
    async fn take(number: u32) -> Self {
        let holder = connect(&shared().primary().url()).await;
        holder.batch_execute(&format!("SELECT pg_advisory_lock({number})")).await.unwrap();
        Self { holder, number }
    }

    /// A statement that ends when the lock is free.
    fn wait(&self) -> String {
        format!("SELECT pg_advisory_xact_lock({})", self.number)
    }

    /// The processes that wait, when there are so many.
    async fn waiters(&self, count: usize) -> Vec<String> {
        let sql = format!(
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = {} AND NOT granted",
            self.number
        );
        let began = Instant::now();
        loop {
            let waiting = rows(&self.holder, &sql).await;
            if waiting.len() == count {
                return waiting;
            }
            assert!(began.elapsed() < PATIENCE, "{waiting:?} wait for the lock");
        }
    }

    async fn release(&self) {
        let released = value(&self.holder, &format!("SELECT pg_advisory_unlock({})", self.number)).await;
        assert_eq!(released, "t");
    }
}

/// One server connection for two clients: what the first has run there is over when the second runs something.
#[tokio::test]
async fn a_cancel_request_of_an_idle_client_spares_who_has_its_connection_now() {
    let proxy = Proxy::with(shared(), &[("TIDEGATE_POOL_SIZE", "1"), ("TIDEGATE_WORKERS", "1")]).await;
    let (mut idle, mut busy) = (Session::open(proxy.port, 0), Session::open(proxy.port, 0));
    assert_eq!(idle.answers("SET tidegate.route = primary"), "CZI");
    idle.query("SELECT pg_backend_pid()");
    let answer = idle.peer.until(b'Z');
    let pid = String::from_utf8_lossy(&answer[1].1[6..]).into_owned();
    let lock = Lock::take(8101).await;
    busy.query(&lock.wait());
    assert_eq!(lock.waiters(1).await, [pid], "they share the connection");
    cancel(proxy.port, &idle.key());
    lock.release().await;
    assert_eq!(busy.told(), ROW);
    // Nor does it come too late.
    assert_eq!(idle.answers("SELECT 1"), "TDCZI");
}

#[tokio::test]
async fn a_cancel_request_hits_the_one_that_it_names() {
    let proxy = Proxy::with(shared(), &[("TIDEGATE_POOL_SIZE", "2"), ("TIDEGATE_WORKERS", "1")]).await;
    for hit in [0, 1] {
        let mut sessions = [Session::open(proxy.port, 0), Session::open(proxy.port, 0)];
        let lock = Lock::take(8102).await;
        for (n, session) in sessions.iter_mut().enumerate() {
            session.query(&lock.wait());
            lock.waiters(n + 1).await;
        }
        cancel(proxy.port, &sessions[hit].key());
        assert_eq!(sessions[hit].told(), CANCELLED);
        lock.waiters(1).await;
        lock.release().await;
        assert_eq!(sessions[1 - hit].told(), ROW);
    }
}

#[tokio::test]
async fn the_long_key_of_protocol_3_2_counts_whole() {
    let proxy = Proxy::start(shared()).await;
    let (mut session, other) = (Session::open(proxy.port, 2), Session::open(proxy.port, 2));
    let (key, others) = (session.key(), other.key());
    assert_eq!((key.len(), others.len()), (4 + 32, 4 + 32));
    let mut last = key.clone();
    *last.last_mut().unwrap() ^= 1;
    let lock = Lock::take(8103).await;
    session.query(&lock.wait());
    lock.waiters(1).await;
    for wrong in [&last[..], &key[..4 + 4], &key[..4 + 31], &[&key[..], &[0]].concat()] {
        cancel(proxy.port, wrong);
    }
    // Each has a process id of its own.
    cancel(proxy.port, &others);
    cancel(proxy.port, &[&key[..4], &others[4..]].concat());
    lock.release().await;
    assert_eq!(session.told(), ROW);
    let lock = Lock::take(8103).await;
    session.query(&lock.wait());
    lock.waiters(1).await;
    cancel(proxy.port, &key);
    assert_eq!(session.told(), CANCELLED);
    assert_eq!(session.answers("SELECT 1"), "TDCZI");
}

/// Whoever asks for a version that there is not is told which one is spoken, and gets the key of that one.
#[tokio::test]
async fn minor_versions_are_negotiated() {
    let proxy = Proxy::start(shared()).await;
    for (asked, spoken, key) in [
        (0, None, 4),
        (1, Some(0), 4),
        (2, None, 32),
        (3, Some(2), 32),
        // libpq asks for it to find out who does not negotiate.
        (9999, Some(2), 32),
        (u16::MAX, Some(2), 32),
    ] {
        let mut session = Session::open(proxy.port, asked);
        let told = spoken.map(|minor: u8| vec![0, 3, 0, minor, 0, 0, 0, 0]);
        assert_eq!(session.message(b'v'), told.as_deref(), "3.{asked}");
        assert_eq!(session.key().len(), 4 + key, "3.{asked}");
        assert_eq!(session.answers("SELECT 1"), "TDCZI", "3.{asked}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_fresh_replica_can_be_cancelled() {
    let cluster = Cluster::start(1).unwrap();
    let proxy = Proxy::with(&cluster, &[("TIDEGATE_FRESHNESS_REPLICA_WAIT", "60s")]).await;
    let mut session = Session::open(proxy.port, 0);
    assert_eq!(session.answers("CREATE TABLE t AS SELECT 1 AS n"), "CZI");
    cluster.wait_caught_up().await.unwrap();
    proxy.wait_catalog("postgres").await;
    cluster.replica(0).pause_replay().await.unwrap();
    assert_eq!(session.answers("UPDATE t SET n = 2"), "CZI");
    let key = session.key();
    let reading = std::thread::spawn(move || {
        session.query("SELECT n FROM t");
        let told = session.told();
        (session, told)
    });
    // Until it waits there is nothing to cancel.
    let began = Instant::now();
    while !reading.is_finished() {
        assert!(began.elapsed() < PATIENCE, "the wait goes on");
        cancel(proxy.port, &key);
    }
    let (mut session, told) = reading.join().unwrap();
    assert_eq!(told, CANCELLED);
    cluster.replica(0).resume_replay().await.unwrap();
    session.query("SELECT n FROM t");
    let answer = session.peer.until(b'Z');
    assert!(answer[1].1.ends_with(b"2"), "{answer:?}");
    session.query("SHOW tidegate.last_route");
    let route = session.peer.until(b'Z');
    assert!(String::from_utf8_lossy(&route[1].1).contains("replica"), "{route:?}");
}

/// A server that takes no new connections until this is dropped; those that it has go on.
struct Deaf(u32);

impl Deaf {
    fn new(server: &Server) -> Self {
        let pid = server.postmaster().unwrap();
        signal("-STOP", pid);
        Self(pid)
    }
}

impl Drop for Deaf {
    fn drop(&mut self) {
        signal("-CONT", self.0);
    }
}

/// Runs what a connection to that server has to be made for, cancels it while that goes on, and gives its end.
async fn cancelled_on_the_way(client: &Client, sql: &str, server: &Server) -> String {
    let deaf = Deaf::new(server);
    let cancelled = async {
        sockets::wait_caller(server.port).await;
        client.cancel_token().cancel_query(tokio_postgres::NoTls).await.unwrap();
        drop(deaf);
    };
    tokio::join!(sqlstate(client, sql), cancelled).0
}

/// Neither on the replica nor, for what listens, on its own connection to the primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_was_cancelled_while_a_connection_was_made_runs_nowhere() {
    let cluster = Cluster::start(1).unwrap();
    let settings =
        [("TIDEGATE_FRESHNESS_CONSISTENCY", "eventual"), ("TIDEGATE_FRESHNESS_MAX_STALENESS", "60s")];
    for bound in ["", "LISTEN here"] {
        let mut told = (String::new(), String::new());
        for _ in 0..3 {
            let proxy = Proxy::with(&cluster, &settings).await;
            let client = proxy.connect().await;
            if !bound.is_empty() {
                client.batch_execute(bound).await.unwrap();
            }
            let end = cancelled_on_the_way(&client, "SELECT 1", cluster.replica(0)).await;
            told = (end, last_route(&client).await.2);
            assert_eq!(value(&client, "SELECT 2").await, "2");
            // Where the machine stands still for long, the replica is given up: it is the monitor who calls then.
            if told.0 == "57014" || told.1 != "no_replica" {
                break;
            }
        }
        assert_eq!(told.0, "57014", "{bound} {}", told.1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_was_cancelled_while_a_connection_was_made_leaves_nothing() {
    let cluster = Cluster::start(0).unwrap();
    let proxy = Proxy::with(&cluster, &[("TIDEGATE_WORKERS", "1")]).await;
    let (client, other) = (proxy.connect().await, proxy.connect().await);
    client.batch_execute("CREATE TABLE t(n int)").await.unwrap();
    // Nobody else is on his way to the server then.
    proxy.wait_catalog("postgres").await;
    // It has the one connection that there is.
    other.batch_execute("BEGIN").await.unwrap();
    // It would bind the session, too.
    let write = "INSERT INTO t VALUES (1); LOAD 'plpgsql'";
    assert_eq!(cancelled_on_the_way(&client, write, cluster.primary()).await, "57014");
    assert_eq!(value(&client, "SELECT count(*) FROM t").await, "0");
    assert_eq!(value(&client, "SHOW tidegate.pins").await, "");
    client.batch_execute("INSERT INTO t VALUES (2)").await.unwrap();
}
