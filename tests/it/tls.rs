//! TLS by clients that are particular: what they must say, and what binds their proof to it.

use std::io::{ErrorKind, Read, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use bytes::BytesMut;
use rcgen::{PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{AlertDescription, ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use tidegate::wire::build;

use crate::support::certs::Certs;
use crate::support::guarded::{guarded, reload};
use crate::support::peer::{Peer, Script};
use crate::support::psql::{answers, is_told};
use crate::support::scram::fields;
use crate::support::{Proxy, shared};

/// A proxy with TLS that everybody may enter.
async fn trusting(name: &str) -> (Certs, Proxy) {
    let certs = Certs::new(name);
    certs.issue("server", &["localhost"]);
    let (cert, key) = (certs.path("server.crt"), certs.path("server.key"));
    let variables = [("TIDEGATE_AUTH", "trust"), ("TIDEGATE_TLS_CERT", &cert), ("TIDEGATE_TLS_KEY", &key)];
    let proxy = Proxy::with(shared(), &variables).await;
    (certs, proxy)
}

/// A client that begins with TLS at once, and says that it speaks these.
fn direct(port: u16, certs: &Certs, protocols: &[&[u8]]) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certs.path("root.crt")).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let client = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    StreamOwned::new(client, Peer::open(port).stream)
}

/// The next message.
fn message(tls: &mut impl Read) -> std::io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    tls.read_exact(&mut head)?;
    let mut body = vec![0; u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize - 4];
    tls.read_exact(&mut body)?;
    Ok((head[0], body))
}

/// Whoever begins with TLS at once says that it is for PostgreSQL, or is refused: a client of something else may have been
/// led here (ALPACA).
#[tokio::test]
async fn tls_at_once_is_for_those_who_say_what_they_speak() {
    let (certs, proxy) = trusting("alpn").await;
    let mut silent = direct(proxy.port, &certs, &[]);
    let (tag, body) = message(&mut silent).unwrap();
    assert_eq!(tag, b'E');
    // And then the end, be it with a good-bye or without.
    assert!(!matches!(silent.read(&mut [0]), Ok(n) if n > 0), "it goes on");
    assert_eq!(
        fields(&body),
        "FATAL | 08P01 | received direct SSL connection request without ALPN protocol negotiation extension"
    );
    let error = message(&mut direct(proxy.port, &certs, &[b"http/1.1"])).unwrap_err();
    let told = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    assert_eq!(told, Some(&rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)));
    // Who has asked before needs not say it.
    let at = format!("host=localhost hostaddr=127.0.0.1 port={} user=postgres sslmode=require", proxy.port);
    answers(at, "SELECT 1", "1").await;
}

/// A client that has nothing to do is hung up on, too, when it sends what is no record, or what was tampered with.
#[tokio::test]
async fn a_broken_record_ends_a_connection_at_rest() {
    let (certs, proxy) = trusting("records").await;
    for record in [&b"what is no record"[..], b"\x17\x03\x03\x00\x14twenty bytes of it.."] {
        let mut tls = direct(proxy.port, &certs, &[b"postgresql"]);
        let mut packet = BytesMut::new();
        build::startup(&mut packet, &[("user", "postgres"), ("database", "postgres")]);
        tls.write_all(&packet).unwrap();
        for _ in 0..2 {
            while message(&mut tls).unwrap().0 != b'Z' {}
            tls.write_all(&Script::default().query("SELECT 1").0).unwrap();
        }
        while message(&mut tls).unwrap().0 != b'Z' {}
        tls.sock.write_all(record).unwrap();
        // Of what comes still, it can read no more than an alert.
        let mut rest = Vec::new();
        let end = tls.sock.read_to_end(&mut rest);
        assert!(!matches!(&end, Err(e) if e.kind() == ErrorKind::WouldBlock), "it goes on: {rest:?}");
    }
}

/// The proof is bound to the certificate by a hash of the kind that the certificate was signed with, on both sides of the
/// proxy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channel_binding_goes_by_the_hash_of_the_signature() {
    let cluster =
        guarded(0, "CREATE ROLE anna LOGIN PASSWORD 'p'", "hostssl all all all scram-sha-256").await;
    let (long, none) =
        (Certs::signed_by("sha384", &PKCS_ECDSA_P384_SHA384), Certs::signed_by("ed25519", &PKCS_ED25519));
    long.issue("node", &["localhost"]);
    long.give("node", &cluster.primary().data);
    cluster.primary().execute("ALTER SYSTEM SET ssl = on").await.unwrap();
    reload(cluster.primary()).await;
    let node = format!(
        "postgres://postgres@localhost:{}/postgres?sslmode=verify-full&sslrootcert={}",
        cluster.primary().port,
        long.path("root.crt")
    );
    for (certs, bound) in [(&long, true), (&none, false)] {
        certs.issue("server", &["localhost"]);
        let (cert, key) = (certs.path("server.crt"), certs.path("server.key"));
        let variables =
            [("TIDEGATE_AUTH", "scram"), ("TIDEGATE_TLS_CERT", &cert), ("TIDEGATE_TLS_KEY", &key)];
        let proxy = Proxy::before(std::slice::from_ref(&node), &variables).await;
        let at = |binding: &str| {
            format!(
                "host=localhost hostaddr=127.0.0.1 port={} dbname=postgres user=anna password=p sslmode=verify-full \
                 sslrootcert={} channel_binding={binding}",
                proxy.port,
                certs.path("root.crt")
            )
        };
        let encrypted = "SELECT current_user, ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        answers(at("prefer"), encrypted, "anna|t").await;
        if bound {
            answers(at("require"), encrypted, "anna|t").await;
        } else {
            // Ed25519 names no hash: RFC 5929 leaves such certificates without a binding, and libpq knows none.
            let words = "channel binding is required, but server did not offer an authentication method that \
                         supports channel binding";
            is_told(at("require"), words).await;
        }
    }
}
