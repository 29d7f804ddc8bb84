//! The protocol, byte by byte.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use tidegate::wire::build;

use crate::support::peer::{Peer, Script};
use crate::support::{Proxy, database, shared};

#[tokio::test]
async fn encryption_is_declined_and_versions_are_negotiated() {
    let proxy = Proxy::start(shared()).await;
    let mut peer = Peer::open(proxy.port);
    for code in [80_877_103_u32, 80_877_104] {
        let mut packet = 8_u32.to_be_bytes().to_vec();
        packet.extend_from_slice(&code.to_be_bytes());
        peer.send(&packet);
        let mut answer = [0];
        std::io::Read::read_exact(&mut peer.stream, &mut answer).unwrap();
        assert_eq!(&answer, b"N");
    }
    // 3.2 with an option that nobody knows: told so, and let in, with a long cancel key.
    let mut packet = BytesMut::new();
    build::startup(&mut packet, &[("user", "postgres"), ("_pq_.x", "1")]);
    packet[4..8].copy_from_slice(&((3_u32 << 16) | 2).to_be_bytes());
    peer.send(&packet);
    let all = peer.until(b'Z');
    assert_eq!(all[0].0, b'v');
    assert_eq!(all[0].1, [&0x0003_0002_u32.to_be_bytes()[..], &1_u32.to_be_bytes(), b"_pq_.x\0"].concat());
    let key = all.iter().find(|(tag, _)| *tag == b'K').unwrap();
    assert_eq!(key.1.len(), 4 + 32);
    let names: Vec<_> =
        all.iter().filter(|(t, _)| *t == b'S').map(|(_, b)| b.split(|b| *b == 0).next().unwrap()).collect();
    assert!(names.contains(&&b"server_version"[..]) && names.contains(&&b"in_hot_standby"[..]));
    // 4.0 is refused.
    let mut peer = Peer::open(proxy.port);
    let mut packet = BytesMut::new();
    build::startup(&mut packet, &[("user", "postgres")]);
    packet[4..8].copy_from_slice(&(4_u32 << 16).to_be_bytes());
    peer.send(&packet);
    let (tag, body) = peer.receive().unwrap();
    assert!(tag == b'E' && String::from_utf8_lossy(&body).contains("0A000"));
}

#[tokio::test]
async fn startup_parameters_are_settings_and_bad_ones_are_refused() {
    let proxy = Proxy::start(shared()).await;
    let client = crate::support::proxy::connect(&format!(
        "{}?options=-c%20work_mem%3D3MB%20-c%20tidegate.consistency%3Deventual&application_name=my%20app",
        proxy.url("postgres")
    ))
    .await;
    for _ in 0..4 {
        assert_eq!(crate::support::proxy::value(&client, "SHOW work_mem").await, "3MB");
    }
    assert_eq!(crate::support::proxy::value(&client, "SHOW application_name").await, "my app");
    assert_eq!(crate::support::proxy::value(&client, "SHOW tidegate.consistency").await, "eventual");
    let error = tokio_postgres::connect(
        &format!("{}?options=-c%20work_mem%3Dmuch", proxy.url("postgres")),
        tokio_postgres::NoTls,
    )
    .await
    .err()
    .unwrap();
    assert_eq!(error.as_db_error().unwrap().code().code(), "22023");
    let error = tokio_postgres::connect(&proxy.url("nowhere"), tokio_postgres::NoTls).await.err().unwrap();
    assert_eq!(error.as_db_error().unwrap().code().code(), "3D000");
}

#[tokio::test]
async fn pipelines_keep_their_order_and_errors_skip_to_sync() {
    let proxy = Proxy::start(shared()).await;
    let mut peer = Peer::log_in(proxy.port);
    let script = Script::default()
        .parse("a", "SELECT 1")
        .describe("a")
        .bind("a")
        .execute()
        .sync()
        .parse("", "SELECT 1/0")
        .bind("")
        .execute()
        .parse("never", "SELECT 3")
        .sync()
        .bind("a")
        .execute()
        .close("a")
        .sync()
        .query("SELECT 4; SELECT 5")
        .query("");
    peer.send(&script.0);
    assert_eq!(peer.tags(), "1tT2DCZI");
    let failed = peer.tags();
    assert!(failed.ends_with("EZI") && !failed.contains('D'), "{failed}");
    assert_eq!(peer.tags(), "2DC3ZI");
    assert_eq!(peer.tags(), "TDCTDCZI");
    assert_eq!(peer.tags(), "IZI");
    // Neither the closed statement nor the skipped one is there.
    for name in ["a", "never"] {
        peer.send(&Script::default().bind(name).execute().sync().0);
        assert_eq!(peer.tags(), "EZI");
    }
    // A name that is taken is taken; a lone Sync is answered.
    peer.send(&Script::default().parse("b", "SELECT 1").sync().parse("b", "SELECT 2").sync().sync().0);
    assert_eq!(peer.tags(), "1ZI");
    assert_eq!(peer.tags(), "EZI");
    assert_eq!(peer.tags(), "ZI");
}

#[tokio::test]
async fn flush_brings_what_is_there() {
    let proxy = Proxy::start(shared()).await;
    let mut peer = Peer::log_in(proxy.port);
    // asyncpg prepares like this.
    peer.send(&Script::default().parse("s", "SELECT 1").describe("s").bare(b'H').0);
    assert_eq!([peer.receive().unwrap().0, peer.receive().unwrap().0, peer.receive().unwrap().0], *b"1tT");
    peer.send(&Script::default().bind("s").execute().sync().0);
    assert_eq!(peer.tags(), "2DCZI");
    peer.send(&Script::default().parse("bad", "SELEKT").bare(b'H').0);
    assert_eq!(peer.receive().unwrap().0, b'E');
    peer.send(&Script::default().describe("bad").sync().0);
    assert_eq!(peer.tags(), "ZI", "what follows an error is skipped up to its Sync");
    // In the middle of a pipeline.
    peer.send(&Script::default().bind("s").execute().bare(b'H').0);
    assert_eq!([peer.receive().unwrap().0, peer.receive().unwrap().0, peer.receive().unwrap().0], *b"2DC");
    peer.send(&Script::default().bind("s").execute().sync().0);
    assert_eq!(peer.tags(), "2DCZI");
}

#[tokio::test]
async fn copy_goes_both_ways_and_fails_cleanly() {
    database("protocol_copy").await;
    let proxy = Proxy::start(shared()).await;
    let setup = proxy.connect_to("protocol_copy").await;
    setup.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    let mut peer = Peer::open(proxy.port);
    let mut packet = BytesMut::new();
    build::startup(&mut packet, &[("user", "postgres"), ("database", "protocol_copy")]);
    peer.send(&packet);
    peer.until(b'Z');
    let data = |rows: &str| {
        let mut out = BytesMut::new();
        build::message(&mut out, b'd', |b| b.extend_from_slice(rows.as_bytes()));
        out
    };
    peer.send(&Script::default().query("COPY t FROM STDIN").0);
    assert_eq!(peer.receive().unwrap().0, b'G');
    let many: String = (0..5_000).map(|n| format!("{n}\n")).collect();
    peer.send(&data(&many));
    peer.send(&Script::default().bare(b'c').0);
    assert_eq!(peer.tags(), "CZI");
    // CopyFail, and stray data behind it.
    peer.send(&Script::default().query("COPY t FROM STDIN").0);
    assert_eq!(peer.receive().unwrap().0, b'G');
    let mut fail = BytesMut::new();
    build::message(&mut fail, b'f', |b| b.extend_from_slice(b"changed my mind\0"));
    fail.extend_from_slice(&data("9999\n"));
    peer.send(&fail);
    assert_eq!(peer.tags(), "EZI");
    // In the extended protocol with its Sync sent beforehand, as libpq does.
    peer.send(&Script::default().parse("", "COPY t FROM STDIN").bind("").execute().sync().0);
    assert_eq!([peer.receive().unwrap().0, peer.receive().unwrap().0, peer.receive().unwrap().0], *b"12G");
    peer.send(&data("5000\n"));
    peer.send(&Script::default().bare(b'c').sync().0);
    assert_eq!(peer.tags(), "CZI");
    // A prepared one; what follows its data is answered behind its end, and is skipped if it fails.
    peer.send(&Script::default().parse("s", "COPY t FROM STDIN").sync().0);
    assert_eq!(peer.tags(), "1ZI");
    for (row, answer) in [("5001\n", "C13ZI"), ("5001\n", "EZI")] {
        peer.send(&Script::default().bind("s").execute().sync().0);
        assert_eq!([peer.receive().unwrap().0, peer.receive().unwrap().0], *b"2G");
        peer.send(&data(row));
        peer.send(&Script::default().bare(b'c').parse("u", "SELECT 1").close("u").sync().0);
        assert_eq!(peer.tags(), answer);
    }
    // All at once.
    peer.send(&Script::default().bind("s").execute().0);
    peer.send(&data("5002\n"));
    peer.send(&Script::default().bare(b'c').sync().0);
    assert_eq!(peer.tags(), "2GCZI");
    peer.send(&Script::default().query("DELETE FROM t WHERE id > 5000").0);
    assert_eq!(peer.tags(), "CZI");
    peer.send(&Script::default().query("COPY (SELECT id FROM t ORDER BY id) TO STDOUT").0);
    let all = peer.until(b'Z');
    assert_eq!(all.iter().filter(|(tag, _)| *tag == b'd').count(), 5_001);
    let rows = crate::support::proxy::value(&setup, "SELECT count(*) FROM t").await;
    assert_eq!(rows, "5001");
}

#[tokio::test]
async fn a_cancel_request_ends_the_statement_and_nothing_else() {
    let proxy = Proxy::start(shared()).await;
    let client = proxy.connect().await;
    let token = client.cancel_token();
    let began = Instant::now();
    let sleeper = tokio::spawn(async move {
        let code = crate::support::proxy::sqlstate(&client, "SELECT pg_sleep(60)").await;
        (client, code)
    });
    // Until the statement runs there is nothing to cancel.
    while !sleeper.is_finished() {
        token.cancel_query(tokio_postgres::NoTls).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (client, code) = sleeper.await.unwrap();
    assert_eq!(code, "57014");
    assert!(began.elapsed() < Duration::from_secs(50));
    assert_eq!(crate::support::proxy::value(&client, "SELECT 1").await, "1");
    // One that comes between two statements hits neither: it is over when its connection is.
    let mut peer = Peer::open(proxy.port);
    let mut packet = BytesMut::new();
    build::startup(&mut packet, &[("user", "postgres"), ("database", "postgres")]);
    peer.send(&packet);
    let key = peer.until(b'Z').into_iter().find(|(tag, _)| *tag == b'K').unwrap().1;
    for _ in 0..20 {
        let mut cancel = Peer::open(proxy.port);
        cancel.send(&[&[0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e], &key[..]].concat());
        assert!(cancel.receive().is_none());
        peer.send(&Script::default().query("SELECT 1").0);
        assert_eq!(peer.tags(), "TDCZI");
    }
}

#[tokio::test]
async fn nonsense_is_answered_and_ends_only_its_own_connection() {
    let proxy = Proxy::start(shared()).await;
    let bystander = proxy.connect().await;
    for (bytes, code) in [
        (&b"?\0\0\0\x04"[..], "08P01"),
        (b"Q\0\0\0\x01", "08P01"),
        (b"B\0\0\0\x05x", "08P01"),
        (b"Q\0\0\0\x05x", "08P01"),
    ] {
        let mut peer = Peer::log_in(proxy.port);
        peer.send(bytes);
        let (tag, body) = peer.receive().unwrap();
        assert!(tag == b'E' && String::from_utf8_lossy(&body).contains(code), "{bytes:?}");
        assert_eq!(peer.receive(), None);
    }
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\0\0\0\0", b"\xff\xff\xff\xff\xff\xff\xff\xff"] {
        let mut peer = Peer::open(proxy.port);
        peer.send(garbage);
        let _ = peer.receive();
    }
    // A million bytes of brackets, and a pipeline that never ends.
    let mut peer = Peer::log_in(proxy.port);
    let deep = format!("SELECT {}", "(".repeat(1_000_000));
    peer.send(&Script::default().query(&deep).0);
    assert!(peer.tags().ends_with("EZI"));
    assert_eq!(crate::support::proxy::value(&bystander, "SELECT 1").await, "1");
}

#[tokio::test]
async fn large_texts_rows_and_pipelines_pass() {
    let proxy = Proxy::start(shared()).await;
    let mut peer = Peer::log_in(proxy.port);
    let text = "x".repeat(20 * 1024 * 1024);
    // Longer than what is judged: it goes to the primary as it comes.
    peer.send(&Script::default().query(&format!("SELECT length('{text}')")).0);
    assert_eq!(peer.tags(), "TDCZI");
    peer.send(&Script::default().query("SELECT repeat('y', 30000000), 1").0);
    let all = peer.until(b'Z');
    assert!(all.iter().any(|(tag, body)| *tag == b'D' && body.len() > 30_000_000));
    // A pipeline that is longer than what is held back.
    let mut script = Script::default().parse("p", "SELECT 1");
    for _ in 0..20_000 {
        script = script.bind("p").execute();
    }
    let bytes = script.sync().0;
    let mut writer = peer.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &bytes).unwrap());
    let tags = peer.tags();
    sender.join().unwrap();
    assert_eq!(tags.matches("2DC").count(), 20_000);
}
