//! What is long: it passes whole, and whoever does not take it makes nobody keep it.

use std::io::Write;
use std::time::Duration;

use bytes::BytesMut;
use tidegate::wire::build;

use crate::support::peer::{Peer, Script};
use crate::support::proxy::{last_route, value};
use crate::support::{Proxy, database, shared};

/// What a client may have the proxy keep: a large buffer for each side, and as much as waits for one that is slow.
const EACH: u64 = 512 * 1024;

/// The bytes and the sum of all messages of that type up to ReadyForQuery.
fn rows(peer: &mut Peer, wanted: u8) -> (usize, u64) {
    let (mut count, mut sum) = (0, 0);
    loop {
        let (tag, body) = peer.receive().unwrap();
        if tag == wanted {
            count += 1;
            sum += body.iter().map(|b| u64::from(*b)).sum::<u64>();
        } else if tag == b'Z' {
            return (count, sum);
        }
    }
}

#[tokio::test]
async fn who_does_not_read_a_long_answer_is_waited_for() {
    let proxy = Proxy::start(shared()).await;
    // Rows of all lengths, so that their heads are cut everywhere: some 35 MB.
    let sql = "SELECT repeat('x', n % 700) FROM generate_series(1, 100000) n";
    let mut direct = Peer::log_in(shared().primary().port);
    direct.send(&Script::default().query(sql).0);
    let expected = rows(&mut direct, b'D');
    let mut peers: Vec<_> = (0..12).map(|_| Peer::log_in(proxy.port)).collect();
    let before = proxy.peak();
    for peer in &mut peers {
        peer.send(&Script::default().query(sql).0);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let grown = proxy.peak() - before;
    assert!(grown < peers.len() as u64 * EACH, "{grown} bytes more");
    // One of them does read, while the others still do not.
    assert_eq!(rows(&mut peers[7], b'D'), expected);
    peers[7].send(&Script::default().query(&format!("COPY ({sql}) TO STDOUT")).0);
    assert_eq!(rows(&mut peers[7], b'd').0, expected.0);
    let grown = proxy.peak() - before;
    assert!(grown < peers.len() as u64 * EACH, "{grown} bytes more");
}

#[tokio::test]
async fn a_server_that_takes_no_copy_data_is_waited_for() {
    database("bulk_in").await;
    let proxy = Proxy::start(shared()).await;
    let setup = proxy.connect_to("bulk_in").await;
    setup
        .batch_execute(
            "CREATE TABLE sink (line text);
            CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN PERFORM pg_advisory_xact_lock_shared(77); RETURN NEW; END';
            CREATE TRIGGER wait BEFORE INSERT ON sink FOR EACH ROW WHEN (NEW.line = 'first') EXECUTE FUNCTION wait();
            SELECT pg_advisory_lock(77)",
        )
        .await
        .unwrap();
    // Messages of all lengths, from an empty one to one that is longer than any buffer.
    let mut bytes = b"d\0\0\0\x0afirst\n".to_vec();
    let lengths = (0..60_000).map(|n| n * 7 % 1000).chain([300_000, 1]).chain((0..20_000).map(|n| n % 900));
    let mut expected = (1, 5);
    for length in lengths {
        let end = usize::from(length > 0);
        bytes.push(b'd');
        bytes.extend_from_slice(&(4 + length as u32).to_be_bytes());
        bytes.resize(bytes.len() + length - end, b'y');
        bytes.extend_from_slice(&b"\n"[..end]);
        expected = (expected.0 + end, expected.1 + length - end);
    }
    bytes.extend_from_slice(b"c\0\0\0\x04");
    let mut peer = Peer::open(proxy.port);
    let mut packet = BytesMut::new();
    build::startup(&mut packet, &[("user", "postgres"), ("database", "bulk_in")]);
    peer.send(&packet);
    peer.until(b'Z');
    peer.send(&Script::default().query("COPY sink FROM STDIN").0);
    peer.until(b'G');
    let before = proxy.peak();
    let mut writer = peer.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || writer.write_all(&bytes).unwrap());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!sender.is_finished(), "all of it has gone somewhere");
    let grown = proxy.peak() - before;
    assert!(grown < EACH, "{grown} bytes more");
    setup.batch_execute("SELECT pg_advisory_unlock(77)").await.unwrap();
    assert_eq!(peer.tags(), "CZI");
    sender.join().unwrap();
    // Another session has written it.
    shared().wait_caught_up().await.unwrap();
    let found = value(&setup, "SELECT count(*) || ' ' || sum(length(line)) FROM sink").await;
    assert_eq!(found, format!("{} {}", expected.0, expected.1));
}

/// An answer of a replica is held back until its first row, so that another node can give it: but no more than so much.
#[tokio::test]
async fn a_replica_that_says_much_before_its_first_row_is_heard() {
    database("chatty").await;
    let proxy = Proxy::start(shared()).await;
    let session = proxy.connect_to("chatty").await;
    session
        .batch_execute(
            "CREATE FUNCTION chatty(n int) RETURNS int STABLE LANGUAGE plpgsql AS
                $$ BEGIN FOR i IN 1..n LOOP RAISE NOTICE '%', repeat('x', 900); END LOOP; RETURN n; END $$",
        )
        .await
        .unwrap();
    while last_route(&session).await.1 != "replica" {
        assert_eq!(value(&session, "SELECT chatty(1)").await, "1");
    }
    let before = proxy.peak();
    assert_eq!(value(&session, "SELECT chatty(50000)").await, "50000");
    assert_eq!(last_route(&session).await.1, "replica");
    let grown = proxy.peak() - before;
    assert!(grown < 2 * EACH, "{grown} bytes more");
}
