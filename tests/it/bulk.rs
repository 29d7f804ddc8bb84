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

#[tokio::test]
async fn an_open_pipeline_whose_client_reads_late_goes_on_where_it_was() {
    let proxy = Proxy::start(shared()).await;
    proxy.wait_catalog("postgres").await;
    let other = proxy.connect().await;
    let sql = "SELECT n, repeat('late', n % 600) FROM generate_series(1, 20000) n";
    let mut peer = Peer::log_in(proxy.port);
    let before = proxy.peak();
    // Each is flushed, so that the unit is open to its Sync, and all but the first come while the first one's answer is
    // held up: together they are more than all sockets on the way have room for, which Linux gives up to 32 MiB. The statements have names: what the client is told of those is put together here.
    for n in 0..5 {
        let name = format!("late{n}");
        peer.send(&Script::default().parse(&name, sql).describe(&name).bind(&name).execute().bare(b'H').0);
    }
    let held_up = "/* tidegate: route=primary */ SELECT count(*) FROM pg_stat_activity \
                   WHERE wait_event = 'ClientWrite' AND query LIKE 'SELECT n, repeat(''late''%'";
    let began = std::time::Instant::now();
    while value(&other, held_up).await != "1" {
        assert!(began.elapsed() < Duration::from_secs(60), "the answer is not held up");
    }
    peer.send(&Script::default().query("SELECT 1").sync().0);
    let all = peer.until(b'Z');
    let mut tags: Vec<_> = all.iter().map(|(tag, _)| char::from(*tag)).collect();
    assert_eq!(tags.iter().filter(|tag| **tag == 'D').count(), 5 * 20_000 + 1);
    tags.dedup();
    assert_eq!(tags.iter().collect::<String>(), format!("{}TDCZ", "1tT2DC".repeat(5)));
    let mut numbers = all.iter().filter(|(tag, _)| *tag == b'D').map(|(_, body)| body[6..].to_vec());
    assert!((0..5).all(|_| {
        (1..=20_000).all(|n: u32| numbers.next().is_some_and(|row| row.starts_with(n.to_string().as_bytes())))
    }));
    assert_eq!(peer.tags(), "ZI");
    let grown = proxy.peak() - before;
    assert!(grown < 2 * EACH, "{grown} bytes more");
}
