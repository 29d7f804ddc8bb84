//! Both logins against each other, message by message, and with somebody in between.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::scram::key::{Iterations, Verifier};
use super::*;
use crate::wire::Frame;
use crate::wire::server::Status;

/// Random bytes that are the same in each run.
fn counting() -> impl FnMut(&mut [u8]) {
    let mut next = 0_u8;
    move |bytes| {
        for byte in bytes {
            *byte = next;
            next = next.wrapping_add(1);
        }
    }
}

/// `anna` has the password `secret` in clear, `bert` the verifier of the same password.
fn users() -> &'static Users {
    static USERS: LazyLock<Users> = LazyLock::new(|| {
        let salt = b"0123456789abcdef";
        let verifier = Verifier::from_password("secret", salt, Iterations::new(1).unwrap());
        Users::new([("anna", "secret".to_owned()), ("bert", verifier.to_text())], counting()).unwrap()
    });
    &USERS
}

fn nonce(byte: u8) -> Nonce {
    Nonce::new([byte; Nonce::RAW_LEN])
}

fn ask(users: &Users, user: &str) -> (Box<ClientLogin>, Vec<u8>) {
    match ClientLogin::start(Method::Scram, user, users, nonce(1)).unwrap() {
        Start::Ask { login, message } => (login, message),
        Start::Done(_) => panic!("nobody was asked"),
    }
}

fn password(text: &str) -> Option<Credential> {
    Some(Credential::Password(text.to_owned()))
}

/// Splits into `(tag, body)`; what does not frame is dropped, as a connection would be.
fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut all = Vec::new();
    while let Ok(Some(frame)) = Frame::peek(bytes) {
        let Some(body) = frame.body(bytes) else { break };
        all.push((frame.tag, body.to_vec()));
        bytes = &bytes[frame.len..];
    }
    all
}

fn framed(tag: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len() + 4).unwrap();
    [&[tag], len.to_be_bytes().as_slice(), body].concat()
}

/// How far an exchange got.
#[derive(Debug, Default)]
struct Outcome {
    /// The client of the proxy was let in, with this.
    logged_in: Option<LoggedIn>,
    refused: Option<AuthError>,
    /// The connecting side came to ReadyForQuery.
    ready: Option<ServerReady>,
    failed: Option<LoginError>,
    /// Every message that passed, in order.
    passed: Vec<Vec<u8>>,
}

/// Lets a `ServerLogin` log in to a `ClientLogin`. `between` may change each message, by its number.
fn run(
    users: &Users,
    user: &str,
    credential: Option<Credential>,
    mut between: impl FnMut(usize, Vec<u8>) -> Vec<u8>,
) -> Outcome {
    let mut out = Outcome::default();
    let (mut server, first) = ask(users, user);
    let mut client = ServerLogin::new(user, credential, nonce(2));
    let mut to_client = first;
    loop {
        let changed = between(out.passed.len(), to_client.clone());
        out.passed.push(to_client);
        let mut answer = None;
        for (tag, body) in frames(&changed) {
            match client.on_message(tag, &body) {
                Ok(Step::Continue) => {}
                Ok(Step::Send(message)) => answer = Some(message),
                Ok(Step::Ready(ready)) => out.ready = Some(ready),
                Err(error) => {
                    out.failed = Some(error);
                    return out;
                }
            }
        }
        let Some(to_server) = answer else { return out };
        let changed = between(out.passed.len(), to_server.clone());
        out.passed.push(to_server);
        let mut answer = None;
        for (tag, body) in frames(&changed) {
            match server.on_message(tag, &body) {
                Ok(ClientStep::Send(message)) => answer = Some(message),
                Ok(ClientStep::Done(done)) => {
                    let mut rest = done.messages.clone();
                    rest.extend(framed(b'S', b"TimeZone\0UTC\0"));
                    rest.extend(framed(b'Z', b"I"));
                    out.logged_in = Some(done);
                    answer = Some(rest);
                }
                Err(error) => {
                    let mut bytes = bytes::BytesMut::new();
                    error.report().write(&mut bytes);
                    out.refused = Some(error);
                    answer = Some(bytes.to_vec());
                }
            }
        }
        let Some(next) = answer else { return out };
        to_client = next;
    }
}

fn untouched(_: usize, message: Vec<u8>) -> Vec<u8> {
    message
}

#[test]
fn a_password_logs_in_and_stays_a_password() {
    let out = run(users(), "anna", password("secret"), untouched);
    assert_eq!(out.logged_in.unwrap().credential, password("secret"));
    let ready = out.ready.unwrap();
    assert_eq!(ready.parameters, [("TimeZone".to_owned(), "UTC".to_owned())]);
    assert_eq!(ready.status, Status::Idle);
}

#[test]
fn a_verifier_leaves_keys_that_log_in_where_the_same_verifier_is() {
    let users = users();
    let first = run(users, "bert", password("secret"), untouched);
    let keys = first.logged_in.unwrap().credential;
    assert!(matches!(keys, Some(Credential::ScramKeys(_))));
    let second = run(users, "bert", keys.clone(), untouched);
    assert!(second.ready.is_some());
    assert_eq!(second.logged_in.unwrap().credential, keys);
    // The same password with another salt.
    let third = run(users, "anna", keys, untouched);
    assert!(third.ready.is_none() && third.logged_in.is_none());
}

#[test]
fn wrong_passwords_and_unknown_users_are_refused_alike() {
    let users = users();
    let mut shapes = Vec::new();
    for (user, text) in [("anna", "Secret"), ("nobody", "secret")] {
        let out = run(users, user, password(text), untouched);
        assert!(out.logged_in.is_none());
        let error = out.refused.unwrap();
        assert_eq!(error.sqlstate(), "28P01");
        let wanted = format!("password authentication failed for user \"{user}\"");
        assert_eq!(error.to_string(), wanted);
        match out.failed.unwrap() {
            LoginError::Refused(refusal) => {
                assert_eq!(refusal.sqlstate, "28P01");
                assert_eq!(refusal.message, wanted);
                assert_eq!(framed(b'E', &refusal.body), *out.passed.last().unwrap());
            }
            other => panic!("{other}"),
        }
        let before_the_end = out.passed[..out.passed.len() - 1].iter();
        shapes.push(before_the_end.map(Vec::len).collect::<Vec<_>>());
    }
    assert_eq!(shapes[0], shapes[1]);
}

#[test]
fn trust_asks_nothing_and_hands_on_what_is_known() {
    let users = users();
    for (user, wanted) in [("anna", password("secret")), ("bert", None), ("nobody", None)] {
        match ClientLogin::start(Method::Trust, user, users, nonce(1)).unwrap() {
            Start::Done(done) => {
                assert_eq!(done.messages, b"R\0\0\0\x08\0\0\0\0");
                assert_eq!(done.credential, wanted);
            }
            Start::Ask { .. } => panic!("somebody was asked"),
        }
    }
    let error = ClientLogin::start(Method::Trust, "", users, nonce(1)).unwrap_err();
    assert_eq!(error.sqlstate(), "28000");
}

#[test]
fn the_first_message_may_come_late() {
    let users = users();
    let (mut login, first) = ask(users, "anna");
    assert_eq!(first, b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0");
    let empty = login.on_message(b'p', b"SCRAM-SHA-256\0\xff\xff\xff\xff");
    match empty.unwrap() {
        ClientStep::Send(message) => assert_eq!(message, b"R\0\0\0\x08\0\0\0\x0b"),
        ClientStep::Done(_) => panic!(),
    }
    match login.on_message(b'p', b"n,,n=,r=c").unwrap() {
        ClientStep::Send(message) => assert!(message.starts_with(b"R\0\0\0\x45\0\0\0\x0br=c")),
        ClientStep::Done(_) => panic!(),
    }
}

#[test]
fn messages_that_do_not_fit_end_a_clients_login() {
    let users = users();
    let refuse = |tag: u8, body: &[u8]| {
        let (mut login, _) = ask(users, "anna");
        let error = login.on_message(tag, body).unwrap_err();
        // Nothing helps afterwards.
        let good = b"SCRAM-SHA-256\0\0\0\0\x09n,,n=,r=c";
        assert_eq!(login.on_message(b'p', good).unwrap_err(), AuthError::Over);
        assert_eq!(error.sqlstate(), "08P01");
        error
    };
    assert_eq!(refuse(b'Q', b"select 1\0").to_string(), "expected SASL response, got message type 81");
    assert_eq!(refuse(b'p', b"SCRAM-SHA-1\0\0\0\0\0"), AuthError::Mechanism);
    assert_eq!(refuse(b'p', b"SCRAM-SHA-256-PLUS\0\0\0\0\0"), AuthError::Mechanism);
    assert_eq!(refuse(b'p', b"secret"), AuthError::Format);
    assert_eq!(refuse(b'p', b"SCRAM-SHA-256\0\0\0\0\x02n"), AuthError::Format);
    assert_eq!(refuse(b'p', b"SCRAM-SHA-256\0\0\0\0\x01n,"), AuthError::Format);
    assert_eq!(refuse(b'p', b"SCRAM-SHA-256\0\xff\xff\xff\xffn"), AuthError::Format);
    assert_eq!(refuse(b'p', &vec![b'x'; client_login::MAX_BODY + 1]), AuthError::Format);
    // The proof of another login, first.
    let proof = run(users, "anna", password("secret"), untouched).passed[3].clone();
    refuse(b'p', &proof[5..]);
}

#[test]
fn replayed_messages_do_not_log_in() {
    let users = users();
    let passed = run(users, "anna", password("secret"), untouched).passed;
    let (first, proof) = (&passed[1][5..], &passed[3][5..]);
    // The same nonce on our side would be the same exchange; a fresh one must refuse the old proof.
    let start = ClientLogin::start(Method::Scram, "anna", users, nonce(9)).unwrap();
    let Start::Ask { mut login, .. } = start else { panic!() };
    login.on_message(b'p', first).unwrap();
    assert!(login.on_message(b'p', proof).is_err());
    // The first message twice.
    let (mut login, _) = ask(users, "anna");
    login.on_message(b'p', first).unwrap();
    assert!(login.on_message(b'p', first).is_err());
    assert_eq!(login.on_message(b'p', proof).unwrap_err(), AuthError::Over);
    // The proof twice.
    let (mut login, _) = ask(users, "anna");
    login.on_message(b'p', first).unwrap();
    assert!(matches!(login.on_message(b'p', proof), Ok(ClientStep::Done(_))));
    assert_eq!(login.on_message(b'p', proof).unwrap_err(), AuthError::Over);
}

/// Whatever is done to message `number`, nobody is let in who should not be.
fn check_tampered(number: usize, change: impl Fn(Vec<u8>) -> Vec<u8>) -> Result<(), TestCaseError> {
    let out = run(
        users(),
        "bert",
        password("secret"),
        |n, message| {
            if n == number { change(message) } else { message }
        },
    );
    prop_assert!(out.ready.is_none(), "{number}: {out:?}");
    // The last message is changed after the proxy has let the client in.
    prop_assert!(number == 4 || out.logged_in.is_none(), "{number}: {out:?}");
    Ok(())
}

/// Of message 4, only AuthenticationSASLFinal is protected, not what follows it.
fn protected(number: usize, passed: &[Vec<u8>]) -> usize {
    match number {
        4 => Frame::peek(&passed[4]).unwrap().unwrap().len,
        _ => passed[number].len(),
    }
}

#[test]
fn no_changed_byte_logs_in() {
    let passed = run(users(), "bert", password("secret"), untouched).passed;
    assert_eq!(passed.len(), 5);
    for number in 0..5 {
        for at in 0..protected(number, &passed) {
            for mask in [0x01, 0x20, 0x80] {
                check_tampered(number, |mut message| {
                    message[at] ^= mask;
                    message
                })
                .unwrap();
            }
            check_tampered(number, |message| message[..at].to_vec()).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_tampered_message_logs_in(
        number in 0_usize..5, place: prop::sample::Index, kind in 0..3, byte in 1_u8..=255,
    ) {
        let passed = run(users(), "bert", password("secret"), untouched).passed;
        let at = place.index(protected(number, &passed));
        check_tampered(number, |message| {
            // The length is put right, so that it is the content that is looked at.
            let frame = Frame::peek(&message).unwrap().unwrap();
            let (head, rest) = message.split_at(frame.len);
            let (tag, mut body) = (head[0], head[5..].to_vec());
            let at = at.min(frame.len - 1).saturating_sub(5);
            match kind {
                0 => body[at] ^= byte,
                1 => body.insert(at, byte),
                _ => { body.remove(at); }
            }
            let mut message = framed(tag, &body);
            message.extend_from_slice(rest);
            message
        })?;
    }

    #[test]
    fn any_messages_are_taken_without_a_panic(
        messages in prop::collection::vec(
            (prop::sample::select(b"RESKZNvpQX".to_vec()), prop::collection::vec(any::<u8>(), 0..40)), 0..6,
        ),
        kind in prop::sample::select(vec![0_u32, 3, 5, 7, 10, 11, 12]),
    ) {
        let (mut client, _) = ask(users(), "bert");
        let mut server = ServerLogin::new("bert", password("secret"), nonce(2));
        for (tag, mut body) in messages {
            let _ = client.on_message(tag, &body);
            if tag == b'R' {
                body.splice(0..0, kind.to_be_bytes());
            }
            let _ = server.on_message(tag, &body);
        }
    }
}
