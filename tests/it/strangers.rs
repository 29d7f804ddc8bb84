//! What somebody can do who has not logged in: little, and nothing that others notice. Most of it is tried on PostgreSQL
//! itself, too.

use std::collections::HashMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tidegate::auth::scram::MECHANISM;
use tidegate::demo::cluster::Cluster;
use tidegate::demo::scrape::get;
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

use crate::support::Proxy;
use crate::support::certs::Certs;
use crate::support::guarded::guarded;
use crate::support::peer::{Peer, Script};
use crate::support::proxy::{PATIENCE, connect, rows, value};
use crate::support::scram::{
    Half, Parameters, asked, expect, hello, initial, last_words, password, response, startup, told,
};
use crate::support::two_faced::{Tongue, two_faced};

const BY_SCRAM: &str = "host all all all scram-sha-256";

const PASSWORD: &str = "correct-horse";

const ROLES: &str = "\
    CREATE ROLE known LOGIN PASSWORD 'correct-horse';
    CREATE ROLE other LOGIN PASSWORD 'correct-horse';
    CREATE ROLE ended LOGIN PASSWORD 'correct-horse' VALID UNTIL '2001-01-01';
    CREATE ROLE shuts NOLOGIN PASSWORD 'correct-horse';
    CREATE ROLE barex LOGIN;
    SET password_encryption = 'md5';
    CREATE ROLE oldmd LOGIN PASSWORD 'correct-horse';";

/// One server of which everybody but the monitor has to prove who they are. The tests leave it as it was.
async fn shared() -> &'static Cluster {
    static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
    CLUSTER.get_or_init(|| guarded(0, ROLES, BY_SCRAM)).await
}

/// A proxy that lets nobody in without SCRAM.
async fn proxy(variables: &[(&str, &str)]) -> Proxy {
    Proxy::with(shared().await, &[&[("TIDEGATE_AUTH", "scram")], variables].concat()).await
}

/// Somebody who is in, and whom none of this may touch.
async fn bystander(proxy: &Proxy) -> Client {
    connect(&format!("postgres://other:{PASSWORD}@127.0.0.1:{}/postgres", proxy.port)).await
}

/// He goes on working, and others come in.
async fn all_is_well(proxy: &Proxy, bystander: &Client) {
    assert_eq!(value(bystander, "SELECT 40 + 2").await, "42");
    assert_eq!(value(&self::bystander(proxy).await, "SELECT current_user").await, "other");
}

fn is(told: Option<&String>, start: &str) -> bool {
    told.is_some_and(|told| told.starts_with(start))
}

/// CVE-2026-6668 and -107348 are about lengths from 2^31 on, -107349 is about options without a name.
#[tokio::test]
async fn impossible_startup_packets_are_refused() {
    let (proxy, server) = (proxy(&[]).await, shared().await.primary());
    let bystander = bystander(&proxy).await;
    for length in [0, 1, 4, 7, 10_001, 0x7fff_ffff, 0x8000_0000, 0x8000_0001, 0xffff_fffb, u32::MAX] {
        let mut peer = Peer::open(proxy.port);
        peer.send(&length.to_be_bytes());
        // Nobody waits for the rest.
        let words = last_words(&mut peer);
        assert!(is(words.as_ref(), "FATAL | 08P01"), "{length}: {words:?}");
    }
    // The longest that is taken.
    let name = [b'x'; 10_000 - 50];
    let long = startup(&[(b"user", b"known"), (b"database", b"postgres"), (b"application_name", &name)]);
    let cut = long.len() - 10_000;
    let longest =
        startup(&[(b"user", b"known"), (b"database", b"postgres"), (b"application_name", &name[cut..])]);
    assert_eq!(longest.len(), 10_000);
    let mut peer = Peer::open(proxy.port);
    peer.send(&longest);
    expect(&mut peer, 10);
    // Cut off anywhere.
    let whole = hello("known");
    for end in 0..whole.len() {
        assert_eq!(told(Peer::open(proxy.port), &whole[..end]), None, "{end}");
    }
    // Of the right length, and wrong inside.
    let packet = |body: &[u8]| {
        [&u32::try_from(8 + body.len()).unwrap().to_be_bytes()[..], &[0, 3, 0, 0], body].concat()
    };
    for body in [&b""[..], b"user", b"user\0known", b"user\0known\0", b"user\0known\0\0more", b"user\0\0\0"] {
        let words = told(Peer::open(proxy.port), &packet(body));
        let code = if body == b"user\0\0\0" { "FATAL | 28000" } else { "FATAL | 08P01" };
        assert!(is(words.as_ref(), code), "{body:?}: {words:?}");
        let theirs = told(Peer::open(server.port), &packet(body));
        assert!(theirs.is_none() || is(theirs.as_ref(), code), "{body:?}: {theirs:?}");
    }
    // What comes behind a wish for encryption may be somebody else's.
    let wish = [&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f][..], &whole].concat();
    let words = told(Peer::open(proxy.port), &wish);
    let refused = "FATAL | 08P01 | received unencrypted data after an encryption request";
    assert_eq!(words.as_deref(), Some(refused));
    // Whatever the options are, nobody comes in, waits or is stuck.
    for options in ["-c=", "-c =", "--=", "--", "-c", "-", "=", "-c-=", "\\", "-c \\"] {
        let packet = startup(&[(b"user", b"known"), (b"options", options.as_bytes())]);
        told(Peer::open(proxy.port), &packet);
    }
    all_is_well(&proxy, &bystander).await;
}

#[tokio::test]
async fn who_does_not_finish_is_shown_out() {
    let proxy = proxy(&[("TIDEGATE_POOL_LOGIN_TIMEOUT", "4s")]).await;
    let bystander = bystander(&proxy).await;
    let (hello, first) = (hello("known"), initial(MECHANISM, b"n,,n=,r=abc"));
    let stages = [
        &b""[..],
        &hello[..3],
        &hello[..20],
        &hello,
        &[&hello[..], &first[..9]].concat(),
        &[&hello[..], &first].concat(),
    ];
    let silent: Vec<_> = stages
        .iter()
        .map(|stage| {
            let mut peer = Peer::open(proxy.port);
            peer.send(stage);
            peer
        })
        .collect();
    // Who says a little again and again gets no more time: bytes of a long packet, and wishes for encryption.
    let (mut drip, mut wisher) = (Peer::open(proxy.port), Peer::open(proxy.port));
    drip.send(&[0, 0, 0x27, 0x10, 0, 3, 0, 0]);
    let began = Instant::now();
    while goes_on(&mut drip, b"x") | goes_on(&mut wisher, &[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]) {
        assert!(began.elapsed() < PATIENCE, "they are still there");
    }
    for (stage, mut peer) in stages.iter().zip(silent) {
        assert_eq!(last_words(&mut peer), None, "{stage:?}");
    }
    all_is_well(&proxy, &bystander).await;
}

/// The same with TLS on the way: a handshake that is no handshake, one that stops, and one that never begins.
#[tokio::test]
async fn who_does_not_finish_a_tls_handshake_is_shown_out() {
    let certs = Certs::new("strangers-tls");
    certs.issue("server", &["localhost"]);
    let (cert, key) = (certs.path("server.crt"), certs.path("server.key"));
    let limits = [
        ("TIDEGATE_POOL_LOGIN_TIMEOUT", "2s"),
        ("TIDEGATE_TLS_CERT", cert.as_str()),
        ("TIDEGATE_TLS_KEY", key.as_str()),
    ];
    let proxy = proxy(&limits).await;
    let bystander = bystander(&proxy).await;
    let request = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
    // The head of a record that says it has 16 KiB, and of a ClientHello that says it has 16 MiB.
    let (record, endless) = ([0x16, 3, 1, 0x40, 0], [0x16, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff]);
    let garbage = [b'x'; 64];
    let mut silent = Vec::new();
    for asked in [false, true] {
        for bytes in [&record[..], &endless, &garbage] {
            let mut peer = Peer::open(proxy.port);
            if asked {
                peer.send(&request);
                let mut answer = [0];
                peer.stream.read_exact(&mut answer).unwrap();
                assert_eq!(&answer, b"S");
            }
            // Garbage without having asked is a startup packet of an impossible length.
            peer.send(bytes);
            silent.push(peer);
        }
    }
    let mut asked = Peer::open(proxy.port);
    asked.send(&request);
    silent.push(asked);
    for peer in &mut silent {
        // An alert or an error, or nothing; and then the end.
        let mut rest = Vec::new();
        let ended = peer.stream.read_to_end(&mut rest);
        assert!(ended.is_ok() || ended.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
    }
    all_is_well(&proxy, &bystander).await;
}

/// Says something, and listens for a moment. Whether the connection is still there.
fn goes_on(peer: &mut Peer, bytes: &[u8]) -> bool {
    peer.stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    let said = peer.stream.write_all(bytes);
    match peer.stream.read(&mut [0; 16]) {
        Ok(n) => said.is_ok() && n > 0,
        Err(error) => said.is_ok() && matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

#[tokio::test]
async fn so_many_may_be_logging_in_and_no_more() {
    // One worker takes them in the order in which they come.
    let proxy = proxy(&[("TIDEGATE_AUTH_MAX_LOGINS", "3"), ("TIDEGATE_WORKERS", "1")]).await;
    let bystander = bystander(&proxy).await;
    let mut holders: Vec<_> = (0..3).map(|_| Half::of(proxy.port, "known", password(PASSWORD))).collect();
    // So many may stand in line.
    let mut line: Vec<_> = (0..30)
        .map(|_| {
            let mut peer = Peer::open(proxy.port);
            peer.send(&hello("known"));
            peer
        })
        .collect();
    let next = || told(Peer::open(proxy.port), &hello("known"));
    let full = "FATAL | 53300 | too many clients are logging in | Tidegate's limit is auth.max_logins, or what open files leave of it.";
    for _ in 0..10 {
        assert_eq!(next().as_deref(), Some(full));
    }
    assert_eq!(value(&bystander, "SELECT 40 + 2").await, "42");
    // One comes in, and makes room; so does one who is refused, and one who leaves.
    assert_eq!(holders[0].finish(), None);
    assert_eq!(line.remove(0).receive().unwrap().0, b'R');
    holders[1].client_final[10] ^= 1;
    assert!(holders[1].finish().is_some());
    assert_eq!(line.remove(0).receive().unwrap().0, b'R');
    drop(holders);
    assert_eq!(line.remove(0).receive().unwrap().0, b'R');
    // Those who are not served in time are told, or have gone.
    drop(line);
    assert_eq!(Half::of(proxy.port, "known", password(PASSWORD)).finish(), None);
    all_is_well(&proxy, &bystander).await;
}

/// CVE-2026-6664 was a length that wrapped around, -107350 a second startup packet in the midst of SCRAM.
#[tokio::test]
async fn what_is_no_sasl_message_is_refused() {
    let (proxy, server) = (proxy(&[]).await, shared().await.primary());
    let bystander = bystander(&proxy).await;
    let lying =
        |len: u32, data: &[u8]| response(&[MECHANISM.as_bytes(), b"\0", &len.to_be_bytes(), data].concat());
    let long = vec![b'x'; 2_000];
    let again = startup(&[(b"user", b"postgres"), (b"database", b"postgres")]);
    let mut table = vec![
        ("a query", Script::default().query("SELECT 1").0.to_vec(), "08P01"),
        ("a goodbye", Script::default().bare(b'X').0.to_vec(), "08P01"),
        ("a Sync", Script::default().sync().0.to_vec(), "08P01"),
        ("another startup packet", again, "08P01"),
        ("a length of 0", b"p\0\0\0\0".to_vec(), "08P01"),
        ("a length of 3", b"p\0\0\0\x03".to_vec(), "08P01"),
        ("a length of 64 KiB", b"p\0\x01\0\0".to_vec(), "08P01"),
        ("a length of 2^31", b"p\x80\0\0\0".to_vec(), "08P01"),
        ("a length of -1", b"p\xff\xff\xff\xff".to_vec(), "08P01"),
        ("nothing", response(b""), "08P01"),
        ("no end of the name", response(MECHANISM.as_bytes()), "08P01"),
        ("no length", response(b"SCRAM-SHA-256\0"), "08P01"),
        ("a clear password", response(b"correct-horse\0"), "08P01"),
        ("PLAIN", initial("PLAIN", b"\0known\0correct-horse"), "08P01"),
        ("PLUS without TLS", initial("SCRAM-SHA-256-PLUS", b"p=tls-server-end-point,,n=,r=abc"), "08P01"),
        ("SHA-1", initial("SCRAM-SHA-1", b"n,,n=,r=abc"), "08P01"),
        ("no mechanism", initial("", b"n,,n=,r=abc"), "08P01"),
        ("a length too long", lying(12, b"n,,n=,r=abc"), "08P01"),
        ("a length too short", lying(10, b"n,,n=,r=abc"), "08P01"),
        ("a length that wraps around", lying(0x7fff_ffff, b"n,,n=,r=abc"), "08P01"),
        ("a length of -2", lying(0xffff_fffe, b"n,,n=,r=abc"), "08P01"),
        ("-1, and data behind it", lying(u32::MAX, b"n,,n=,r=abc"), "08P01"),
        ("too much", initial(MECHANISM, &[b"n,,n=,r=", &long[..]].concat()), "08P01"),
    ];
    for (message, code) in [
        (&b""[..], "08P01"),
        (b"n", "08P01"),
        (b"x,,n=,r=abc", "08P01"),
        (b"p=tls-server-end-point,,n=,r=abc", "08P01"),
        (b"n,a=postgres,n=,r=abc", "0A000"),
        (b"n,,m=ext,n=,r=abc", "0A000"),
        (b"n,,r=abc", "08P01"),
        (b"n,,n=", "08P01"),
        (b"n,,n=,r", "08P01"),
        (b"n,,n=,r=a\x01c", "08P01"),
        (b"n,,n=,r=\xff\xfe", "08P01"),
        (b"n,,n=,r=abc\0def", "08P01"),
        (b"n,,n=,r=abc\0", "08P01"),
        (b"\0", "08P01"),
    ] {
        table.push(("client-first-message", initial(MECHANISM, message), code));
    }
    for (what, bytes, code) in table {
        let words = told(asked(proxy.port, "known"), &bytes);
        let start = format!("FATAL | {code} | ");
        assert!(is(words.as_ref(), &start), "{what} {bytes:?}: {words:?}");
        // A message without a proper length, or one too long, counts for PostgreSQL as none at all.
        let whole = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize + 1 == bytes.len();
        if whole && bytes.len() < 1_024 {
            let theirs = told(asked(server.port, "known"), &bytes);
            assert!(is(theirs.as_ref(), &start), "{what} {bytes:?}: {theirs:?}");
        }
    }
    all_is_well(&proxy, &bystander).await;
}

/// PostgreSQL's details of a malformed message name the letter that it has found.
fn undetailed(told: String) -> String {
    told.splitn(4, " | ").take(3).collect::<Vec<_>>().join(" | ")
}

/// CVE-2026-19888 was a last message without one of its parts.
#[tokio::test]
async fn scram_cut_off_anywhere_lets_nobody_in() {
    let (proxy, server) = (proxy(&[]).await, shared().await.primary());
    let bystander = bystander(&proxy).await;
    let mut whole = Half::of(proxy.port, "known", password(PASSWORD));
    let keys = whole.keys(PASSWORD);
    assert_eq!(whole.finish(), None);
    let half = |port: u16| Half::of(port, "known", keys.clone());
    // The first message, as what it is, and with the connection.
    let first = &whole.client_first;
    for end in 0..first.len() {
        let bytes = initial(MECHANISM, &first[..end]);
        let both = [proxy.port, server.port].map(|port| told(asked(port, "known"), &bytes).map(undetailed));
        // A nonce may be short; PostgreSQL takes an empty one, which RFC 5802 has not.
        assert_eq!(both[0].is_none(), first[..end].starts_with(b"n,,n=,r=") && end > 8, "{end}: {both:?}");
        assert!(both[0] == both[1] || end == 8, "{end}: {both:?}");
    }
    let bytes = initial(MECHANISM, first);
    for end in 0..bytes.len() {
        assert_eq!(told(asked(proxy.port, "known"), &bytes[..end]), None, "{end}");
    }
    // The last one. Of a proof without its padding PostgreSQL says the same.
    let len = response(&whole.client_final).len();
    for end in 0..len {
        let Half { peer, client_final, .. } = half(proxy.port);
        assert_eq!(told(peer, &response(&client_final)[..end]), None, "{end}");
    }
    for end in 0..whole.client_final.len() {
        let both = [proxy.port, server.port].map(|port| {
            let Half { peer, client_final, .. } = half(port);
            told(peer, &response(&client_final[..end])).map(undetailed)
        });
        assert!(is(both[0].as_ref(), "FATAL | 08P01 | "), "{end}: {both:?}");
        assert_eq!(both[0], both[1], "{end}");
    }
    all_is_well(&proxy, &bystander).await;
}

#[tokio::test]
async fn scram_replayed_reordered_or_bent_lets_nobody_in() {
    let (proxy, server) = (proxy(&[]).await, shared().await.primary());
    let bystander = bystander(&proxy).await;
    let wrong = "FATAL | 28P01 | password authentication failed for user \"known\"";
    let stale = "FATAL | 08P01 | invalid SCRAM response | Nonce does not match.";
    for port in [proxy.port, server.port] {
        let mut recorded = Half::of(port, "known", password(PASSWORD));
        let keys = recorded.keys(PASSWORD);
        assert_eq!(recorded.finish(), None);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let (first, last) = (initial(MECHANISM, &recorded.client_first), text(&recorded.client_final));
        // The same bytes again: the server's part of the nonce is another.
        let mut peer = asked(port, "known");
        peer.send(&first);
        let server_first = text(&expect(&mut peer, 11));
        assert_ne!(server_first.as_bytes(), &recorded.server_first[..]);
        assert_eq!(told(peer, &response(last.as_bytes())).as_deref(), Some(stale));
        // With the new nonce the old proof is wrong.
        let mut peer = asked(port, "known");
        peer.send(&first);
        let server_first = text(&expect(&mut peer, 11));
        let nonce = server_first.split(',').next().unwrap();
        let proof = &last[last.find(",p=").unwrap()..];
        let bent = format!("c=biws,{nonce}{proof}");
        assert_eq!(told(peer, &response(bent.as_bytes())).as_deref(), Some(wrong));
        // The proof of one login in another that is under way at the same time, of the same role or another one.
        let (one, two) = (Half::of(port, "known", keys.clone()), Half::of(port, "known", keys.clone()));
        assert_eq!(told(one.peer, &response(&two.client_final)).as_deref(), Some(stale));
        let swapped = Half::of(port, "other", keys.clone());
        let words = told(swapped.peer, &response(&swapped.client_final));
        assert_eq!(words.as_deref(), Some(&*wrong.replace("known", "other")));
        // In another order: the last message first, the first one twice, all at once.
        let words = told(asked(port, "known"), &response(last.as_bytes()));
        assert!(is(words.as_ref(), "FATAL | 08P01 | "), "{words:?}");
        let words = told(asked(port, "known"), &initial(MECHANISM, last.as_bytes()));
        assert!(is(words.as_ref(), "FATAL | 08P01 | malformed SCRAM message"), "{words:?}");
        let words = told(asked(port, "known"), &[&first[..], &first].concat());
        assert!(is(words.as_ref(), "FATAL | 08P01 | malformed SCRAM message"), "{words:?}");
        let words = told(asked(port, "known"), &[&first[..], &response(last.as_bytes())].concat());
        assert_eq!(words.as_deref(), Some(stale));
        // A query in the place of the proof, and before all.
        for query in [false, true] {
            let half = Half::of(port, "known", keys.clone());
            let peer = if query { half.peer } else { asked(port, "known") };
            let words = told(peer, &Script::default().query("SELECT 1").0);
            let expected = "FATAL | 08P01 | expected SASL response, got message type 81";
            assert_eq!(words.as_deref(), Some(expected));
        }
        // Bent in any way.
        let bend = |from: &str, to: &str| {
            let Half { peer, client_final, .. } = Half::of(port, "known", keys.clone());
            let bent = text(&client_final).replacen(from, to, 1);
            told(peer, &response(bent.as_bytes()))
        };
        for (from, to, code) in [
            ("c=biws", "c=eSws", "08P01"),
            ("c=biws", "c=cD10bHMtc2VydmVyLWVuZC1wb2ludCwsAAAA", "08P01"),
            ("c=biws,", "", "08P01"),
            (",r=", ",s=", "08P01"),
            (",r=", ",r=x", "08P01"),
            (",p=", ",q=", "08P01"),
            (",p=", ",p=AAAA", "08P01"),
            (",p=", ",x=y,p=", "28P01"),
            ("=", "\0", "08P01"),
        ] {
            let words = bend(from, to);
            assert!(is(words.as_ref(), &format!("FATAL | {code} | ")), "{from} {to}: {words:?}");
        }
        // Who is in says nothing of the kind any more.
        let mut inside = Half::of(port, "known", keys);
        assert_eq!(inside.finish(), None);
        inside.peer.until(b'Z');
        let words = told(inside.peer, &response(last.as_bytes()));
        assert_eq!(words.as_deref(), Some("FATAL | 08P01 | invalid frontend message type 112"));
    }
    all_is_well(&proxy, &bystander).await;
}

/// Names that somebody could take for something else. All begin alike, so that the log can be searched for them.
const NAMES: [&[u8]; 16] = [
    b"NAME'; DROP TABLE witness; --",
    b"NAME\"; DROP TABLE witness; --",
    b"NAME\\'; DROP TABLE witness; --",
    b"NAME$$; DROP TABLE witness; $$",
    b"NAME $1 ${PATH} %s%n%x {} {user}",
    b"NAME\n2026-01-01T00:00:00.000000Z  INFO tidegate: NAME",
    b"NAME\r\nNAME\x1b[31m\x07\x08",
    b"NAME\xff\xfe\x80",
    b"NAME\xe2\x80\xaeEMAN \xc2\x85",
    b"NAME \xf0\x9f\x90\x98 \xd7\xa9\xd7\x9c",
    b"NAME,all;/ \t ",
    b"KNOWN",
    b" known",
    b"known ",
    b"known'--",
    // One byte more than a name may have, and very many.
    b"NAMExxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
];

/// What the whole login ends with; `None` if it lets in.
fn ends(port: u16, parameters: Parameters<'_>, secret: &str) -> Option<String> {
    let mut peer = Peer::open(port);
    peer.send(&startup(parameters));
    expect(&mut peer, 10);
    Half::on(peer, password(secret)).finish()
}

/// CVE-2026-6667, and PgDog's #1053: there is no name of a database by which a console could be reached.
#[tokio::test]
async fn names_are_only_names() {
    let (proxy, server) = (proxy(&[]).await, shared().await.primary());
    let bystander = bystander(&proxy).await;
    let admin = server.connect().await.unwrap();
    admin.batch_execute("CREATE TABLE witness (x int)").await.unwrap();
    let very_long = [b'x'; 9_000];
    for name in NAMES.into_iter().chain([&very_long[..]]) {
        let user = [(&b"user"[..], name), (b"database", b"postgres")];
        let [ours, theirs] = [proxy.port, server.port].map(|port| ends(port, &user, PASSWORD));
        assert!(is(ours.as_ref(), "FATAL | 28P01 | password authentication failed for user \""), "{ours:?}");
        assert_eq!(ours, theirs);
        let database = [(&b"user"[..], &b"known"[..]), (b"database", name)];
        let [ours, theirs] = [proxy.port, server.port].map(|port| ends(port, &database, PASSWORD));
        assert!(is(ours.as_ref(), "proven | FATAL | 3D000 | database \""), "{ours:?}");
        assert_eq!(ours, theirs);
    }
    for name in ["tidegate", "pgbouncer", "pgdog", "pgcat", "admin", "console"] {
        let database = [(&b"user"[..], &b"known"[..]), (b"database", name.as_bytes())];
        let words = ends(proxy.port, &database, "wrong");
        assert_eq!(
            words.as_deref(),
            Some("FATAL | 28P01 | password authentication failed for user \"known\"")
        );
        let words = ends(proxy.port, &database, PASSWORD);
        assert_eq!(words, Some(format!("proven | FATAL | 3D000 | database \"{name}\" does not exist")));
    }
    assert_eq!(value(&admin, "SELECT count(*) FROM witness").await, "0");
    admin.batch_execute("DROP TABLE witness").await.unwrap();
    all_is_well(&proxy, &bystander).await;
}

/// Names stand in the log, and only as names; what proves something does not stand there.
#[tokio::test]
async fn the_log_holds_no_secret_and_no_line_of_a_strangers() {
    let cluster = shared().await;
    let file = cluster.dir().join("tidegate.log");
    let log = fs::File::create(&file).unwrap();
    let rules = "host all oldmd all md5; host all all all scram-sha-256";
    let variables = [("TIDEGATE_LOG", "debug"), ("TIDEGATE_AUTH_RULES", rules)];
    let proxy = Proxy::logging(&[cluster.primary().url()], &variables, Stdio::from(log)).await;
    for name in NAMES {
        for parameters in [
            [(&b"user"[..], name), (b"database", b"postgres")],
            [(b"user", b"known"), (b"database", name)],
            [(b"user", b"known"), (b"application_name", name)],
            [(b"user", b"known"), (name, b"on")],
            [(b"user", b"known"), (b"tidegate.consistency", name)],
            [(b"user", b"known"), (b"options", &[b"-c ", &escaped(name)[..]].concat())],
        ] {
            told(Peer::open(proxy.port), &startup(&parameters));
            let mut peer = Peer::open(proxy.port);
            peer.send(&startup(&parameters));
            if peer.receive().unwrap().0 == b'R' {
                Half::on(peer, password("wr0ng-horse")).finish();
            }
        }
        ends(proxy.port, &[(b"user", b"known"), (b"database", name)], PASSWORD);
    }
    let mut half = Half::of(proxy.port, "known", password(PASSWORD));
    assert_eq!(half.finish(), None);
    let mut wrong = Half::of(proxy.port, "known", password("wr0ng-horse"));
    assert!(wrong.finish().is_some());
    let url = format!("postgres://oldmd:{PASSWORD}@127.0.0.1:{}/postgres", proxy.port);
    // The server takes no md5 hash.
    assert!(tokio_postgres::connect(&url, NoTls).await.is_err());
    told(asked(proxy.port, "known"), &response(b"cl3ar-horse\0"));
    let admin = cluster.primary().connect().await.unwrap();
    let stored = rows(&admin, "SELECT rolpassword FROM pg_authid WHERE rolname IN ('known', 'oldmd')").await;
    let mut secrets = vec![PASSWORD.to_owned(), "wr0ng-horse".to_owned(), "cl3ar-horse".to_owned()];
    for text in &stored {
        secrets.extend(text.split(['$', ':']).skip(usize::from(text.contains('$'))).map(str::to_owned));
    }
    for message in [&half.client_first, &half.server_first, &half.client_final, &wrong.client_final] {
        let message = String::from_utf8(message.clone()).unwrap();
        let parts = message.split(',').filter_map(|part| part.split_once('='));
        secrets.extend(parts.map(|(_, value)| value.to_owned()));
    }
    secrets.retain(|secret| secret.len() > 8);
    assert!(secrets.len() >= 3 + 4 + 7, "{}", secrets.len());
    // Beyond what it is started with, it has no file open.
    for open in fs::read_dir(format!("/proc/{}/fd", proxy.child.id())).unwrap() {
        let path = open.unwrap().path();
        let given = ["0", "1", "2"].iter().any(|number| path.ends_with(number));
        assert!(given || !fs::metadata(&path).unwrap().is_file(), "{:?}", fs::read_link(&path));
    }
    let text = fs::read_to_string(&file).unwrap();
    let pages =
        [get(proxy.http, "/metrics").await.unwrap().1, get(proxy.http, "/api/status").await.unwrap().1];
    for secret in &secrets {
        assert!(!text.contains(secret), "{secret} is in the log");
        assert!(!pages.iter().any(|page| page.contains(secret)), "{secret} is on a page");
    }
    assert!(text.matches("NAME").count() > 2 * NAMES.len(), "the names are not logged");
    for line in text.lines().filter(|line| line.contains("NAME")) {
        let time = line.get(..27).unwrap_or_default();
        assert!(time.ends_with('Z') && !time.starts_with("2026-01-01T00:00:00.000000"), "{line:?}");
        let hidden = |c: char| c.is_control() || c == '\u{202e}';
        assert!(!line.contains(hidden), "{line:?}");
    }
    assert_eq!(value(&bystander(&proxy).await, "SELECT 1").await, "1");
}

/// As the options of a startup packet take it: a space would end a word there.
fn escaped(name: &[u8]) -> Vec<u8> {
    let backslash = |byte: u8| if byte.is_ascii_whitespace() { vec![b'\\', byte] } else { vec![byte] };
    name.iter().copied().flat_map(backslash).collect()
}

/// Everybody who cannot log in hears the same, in the same steps. CVE-2025-2291 was a password past its VALID UNTIL.
#[tokio::test]
async fn nobody_learns_who_there_is() {
    let (proxy, server) = (proxy(&[]).await, shared().await.primary());
    let bystander = bystander(&proxy).await;
    let names = ["known", "ended", "shuts", "barex", "oldmd", "nobod", "never"];
    let mut salts: HashMap<&str, Vec<u8>> = HashMap::new();
    let mut shapes = Vec::new();
    for round in 0..3 {
        for name in names {
            // All that is right about those that may not come in is their password.
            let secret = if ["known", "shuts"].contains(&name) { "wrong" } else { PASSWORD };
            let mut peer = Peer::open(proxy.port);
            peer.send(&hello(name));
            let offer = expect(&mut peer, 10);
            let mut half = Half::on(peer, password(secret));
            let salt = salts.entry(name).or_insert_with(|| half.salt());
            assert_eq!(*salt, half.salt(), "{name} in round {round}");
            let words = half.finish().unwrap();
            let told = format!("FATAL | 28P01 | password authentication failed for user \"{name}\"");
            assert_eq!(words, told);
            let iterations = half.server_first.rsplit(|b| *b == b',').next().unwrap().to_vec();
            shapes.push((offer, half.server_first.len(), iterations, words.len()));
            assert_eq!(last_words(&mut half.peer), None);
        }
    }
    assert!(shapes.iter().all(|shape| *shape == shapes[0]), "{shapes:?}");
    let mut different: Vec<_> = salts.values().collect();
    different.sort();
    different.dedup();
    assert_eq!(different.len(), names.len());
    // PostgreSQL says just that to all of them.
    for name in names {
        let secret = if ["known", "shuts"].contains(&name) { "wrong" } else { PASSWORD };
        let both = [proxy.port, server.port].map(|port| Half::of(port, name, password(secret)).finish());
        assert_eq!(both[0], both[1]);
    }
    // Before it is known who asks, nothing is said about databases and settings either.
    for (name, bytes) in
        [("database", "nowhere"), ("work_mem", "much"), ("nonsense", "x"), ("role", "postgres")]
    {
        for user in ["known", "nobod"] {
            let parameters = [(&b"user"[..], user.as_bytes()), (name.as_bytes(), bytes.as_bytes())];
            let told = format!("FATAL | 28P01 | password authentication failed for user \"{user}\"");
            assert_eq!(ends(proxy.port, &parameters, "wrong"), Some(told), "{name}");
        }
    }
    all_is_well(&proxy, &bystander).await;
}

/// Everything in a schema of somebody else's that could be taken for what a login asks for: each gives the password
/// `trojan`.
const TRAPS: &str = "\
    CREATE ROLE known LOGIN PASSWORD 'correct-horse';
    CREATE ROLE trojan LOGIN PASSWORD 'trojan';
    CREATE ROLE watcher LOGIN;
    CREATE SCHEMA evil;
    CREATE TABLE evil.pg_authid AS SELECT rolname, true AS rolcanlogin, NULL::timestamptz AS rolvaliduntil, \
        (SELECT rolpassword FROM pg_authid WHERE rolname = 'trojan') FROM pg_authid;
    CREATE VIEW evil.pg_shadow AS SELECT rolname AS usename, rolpassword AS passwd FROM evil.pg_authid;
    CREATE FUNCTION evil.verifier(text) RETURNS TABLE(password text, can_login boolean, seconds_left float8) \
        LANGUAGE sql AS 'SELECT rolpassword, true, NULL::float8 FROM evil.pg_authid LIMIT 1';
    CREATE FUNCTION evil.is_trojan(name, text) RETURNS boolean LANGUAGE sql AS 'SELECT $1::text OPERATOR(pg_catalog.=) ''trojan''';
    CREATE OPERATOR evil.= (LEFTARG = name, RIGHTARG = text, FUNCTION = evil.is_trojan);
    GRANT USAGE ON SCHEMA evil TO PUBLIC;
    GRANT SELECT ON ALL TABLES IN SCHEMA evil TO PUBLIC;";

/// CVE-2025-12819: what a client sets for its session must not change what its own login is checked by.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_parameter_reaches_the_question_for_the_password() {
    let cluster = guarded(0, TRAPS, BY_SCRAM).await;
    let server = cluster.primary();
    crate::setup::set_up(&server.url(), "watcher");
    let superuser = [server.url()];
    let watcher = [server.url().replacen("postgres@", "watcher@", 1)];
    // An answer is asked for anew each time.
    let variables = [("TIDEGATE_AUTH", "scram"), ("TIDEGATE_AUTH_CACHE", "1ms")];
    let wrong = "FATAL | 28P01 | password authentication failed for user \"known\"";
    for everywhere in [false, true] {
        if everywhere {
            // The monitor's own sessions would begin with them.
            let set = "SET search_path = evil, pg_catalog, pg_temp";
            for whose in ["DATABASE postgres", "ROLE postgres", "ROLE watcher", "ROLE known"] {
                server.execute(&format!("ALTER {whose} {set}")).await.unwrap();
            }
            // It is a trap for those who look there.
            let admin = server.connect().await.unwrap();
            let found = value(
                &admin,
                "SELECT rolpassword FROM pg_authid WHERE rolname OPERATOR(pg_catalog.=) 'known'",
            );
            let trojan = "SELECT rolpassword FROM pg_catalog.pg_authid WHERE rolname::text = 'trojan'";
            assert_eq!(found.await, value(&admin, trojan).await);
        }
        for urls in [&superuser, &watcher] {
            let proxy = Proxy::before(urls, &variables).await;
            for (name, text) in [
                ("search_path", "evil,pg_temp"),
                ("search_path", "evil, pg_catalog"),
                ("SEARCH_PATH", "evil, pg_catalog"),
                ("options", "-csearch_path=evil"),
                ("options", "--search-path=evil,pg_catalog"),
                ("options", "-c role=trojan"),
                ("session_authorization", "trojan"),
                ("role", "trojan"),
                ("is_superuser", "on"),
                ("application_name", "evil"),
            ] {
                let parameters = [
                    (&b"user"[..], &b"known"[..]),
                    (b"database", b"postgres"),
                    (name.as_bytes(), text.as_bytes()),
                ];
                let words = ends(proxy.port, &parameters, "trojan");
                assert_eq!(words.as_deref(), Some(wrong), "{name}={text}");
                // The right one comes in, or is told what PostgreSQL tells.
                let both = [proxy.port, server.port].map(|port| ends(port, &parameters, PASSWORD));
                assert_eq!(both[0], both[1], "{name}={text}");
            }
            // It is the session's all the same.
            let at = format!("127.0.0.1:{}/postgres?options=-csearch_path%3Devil", proxy.port);
            let client = connect(&format!("postgres://known:{PASSWORD}@{at}")).await;
            assert_eq!(value(&client, "SHOW search_path").await, "evil");
            assert_eq!(value(&client, "SELECT current_user, session_user").await, "known|known");
        }
    }
}

/// CVE-2026-6666 was an error without SQLSTATE, -6665 a long nonce, -6669 hashing without end: all from a server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_answers_nonsense_harms_nobody() {
    let target = shared().await.primary().port;
    let error = |body: &[u8]| Tongue::Says(Script::default().message(b'E', body).0.to_vec());
    for (what, tongue) in [
        ("no field at all", error(b"\0")),
        ("not even an end", error(b"")),
        ("no SQLSTATE", error(b"SFATAL\0Mno\0\0")),
        ("an empty SQLSTATE", error(b"SFATAL\0C\0Mno\0\0")),
        ("a short SQLSTATE", error(b"SFATAL\0C28\0Mno\0\0")),
        ("only a SQLSTATE", error(b"C28P01\0\0")),
        ("a field that is cut off", error(b"SFATAL\0C28P0")),
        ("a name without a field", error(b"C")),
        ("a length of 3", Tongue::Says(b"E\0\0\0\x03".to_vec())),
        ("a length of 2^31", Tongue::Says(b"R\x80\0\0\0".to_vec())),
        ("a length of -1", Tongue::Says(b"R\xff\xff\xff\xff".to_vec())),
        ("nothing", Tongue::Says(Vec::new())),
        ("a nonce of 60 kB", Tongue::Scram(60_000, "4096")),
        ("a nonce of 1 MB", Tongue::Scram(1_000_000, "4096")),
        ("2147483647 rounds", Tongue::Scram(18, "2147483647")),
        ("4294967297 rounds", Tongue::Scram(18, "4294967297")),
        ("no round", Tongue::Scram(18, "0")),
        ("-1 rounds", Tongue::Scram(18, "-1")),
        ("a million rounds, to whoever has the keys", Tongue::Scram(18, "1000000")),
    ] {
        let port = two_faced(target, tongue).await;
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres?sslmode=disable");
        let proxy = Proxy::before(&[url], &[("TIDEGATE_AUTH", "scram")]).await;
        let bystander = bystander(&proxy).await;
        let url = format!("postgres://known:{PASSWORD}@127.0.0.1:{}/postgres", proxy.port);
        let attempt = tokio_postgres::connect(&url, NoTls);
        let error = tokio::time::timeout(PATIENCE, attempt).await.expect(what).err().unwrap();
        let code =
            error.as_db_error().unwrap_or_else(|| panic!("{what}: {error:?}")).code().code().to_owned();
        assert!(code.len() == 5 && code.bytes().all(|b| b.is_ascii_alphanumeric()), "{what}: {code:?}");
        all_is_well(&proxy, &bystander).await;
    }
}

#[tokio::test]
async fn crowds_of_strangers_leave_nothing_behind() {
    let proxy = proxy(&[("TIDEGATE_AUTH_MAX_LOGINS", "100")]).await;
    let bystander = bystander(&proxy).await;
    let value_of_name = [b'x'; 9_000];
    let crowd = async |round: usize| {
        // Each of another name, so that nothing is known of it.
        for number in 0..200 {
            let user = format!("r{round}n{number}");
            let packet = startup(&[(b"user", user.as_bytes()), (b"application_name", &value_of_name)]);
            let mut peer = Peer::open(proxy.port);
            // Who is refused already hears nothing any more.
            let _ = peer.stream.write_all(&packet[..if number % 4 == 0 { 8_000 } else { packet.len() }]);
            let _ = peer.stream.write_all(&[b'x'; 100]);
        }
        assert_eq!(value(&bystander, "SELECT 40 + 2").await, "42");
    };
    for round in 0..5 {
        crowd(round).await;
    }
    let before = proxy.peak();
    for round in 5..25 {
        crowd(round).await;
    }
    let grown = proxy.peak() - before;
    // They have sent 36 MB, and named 3,000 roles, which are remembered for a while. Five times as many add no more than 8 to
    // 11 MB; it is the peak, which hangs on how many are there at a time.
    assert!(grown < 16 * 1024 * 1024, "{grown} bytes were kept");
    let began = Instant::now();
    while told(Peer::open(proxy.port), &hello("known")).is_some() {
        assert!(began.elapsed() < PATIENCE, "no place comes free");
    }
    all_is_well(&proxy, &bystander).await;
}
