//! Both sides of SCRAM, against the RFC and against each other.

use proptest::prelude::*;

use super::client::{self, AwaitServerFinal};
use super::key::{Iterations, ScramKeys, Verifier};
use super::message::{MAX_FROM_CLIENT, MAX_FROM_SERVER, Nonce, ScramError};
use super::server::{AwaitProof, MockSecret, ServerExchange};
use crate::auth::Credential;

// RFC 7677, section 3.
const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const CLIENT_FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
    s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
    p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

fn password(text: &str) -> Credential {
    Credential::Password(text.to_owned())
}

fn rfc_verifier() -> Verifier {
    let salt = super::key::decode_salt(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    Verifier::from_password("pencil", &salt, Iterations::default())
}

fn few(count: u32) -> Iterations {
    Iterations::new(count).unwrap()
}

/// An exchange up to the proof, which is not checked yet.
fn up_to_proof(verifier: &Verifier, credential: Credential) -> (AwaitProof, Vec<u8>, AwaitServerFinal) {
    let (first, client) = client::start(credential, Nonce::of("cc"));
    let (challenge, server) = ServerExchange::new(verifier, Nonce::of("ss")).client_first(&first).unwrap();
    let (proof, client) = client.server_first(&challenge).unwrap();
    (server, proof, client)
}

#[test]
fn our_client_speaks_as_in_rfc_7677() {
    let (first, exchange) = client::start_as("user", password("pencil"), Nonce::of(CLIENT_NONCE));
    assert_eq!(first, CLIENT_FIRST.as_bytes());
    let (last, exchange) = exchange.server_first(SERVER_FIRST.as_bytes()).unwrap();
    assert_eq!(last, CLIENT_FINAL.as_bytes());
    exchange.server_final(SERVER_FINAL.as_bytes()).unwrap();
}

#[test]
fn our_server_speaks_as_in_rfc_7677() {
    let verifier = rfc_verifier();
    let exchange = ServerExchange::new(&verifier, Nonce::of(SERVER_NONCE));
    let (first, exchange) = exchange.client_first(CLIENT_FIRST.as_bytes()).unwrap();
    assert_eq!(first, SERVER_FIRST.as_bytes());
    let (last, key) = exchange.client_final(CLIENT_FINAL.as_bytes()).unwrap();
    assert_eq!(last, SERVER_FINAL.as_bytes());
    assert_eq!(key.stored_key(), verifier.stored_key);
}

#[test]
fn a_client_that_could_bind_channels_may_log_in_but_not_bind() {
    let first =
        |text: &str| ServerExchange::new(&rfc_verifier(), Nonce::of("s")).client_first(text.as_bytes());
    assert!(first("y,,n=,r=c").is_ok());
    for (text, wanted) in [
        ("p=tls-server-end-point,,n=,r=c", "channel binding"),
        ("n,a=other,n=,r=c", "authorization identity"),
        ("n,,m=must,n=,r=c", "extension"),
    ] {
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
fn extensions_that_are_not_mandatory_are_skipped_and_proven() {
    let verifier = rfc_verifier();
    let keys = ScramKeys::from_password("pencil", &verifier.salt, verifier.iterations);
    let (first, exchange) =
        ServerExchange::new(&verifier, Nonce::of("s")).client_first(b"n,,n=,r=c,x=1").unwrap();
    let without_proof = b"c=biws,r=cs,z=2";
    let proof = keys.client_key.proof(&[b"n=,r=c,x=1,", &first, b",", without_proof]);
    let last = super::message::ClientFinal::write(without_proof, &proof);
    assert!(exchange.client_final(&last).is_ok());
}

#[test]
fn malformed_messages_are_refused() {
    let server = || ServerExchange::new(&rfc_verifier(), Nonce::of("s"));
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
        assert!(matches!(result, Err(ScramError::Malformed(_))), "{first}");
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
        ("m=x,r=cs,s=AAAA,i=1", ScramError::Malformed("unexpected attribute")),
        ("r=cs,s=AAAA", ScramError::Malformed("attribute missing")),
        ("r=cs,s=AAAA,i=1,", ScramError::Malformed("garbage at the end of server-first-message")),
    ] {
        let (_, exchange) = client::start(password("x"), Nonce::of("c"));
        let result = exchange.server_first(first.as_bytes()).map(|_| ());
        assert_eq!(result, Err(wanted), "{first}");
    }
}

#[test]
fn messages_over_the_limit_are_refused() {
    let long = |len: usize| format!("n,,n={},r=c", "u".repeat(len - 9));
    let server = || ServerExchange::new(&rfc_verifier(), Nonce::of("s"));
    assert!(server().client_first(long(MAX_FROM_CLIENT).as_bytes()).is_ok());
    let too_long = ScramError::Malformed("the message is too long");
    assert_eq!(
        server().client_first(long(MAX_FROM_CLIENT + 1).as_bytes()).map(|_| ()),
        Err(too_long.clone())
    );
    let (_, exchange) = client::start(password("x"), Nonce::of("c"));
    let message = vec![b'r'; MAX_FROM_SERVER + 1];
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
    let (server, proof, _) = up_to_proof(&verifier, password("a"));
    server.client_final(&proof).unwrap();
    // Another exchange with the same client nonce, as one who replays would start it.
    let (_, server) = ServerExchange::new(&verifier, Nonce::of("tt")).client_first(b"n,,n=,r=cc").unwrap();
    assert_eq!(server.clone().client_final(&proof).map(|_| ()), Err(ScramError::Nonce));
    let text = String::from_utf8(proof).unwrap();
    let patched = text.replace("r=ccss", "r=cctt");
    assert_eq!(server.client_final(patched.as_bytes()).map(|_| ()), Err(ScramError::Proof));
}

#[test]
fn an_unknown_user_looks_like_a_known_one() {
    let secret = MockSecret::new([7; 32]);
    let mock =
        |user: &str| ServerExchange::mock(&secret, user, Nonce::of("s")).client_first(b"n,,n=,r=c").unwrap();
    let known = Verifier::from_password("a", &[9; 16], Iterations::default());
    let (real, _) = ServerExchange::new(&known, Nonce::of("s")).client_first(b"n,,n=,r=c").unwrap();
    let (one, exchange) = mock("nobody");
    assert_eq!(one.len(), real.len());
    assert_eq!(one, mock("nobody").0);
    assert_ne!(one, mock("someone").0);
    // Whoever knew the mock verifier's zero keys could not use them either.
    for credential in [password("a"), password("")] {
        let (_, client) = client::start(credential, Nonce::of("c"));
        let (proof, _) = client.server_first(&one).unwrap();
        assert_eq!(exchange.clone().client_final(&proof).map(|_| ()), Err(ScramError::Proof));
    }
}

proptest! {
    #[test]
    fn both_sides_agree_and_the_recovered_key_logs_in_again(
        secret in "\\PC{1,30}", salt in proptest::collection::vec(any::<u8>(), 1..40), count in 1_u32..20,
    ) {
        let verifier = Verifier::from_password(&secret, &salt, few(count));
        let (server, proof, client) = up_to_proof(&verifier, Credential::Password(secret));
        let (signature, client_key) = server.client_final(&proof).unwrap();
        client.server_final(&signature).unwrap();

        let keys = ScramKeys { client_key, server_key: verifier.server_key.clone() };
        let (server, proof, client) = up_to_proof(&verifier, Credential::ScramKeys(keys));
        let (signature, _) = server.client_final(&proof).unwrap();
        client.server_final(&signature).unwrap();
    }

    #[test]
    fn another_password_fails(right in "[a-z]{1,8}", wrong in "[a-z]{1,8}") {
        prop_assume!(right != wrong);
        let verifier = Verifier::from_password(&right, b"salt", few(2));
        let (server, proof, _) = up_to_proof(&verifier, Credential::Password(wrong));
        prop_assert_eq!(server.client_final(&proof).map(|_| ()), Err(ScramError::Proof));
    }

    #[test]
    fn any_bytes_are_taken_without_a_panic_and_never_log_in(
        bytes in proptest::collection::vec(any::<u8>(), 0..80), text in "[a-z,=n]{0,60}",
    ) {
        let verifier = Verifier::from_password("a", b"salt", few(1));
        for message in [bytes.as_slice(), text.as_bytes()] {
            let _ = ServerExchange::new(&verifier, Nonce::of("s")).client_first(message);
            let (server, _, client) = up_to_proof(&verifier, password("a"));
            prop_assert!(server.client_final(message).is_err());
            prop_assert!(client.server_final(message).is_err());
            let (_, client) = client::start(password("a"), Nonce::of("c"));
            let _ = client.server_first(message);
        }
    }
}
