//! Both sides of SCRAM, against the RFC and against each other.

use proptest::prelude::*;

use super::binding::{Binding, EndPoint};
use super::client::{self, Answer, AwaitServerFinal, AwaitServerFirst, Knowledge};
use super::key::{Iterations, ScramKeys, Verifier};
use super::message::{MAX_FROM_CLIENT, MAX_FROM_SERVER, Nonce, ScramError};
use super::server::{AwaitClientFirst, AwaitProof, MockSecret, ServerExchange};
use super::{MECHANISM, MECHANISM_PLUS};

// RFC 7677, section 3.
const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const CLIENT_FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
    s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
    p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

fn password(text: &str) -> Knowledge {
    Knowledge::Password(text.to_owned())
}

fn rfc_verifier() -> Verifier {
    let salt = super::key::decode_salt(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    Verifier::from_password("pencil", &salt, Iterations::default())
}

fn few(count: u32) -> Iterations {
    Iterations::new(count).unwrap()
}

fn end_point(hash: &[u8]) -> EndPoint {
    EndPoint::new(hash).unwrap()
}

/// A server without TLS whose client has selected the only mechanism.
fn server(verifier: &Verifier, nonce: &str) -> AwaitClientFirst {
    ServerExchange::new(verifier, Nonce::of(nonce), None).select(MECHANISM.as_bytes()).unwrap()
}

/// A server with TLS whose client has selected this mechanism.
fn tls_server(verifier: &Verifier, mechanism: &str) -> AwaitClientFirst {
    let exchange = ServerExchange::new(verifier, Nonce::of("ss"), Some(end_point(b"ours")));
    exchange.select(mechanism.as_bytes()).unwrap()
}

fn start(knowledge: Knowledge, nonce: &str) -> (Vec<u8>, AwaitServerFirst) {
    client::start(knowledge, Nonce::of(nonce), Binding::Unable)
}

/// The client's last message, hashing done.
fn prove(client: AwaitServerFirst, challenge: &[u8]) -> Result<(Vec<u8>, AwaitServerFinal), ScramError> {
    Ok(match client.server_first(challenge)? {
        Answer::Final(proof, next) => (proof, next),
        Answer::Hash(job, next) => next.hashed(&job.run()),
    })
}

/// An exchange up to the proof, which is not checked yet.
fn up_to_proof(verifier: &Verifier, knowledge: Knowledge) -> (AwaitProof, Vec<u8>, AwaitServerFinal) {
    let (first, client) = start(knowledge, "cc");
    let (challenge, server) = server(verifier, "ss").client_first(&first).unwrap();
    let (proof, client) = prove(client, &challenge).unwrap();
    (server, proof, client)
}

#[test]
fn our_client_speaks_as_in_rfc_7677() {
    let (first, exchange) =
        client::start_as("user", password("pencil"), Nonce::of(CLIENT_NONCE), Binding::Unable);
    assert_eq!(first, CLIENT_FIRST.as_bytes());
    let (last, exchange) = prove(exchange, SERVER_FIRST.as_bytes()).unwrap();
    assert_eq!(last, CLIENT_FINAL.as_bytes());
    exchange.server_final(SERVER_FINAL.as_bytes()).unwrap();
}

#[test]
fn our_server_speaks_as_in_rfc_7677() {
    let verifier = rfc_verifier();
    let (first, exchange) = server(&verifier, SERVER_NONCE).client_first(CLIENT_FIRST.as_bytes()).unwrap();
    assert_eq!(first, SERVER_FIRST.as_bytes());
    let (last, key) = exchange.client_final(CLIENT_FINAL.as_bytes()).unwrap();
    assert_eq!(last, SERVER_FINAL.as_bytes());
    assert_eq!(key.stored_key(), verifier.stored_key);
}

#[test]
fn what_we_cannot_do_is_refused() {
    let first = |text: &str| server(&rfc_verifier(), "s").client_first(text.as_bytes());
    for (text, wanted) in [("n,a=other,n=,r=c", "authorization identity"), ("n,,m=must,n=,r=c", "extension")]
    {
        match first(text) {
            Err(ScramError::Unsupported(why)) => assert!(why.contains(wanted)),
            other => panic!("{other:?}"),
        }
    }
    // Having said `y`, the second message must say so as well: else somebody in between hid our offer.
    let (_, exchange) = first("y,,n=,r=c").unwrap();
    assert_eq!(exchange.client_final(b"c=biws,r=cs,p=AAAA").map(|_| ()), Err(ScramError::ChannelBinding));
}

#[test]
fn a_bound_exchange_is_good_for_its_certificate_only() {
    let verifier = Verifier::from_password("a", b"salt", few(2));
    let run = |seen: &[u8]| {
        let binding = Binding::To(end_point(seen));
        assert_eq!(binding.mechanism(), MECHANISM_PLUS);
        let (first, client) = client::start(password("a"), Nonce::of("cc"), binding);
        assert_eq!(first, b"p=tls-server-end-point,,n=,r=cc");
        let (challenge, server) = tls_server(&verifier, MECHANISM_PLUS).client_first(&first)?;
        let (proof, client) = prove(client, &challenge)?;
        let (signature, key) = server.client_final(&proof)?;
        assert_eq!(key.stored_key(), verifier.stored_key);
        client.server_final(&signature)
    };
    assert_eq!(run(b"ours"), Ok(()));
    // Somebody in between has shown a certificate of its own.
    assert_eq!(run(b"theirs"), Err(ScramError::BindingCheck));
    // It cannot put our certificate into the message either: the proof is about the whole of it.
    let binding = || Binding::To(end_point(b"theirs"));
    let (first, client) = client::start(password("a"), Nonce::of("cc"), binding());
    let (challenge, server) = tls_server(&verifier, MECHANISM_PLUS).client_first(&first).unwrap();
    let (proof, _) = prove(client, &challenge).unwrap();
    let proof = String::from_utf8(proof).unwrap();
    let patched = proof.replace(&binding().echo(), &Binding::To(end_point(b"ours")).echo());
    assert_ne!(patched, proof);
    assert_eq!(server.client_final(patched.as_bytes()).map(|_| ()), Err(ScramError::Proof));
}

#[test]
fn what_a_client_says_of_binding_must_go_with_its_mechanism() {
    let without = "The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include \
        channel binding data.";
    let with = "The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes \
        channel binding data.";
    for (mechanism, first, wanted) in [
        (MECHANISM, "n,,n=,r=c", None),
        (MECHANISM, "y,,n=,r=c", Some(ScramError::Downgrade)),
        (MECHANISM, "p=tls-server-end-point,,n=,r=c", Some(ScramError::Malformed(with))),
        (MECHANISM_PLUS, "p=tls-server-end-point,,n=,r=c", None),
        (MECHANISM_PLUS, "n,,n=,r=c", Some(ScramError::Malformed(without))),
        (MECHANISM_PLUS, "y,,n=,r=c", Some(ScramError::Malformed(without))),
        (MECHANISM_PLUS, "p=tls-unique,,n=,r=c", Some(ScramError::BindingType("tls-unique".to_owned()))),
        (MECHANISM_PLUS, "p=é,,n=,r=c", Some(ScramError::BindingType("??".to_owned()))),
        (MECHANISM_PLUS, "p", Some(ScramError::Malformed("Attribute expected."))),
        (MECHANISM_PLUS, "p=tls-server-end-point", Some(ScramError::Malformed("Comma expected."))),
    ] {
        let result = tls_server(&rfc_verifier(), mechanism).client_first(first.as_bytes());
        assert_eq!(result.err(), wanted, "{mechanism} {first}");
    }
    let untold = |first: &str| server(&rfc_verifier(), "s").client_first(first.as_bytes()).map(|_| ());
    // Without TLS a client may well believe that we cannot bind; but not bind.
    assert_eq!(untold("y,,n=,r=c"), Ok(()));
    assert_eq!(untold("p=tls-server-end-point,,n=,r=c"), Err(ScramError::Malformed(with)));
}

#[test]
fn extensions_that_are_not_mandatory_are_skipped_and_proven() {
    let verifier = rfc_verifier();
    let keys = ScramKeys::from_password("pencil", &verifier.salt, verifier.iterations);
    let (first, exchange) = server(&verifier, "s").client_first(b"n,,n=,r=c,x=1").unwrap();
    let without_proof = b"c=biws,r=cs,z=2";
    let proof = keys.client_key.proof(&[b"n=,r=c,x=1,", &first, b",", without_proof]);
    let last = super::message::ClientFinal::write(without_proof, &proof);
    assert!(exchange.client_final(&last).is_ok());
}

#[test]
fn malformed_messages_are_refused() {
    let server = || server(&rfc_verifier(), "s");
    for first in [
        "",
        "n",
        "n,",
        "n,,",
        "x,,n=,r=c",
        "n,,r=c",
        "n,,n=",
        "n,,n=,r=",
        "n,,n=,r=a b",
        "n,,n=,r=é",
        "n,,n=,r=c,",
        "n,,n=,r=c,1=x",
        "n,,n=,r=c,x",
        "n,,n=,r=c\0",
        "nn,n=,r=c",
        "n,b,n=,r=c",
    ] {
        let result = server().client_first(first.as_bytes());
        assert!(matches!(result, Err(ScramError::Malformed(_) | ScramError::NonPrintable)), "{first}");
    }
    let proof = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    for last in [
        "".to_owned(),
        "c=biws,r=cs".to_owned(),
        format!("c=biws,p={proof}"),
        format!("r=cs,c=biws,p={proof}"),
        format!("c=biws,r=cs,p={proof},"),
        format!("c=biws,r=cs,p={proof},x=1"),
        "c=biws,r=cs,p=AAAA".to_owned(),
        format!("c=biws,r=cs,p={proof}\0"),
    ] {
        let (_, exchange) = server().client_first(b"n,,n=,r=c").unwrap();
        let result = exchange.client_final(last.as_bytes());
        assert!(matches!(result, Err(ScramError::Malformed(_))), "{last}");
    }
    for (first, wanted) in [
        ("r=cs,s=AAAA,i=0", ScramError::Iterations),
        ("r=cs,s=AAAA,i=1000001", ScramError::Iterations),
        ("r=cs,s=AAAA,i=-1", ScramError::Iterations),
        ("r=cs,s=AAAA,i=", ScramError::Iterations),
        ("r=xs,s=AAAA,i=1", ScramError::Nonce),
        ("r=cs,s=,i=1", ScramError::Malformed("invalid salt")),
        ("m=x,r=cs,s=AAAA,i=1", ScramError::Malformed("Unexpected attribute.")),
        ("r=cs,s=AAAA", ScramError::Malformed("Attribute expected, but found end of string.")),
        ("r=cs,s=AAAA,i=1,", ScramError::Malformed("garbage at the end of server-first-message")),
    ] {
        let (_, exchange) = start(password("x"), "c");
        let result = exchange.server_first(first.as_bytes()).map(|_| ());
        assert_eq!(result, Err(wanted), "{first}");
    }
}

#[test]
fn messages_over_the_limit_are_refused() {
    let long = |len: usize| format!("n,,n={},r=c", "u".repeat(len - 9));
    let server = || server(&rfc_verifier(), "s");
    assert!(server().client_first(long(MAX_FROM_CLIENT).as_bytes()).is_ok());
    let too_long = ScramError::Malformed("The message is too long.");
    assert_eq!(server().client_first(long(MAX_FROM_CLIENT + 1).as_bytes()).map(|_| ()), Err(too_long));
    let (_, exchange) = start(password("x"), "c");
    let message = vec![b'r'; MAX_FROM_SERVER + 1];
    let too_long = ScramError::Malformed("the message is too long");
    assert_eq!(exchange.server_first(&message).map(|_| ()), Err(too_long));
}

#[test]
fn a_server_that_does_not_know_the_password_is_found_out() {
    let verifier = Verifier::from_password("a", b"salt", few(2));
    let (_, _, client) = up_to_proof(&verifier, password("a"));
    assert_eq!(client.clone().server_final(SERVER_FINAL.as_bytes()), Err(ScramError::Signature));
    assert_eq!(client.server_final(b"e=invalid-proof"), Err(ScramError::Server("invalid-proof".to_owned())));
}

#[test]
fn a_proof_is_good_for_one_exchange_only() {
    let verifier = Verifier::from_password("a", b"salt", few(2));
    let (first, proof, _) = up_to_proof(&verifier, password("a"));
    first.client_final(&proof).unwrap();
    // Another exchange with the same client nonce, as one who replays would start it.
    let (_, server) = server(&verifier, "tt").client_first(b"n,,n=,r=cc").unwrap();
    assert_eq!(server.clone().client_final(&proof).map(|_| ()), Err(ScramError::Nonce));
    let text = String::from_utf8(proof).unwrap();
    let patched = text.replace("r=ccss", "r=cctt");
    assert_eq!(server.client_final(patched.as_bytes()).map(|_| ()), Err(ScramError::Proof));
}

#[test]
fn an_unknown_user_looks_like_a_known_one() {
    let secret = MockSecret::new([7; 32]);
    let mock = |user: &str| {
        let exchange = ServerExchange::mock(&secret, user, Nonce::of("s"), None);
        exchange.select(MECHANISM.as_bytes()).unwrap().client_first(b"n,,n=,r=c").unwrap()
    };
    let known = Verifier::from_password("a", &[9; 16], Iterations::default());
    let (real, _) = server(&known, "s").client_first(b"n,,n=,r=c").unwrap();
    let (one, exchange) = mock("nobody");
    assert_eq!(one.len(), real.len());
    assert_eq!(one, mock("nobody").0);
    assert_ne!(one, mock("someone").0);
    // Whoever knew the mock verifier's zero keys could not use them either.
    for credential in [password("a"), password("")] {
        let (_, client) = start(credential, "c");
        let (proof, _) = prove(client, &one).unwrap();
        assert_eq!(exchange.clone().client_final(&proof).map(|_| ()), Err(ScramError::Proof));
    }
}

proptest! {
    #[test]
    fn both_sides_agree_and_the_recovered_key_logs_in_again(
        secret in "\\PC{1,30}", salt in proptest::collection::vec(any::<u8>(), 1..40), count in 1_u32..20,
    ) {
        let verifier = Verifier::from_password(&secret, &salt, few(count));
        let (server, proof, client) = up_to_proof(&verifier, Knowledge::Password(secret));
        let (signature, client_key) = server.client_final(&proof).unwrap();
        client.server_final(&signature).unwrap();

        let keys = ScramKeys { client_key, server_key: verifier.server_key.clone() };
        let (server, proof, client) = up_to_proof(&verifier, Knowledge::Keys(keys));
        let (signature, _) = server.client_final(&proof).unwrap();
        client.server_final(&signature).unwrap();
    }

    #[test]
    fn another_password_fails(right in "[a-z]{1,8}", wrong in "[a-z]{1,8}") {
        prop_assume!(right != wrong);
        let verifier = Verifier::from_password(&right, b"salt", few(2));
        let (server, proof, _) = up_to_proof(&verifier, Knowledge::Password(wrong));
        prop_assert_eq!(server.client_final(&proof).map(|_| ()), Err(ScramError::Proof));
    }

    #[test]
    fn any_bytes_are_taken_without_a_panic_and_never_log_in(
        bytes in proptest::collection::vec(any::<u8>(), 0..80), text in "[a-z,=n]{0,60}",
    ) {
        let verifier = Verifier::from_password("a", b"salt", few(1));
        for message in [bytes.as_slice(), text.as_bytes()] {
            let _ = server(&verifier, "s").client_first(message);
            let _ = tls_server(&verifier, MECHANISM_PLUS).client_first(message);
            let (server, _, client) = up_to_proof(&verifier, password("a"));
            prop_assert!(server.client_final(message).is_err());
            prop_assert!(client.server_final(message).is_err());
            let (_, client) = start(password("a"), "c");
            let _ = client.server_first(message);
        }
    }
}
