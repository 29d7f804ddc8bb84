//! What sessions may do beside queries: listen, wait, be cancelled, keep much prepared, send and get very much.

use std::time::Instant;

use tokio_postgres::{AsyncMessage, NoTls};

use crate::support::peer::{Peer, Script};
use crate::support::proxy::{PATIENCE, last_route, sqlstate, value};
use crate::support::{Proxy, shared};

#[tokio::test]
async fn a_notification_reaches_a_session_that_is_idle() {
    let proxy = Proxy::with(shared(), &[("TIDEGATE_POOL_SIZE", "2"), ("TIDEGATE_WORKERS", "1")]).await;
    let (listener, mut connection) = tokio_postgres::connect(&proxy.url("postgres"), NoTls).await.unwrap();
    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(n) = message {
                heard.send((n.channel().to_owned(), n.payload().to_owned())).unwrap();
            }
        }
    });
    listener.batch_execute("LISTEN here; SET application_name = 'hears'").await.unwrap();
    // What merely listens reads from the replicas still, and nobody is asked anything meanwhile.
    listener.batch_execute("SET tidegate.consistency = eventual").await.unwrap();
    assert_eq!(value(&listener, "SELECT 1").await, "1");
    assert_eq!(last_route(&listener).await.1, "replica");
    listener.batch_execute("CREATE TABLE IF NOT EXISTS heard (x int)").await.unwrap();
    assert_eq!(last_route(&listener).await.2, "pinned");
    let speaker = proxy.connect().await;
    for n in 0..3 {
        speaker.batch_execute(&format!("NOTIFY here, '{n}'; NOTIFY elsewhere")).await.unwrap();
        let notified = tokio::time::timeout(PATIENCE, hears.recv()).await.expect("nothing was heard");
        assert_eq!(notified, Some(("here".to_owned(), n.to_string())));
        assert_eq!(value(&listener, "SELECT 1").await, "1");
        assert_eq!(last_route(&listener).await.1, "replica");
    }
    assert_eq!(value(&listener, "SELECT pg_listening_channels()").await, "here");
    for number in 0..2 {
        let replica = shared().replica(number).connect().await.unwrap();
        let asked = "SELECT count(*) FROM pg_stat_activity \
                     WHERE application_name = 'hears' AND query LIKE '%pg_my_temp_schema%'";
        assert_eq!(value(&replica, asked).await, "0", "a replica was asked what binds the session");
    }
    listener.batch_execute("UNLISTEN *").await.unwrap();
    assert_eq!(value(&listener, "SHOW tidegate.pins").await, "");
    speaker.batch_execute("NOTIFY here, 'too late'").await.unwrap();
    assert_eq!(value(&listener, "SELECT 1").await, "1");
    assert!(hears.try_recv().is_err());
}

#[tokio::test]
async fn no_notification_is_lost_while_a_listener_works() {
    const SPOKEN: usize = 300;
    let proxy = Proxy::start(shared()).await;
    let (listener, mut connection) = tokio_postgres::connect(&proxy.url("postgres"), NoTls).await.unwrap();
    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(n) = message {
                heard.send(n.payload().parse::<usize>().unwrap()).unwrap();
            }
        }
    });
    listener.batch_execute("LISTEN busy").await.unwrap();
    let speaker = proxy.connect().await;
    let speaks = tokio::spawn(async move {
        for n in 0..SPOKEN {
            speaker.batch_execute(&format!("NOTIFY busy, '{n}'")).await.unwrap();
        }
    });
    // Behind each of these the server is asked what binds the session.
    while !speaks.is_finished() {
        listener.batch_execute("SELECT pg_advisory_lock(475)").await.unwrap();
        listener.batch_execute("SELECT pg_advisory_unlock(475)").await.unwrap();
    }
    for n in 0..SPOKEN {
        assert_eq!(tokio::time::timeout(PATIENCE, hears.recv()).await.expect("one was lost"), Some(n));
    }
}

#[tokio::test]
async fn pins_end_with_what_they_stand_for() {
    let proxy = Proxy::start(shared()).await;
    let client = proxy.connect().await;
    for (begin, why, end) in [
        ("CREATE TEMP TABLE pin (x int)", "temporary", "DISCARD TEMP"),
        ("LISTEN pin", "listen", "UNLISTEN *"),
        ("PREPARE pin AS SELECT 1", "sql_prepare", "DEALLOCATE pin"),
        ("PREPARE pin AS SELECT 1", "sql_prepare", "DISCARD ALL"),
        ("SELECT pg_advisory_lock(4711)", "advisory_lock", "DISCARD ALL"),
        ("BEGIN; DECLARE pin CURSOR WITH HOLD FOR SELECT 1; COMMIT", "hold_cursor", "DISCARD ALL"),
        // LOAD cannot be undone.
        ("LOAD 'plpgsql'", "load", ""),
    ] {
        client.batch_execute(begin).await.unwrap();
        assert_eq!(value(&client, "SHOW tidegate.pins").await, why, "{begin}");
        if !end.is_empty() {
            client.batch_execute(end).await.unwrap();
            assert_eq!(value(&client, "SHOW tidegate.pins").await, "", "{end}");
        }
    }
    let counted = proxy.metric("tidegate_pinned_sessions", &[("why", "load")]).await;
    assert!((counted - 1.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn a_server_keeps_a_bounded_number_of_statements_and_clients_notice_nothing() {
    let variables =
        [("TIDEGATE_POOL_PREPARED_STATEMENTS", "5"), ("TIDEGATE_POOL_SIZE", "1"), ("TIDEGATE_WORKERS", "1")];
    let proxy = Proxy::with(shared(), &variables).await;
    let client = proxy.connect().await;
    client.batch_execute("SET tidegate.route = primary").await.unwrap();
    let mut statements = Vec::new();
    for n in 0..20 {
        statements.push(client.prepare(&format!("SELECT {n} + $1::int")).await.unwrap());
    }
    for round in 0..3 {
        for (n, statement) in (0_i32..).zip(&statements) {
            let sum: i32 = client.query_one(statement, &[&round]).await.unwrap().get(0);
            assert_eq!(sum, n + round);
        }
    }
    // One may come over the limit before an old one goes.
    let kept: i64 = value(&client, "SELECT count(*) FROM pg_prepared_statements").await.parse().unwrap();
    assert!((1..=6).contains(&kept), "{kept}");
}

#[tokio::test]
async fn who_waits_for_a_connection_can_be_cancelled() {
    let variables =
        [("TIDEGATE_POOL_SIZE", "1"), ("TIDEGATE_WORKERS", "1"), ("TIDEGATE_POOL_TIMEOUT", "60s")];
    let proxy = Proxy::with(shared(), &variables).await;
    let (holder, waiter) = (proxy.connect().await, proxy.connect().await);
    holder.batch_execute("BEGIN").await.unwrap();
    let token = waiter.cancel_token();
    let began = Instant::now();
    let waiting = tokio::spawn(async move {
        let code = sqlstate(&waiter, "CREATE TABLE never (x int)").await;
        (waiter, code)
    });
    while !waiting.is_finished() {
        token.cancel_query(NoTls).await.unwrap();
        assert!(began.elapsed() < PATIENCE, "the wait goes on");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let (waiter, code) = waiting.await.unwrap();
    assert_eq!(code, "57014");
    holder.batch_execute("COMMIT").await.unwrap();
    assert_eq!(value(&waiter, "SELECT to_regclass('never') IS NULL").await, "t");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn very_large_messages_are_streamed() {
    const SIZE: usize = 256 * 1024 * 1024;
    let proxy = Proxy::start(shared()).await;
    let mut peer = Peer::log_in(proxy.port);
    tokio::task::block_in_place(|| {
        let before = proxy.peak();
        // A parameter: the head of its Bind, then the bytes.
        peer.send(&Script::default().parse("long", "SELECT length($1::text)").sync().0);
        peer.until(b'Z');
        let head = [b"\0long\0\0\0\0\x01".as_slice(), &u32::try_from(SIZE).unwrap().to_be_bytes()].concat();
        let len = u32::try_from(4 + head.len() + SIZE + 2).unwrap();
        peer.send(&[b"B", &len.to_be_bytes()[..], &head].concat());
        let piece = vec![b'x'; 1024 * 1024];
        for _ in 0..SIZE / piece.len() {
            peer.send(&piece);
        }
        peer.send(&[0, 0]);
        peer.send(&Script::default().execute().sync().0);
        let answer = peer.until(b'Z');
        let length = answer.iter().find(|(tag, _)| *tag == b'D').unwrap();
        assert!(length.1.ends_with(SIZE.to_string().as_bytes()));
        // A row.
        peer.send(&Script::default().query(&format!("SELECT repeat('y', {SIZE})")).0);
        let answer = peer.until(b'Z');
        assert!(answer.iter().any(|(tag, body)| *tag == b'D' && body.len() > SIZE));
        // A piece of COPY data.
        peer.send(
            &Script::default().query("BEGIN; CREATE TABLE streamed (x text); COPY streamed FROM STDIN").0,
        );
        peer.until(b'G');
        peer.send(&[b"d", &u32::try_from(4 + SIZE + 1).unwrap().to_be_bytes()[..]].concat());
        for _ in 0..SIZE / piece.len() {
            peer.send(&piece);
        }
        peer.send(b"\n");
        peer.send(&Script::default().bare(b'c').query("SELECT length(x) FROM streamed").query("ROLLBACK").0);
        assert_eq!(peer.tags(), "CZT");
        let grown = proxy.peak() - before;
        assert!(grown < 32 * 1024 * 1024, "{grown} bytes were kept");
        // One byte more than PostgreSQL takes is refused, not waited for.
        let mut other = Peer::log_in(proxy.port);
        other.send(&[b"Q", &0x4000_0000_u32.to_be_bytes()[..], b"SELECT 1"].concat());
        assert_eq!(other.receive().unwrap().0, b'E');
    });
}
