//! Both logins against each other by SCRAM, message by message, and with somebody in between.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::scram::key::{Iterations, Verifier};
use super::*;
use crate::wire::Frame;
use crate::wire::server::Status;

/// `anna` has the password `secret` in clear, `bert` the verifier of the same password, `carl` its md5 hash.
pub(super) fn users() -> &'static Users {
    static USERS: LazyLock<Users> = LazyLock::new(|| {
        let salt = b"0123456789abcdef";
        let verifier = Verifier::from_password("secret", salt, Iterations::new(1).unwrap());
        let hash = "md59eff3f89538c526979d69c116ed45473".to_owned();
        let entries = [("anna", "secret".to_owned()), ("bert", verifier.to_text()), ("carl", hash)];
        Users::new(entries, MockSecret::new([7; 32])).unwrap()
    });
    &USERS
}

pub(super) fn nonce(byte: u8) -> Nonce {
    Nonce::new([byte; Nonce::RAW_LEN])
}

pub(super) fn password(text: &str) -> Option<Credential> {
    Some(Credential::Password(text.to_owned()))
}

/// Splits into `(tag, body)`; what does not frame is dropped, as a connection would be.
pub(super) fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut all = Vec::new();
    while let Ok(Some(frame)) = Frame::peek(bytes) {
        let Some(body) = frame.body(bytes) else { break };
        all.push((frame.tag, body.to_vec()));
        bytes = &bytes[frame.len..];
    }
    all
}

pub(super) fn framed(tag: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len() + 4).unwrap();
    [&[tag], len.to_be_bytes().as_slice(), body].concat()
}

/// How far an exchange got.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The client of the proxy was let in, with this.
    pub(super) logged_in: Option<LoggedIn>,
    pub(super) refused: Option<AuthError>,
    /// The connecting side came to ReadyForQuery.
    pub(super) ready: Option<ServerReady>,
    pub(super) failed: Option<LoginError>,
    /// Every message that passed, in order.
    pub(super) passed: Vec<Vec<u8>>,
}

/// A login as it is set up on both sides.
#[derive(Clone)]
pub(super) struct Setup {
    pub(super) method: Method,
    pub(super) user: &'static str,
    pub(super) credential: Option<Credential>,
    /// The certificate that the proxy has shown.
    pub(super) shown: Option<EndPoint>,
    /// What the connecting side sees.
    pub(super) seen: Channel,
    /// The proxy's randomness.
    pub(super) random: u8,
}

impl Setup {
    pub(super) fn new(method: Method, user: &'static str, credential: Option<Credential>) -> Self {
        Self { method, user, credential, shown: None, seen: Channel::Plain, random: 1 }
    }

    /// Over TLS, with the same certificate seen that was shown.
    pub(super) fn bound(self) -> Self {
        let end_point = EndPoint::new(b"hash of our certificate");
        Self { shown: end_point.clone(), seen: Channel::Tls(end_point), ..self }
    }

    /// What the proxy begins with.
    pub(super) fn start(&self) -> Result<Start, AuthError> {
        let nobody = User::default();
        let claimant = Claimant {
            name: self.user,
            user: users().get(self.user).unwrap_or(&nobody),
            mock: users().mock(),
            end_point: self.shown.clone(),
        };
        let random = Random { nonce: nonce(self.random), md5_salt: [self.random; 4] };
        ClientLogin::start(self.method, claimant, || random)
    }

    pub(super) fn ask(&self) -> (Box<ClientLogin>, Vec<u8>) {
        match self.start().unwrap() {
            Start::Ask { login, message } => (login, message),
            Start::Done(_) => panic!("nobody was asked"),
        }
    }

    pub(super) fn connect(&self) -> ServerLogin {
        ServerLogin::new(self.user, self.credential.clone(), nonce(2), self.seen.clone())
    }

    /// Lets a `ServerLogin` log in to a `ClientLogin`. `between` may change each message, by its number.
    pub(super) fn run(&self, mut between: impl FnMut(usize, Vec<u8>) -> Vec<u8>) -> Outcome {
        let mut out = Outcome::default();
        let (mut server, mut to_client) = self.ask();
        let mut client = self.connect();
        loop {
            let changed = between(out.passed.len(), to_client.clone());
            out.passed.push(to_client);
            let mut answer = None;
            for (tag, body) in frames(&changed) {
                match on_server_message(&mut client, tag, &body) {
                    Ok(Step::Continue) => {}
                    Ok(Step::Send(message)) => answer = Some(message),
                    Ok(Step::Ready(ready)) => out.ready = Some(ready),
                    Ok(Step::Hash(_)) => panic!("hashed twice"),
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
                match on_client_message(&mut server, tag, &body) {
                    Ok(ClientStep::Send(message)) => answer = Some(message),
                    Ok(ClientStep::Done(done)) => {
                        let mut rest = done.messages.clone();
                        rest.extend(framed(b'S', b"TimeZone\0UTC\0"));
                        rest.extend(framed(b'Z', b"I"));
                        out.logged_in = Some(done);
                        answer = Some(rest);
                    }
                    Ok(ClientStep::Hash(_)) => panic!("hashed twice"),
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
}

/// A message of a client, and the hashing that it leads to.
pub(super) fn on_client_message(
    login: &mut ClientLogin,
    tag: u8,
    body: &[u8],
) -> Result<ClientStep, AuthError> {
    match login.on_message(tag, body)? {
        ClientStep::Hash(job) => login.on_hashed(job.run()),
        step => Ok(step),
    }
}

/// The same for a server's.
pub(super) fn on_server_message(login: &mut ServerLogin, tag: u8, body: &[u8]) -> Result<Step, LoginError> {
    match login.on_message(tag, body)? {
        Step::Hash(job) => login.on_hashed(job.run()),
        step => Ok(step),
    }
}

/// By SCRAM, without TLS.
fn run(
    user: &'static str,
    credential: Option<Credential>,
    between: impl FnMut(usize, Vec<u8>) -> Vec<u8>,
) -> Outcome {
    Setup::new(Method::Scram, user, credential).run(between)
}

fn ask(user: &'static str) -> (Box<ClientLogin>, Vec<u8>) {
    Setup::new(Method::Scram, user, None).ask()
}

pub(super) fn untouched(_: usize, message: Vec<u8>) -> Vec<u8> {
    message
}

#[test]
fn a_password_logs_in_and_stays_a_password() {
    let out = run("anna", password("secret"), untouched);
    assert_eq!(out.logged_in.unwrap().credential, password("secret"));
    let ready = out.ready.unwrap();
    assert_eq!(ready.parameters, [("TimeZone".to_owned(), "UTC".to_owned())]);
    assert_eq!(ready.status, Status::Idle);
}

#[test]
fn a_verifier_leaves_keys_that_log_in_where_the_same_verifier_is() {
    let first = run("bert", password("secret"), untouched);
    let keys = first.logged_in.unwrap().credential;
    assert!(matches!(keys, Some(Credential::ScramKeys(_))));
    let second = run("bert", keys.clone(), untouched);
    assert!(second.ready.is_some());
    assert_eq!(second.logged_in.unwrap().credential, keys);
    // The same password with another salt.
    let third = run("anna", keys, untouched);
    assert!(third.ready.is_none() && third.logged_in.is_none());
}

#[test]
fn wrong_passwords_and_unknown_users_are_refused_alike() {
    let mut shapes = Vec::new();
    for (user, text) in [("anna", "Secret"), ("nobody", "secret")] {
        let out = run(user, password(text), untouched);
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
    for (user, wanted) in [("anna", password("secret")), ("bert", None), ("nobody", None)] {
        match Setup::new(Method::Trust, user, None).start().unwrap() {
            Start::Done(done) => {
                assert_eq!(done.messages, b"R\0\0\0\x08\0\0\0\0");
                assert_eq!(done.credential, wanted);
            }
            Start::Ask { .. } => panic!("somebody was asked"),
        }
    }
    let error = Setup::new(Method::Trust, "", None).start().unwrap_err();
    assert_eq!(error.sqlstate(), "28000");
}

#[test]
fn the_first_message_may_come_late() {
    let (mut login, first) = ask("anna");
    assert_eq!(first, b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0");
    let empty = login.on_message(b'p', b"SCRAM-SHA-256\0\xff\xff\xff\xff");
    match empty.unwrap() {
        ClientStep::Send(message) => assert_eq!(message, b"R\0\0\0\x08\0\0\0\x0b"),
        other => panic!("{other:?}"),
    }
    match login.on_message(b'p', b"n,,n=,r=c").unwrap() {
        ClientStep::Send(message) => assert!(message.starts_with(b"R\0\0\0\x45\0\0\0\x0br=c")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn messages_that_do_not_fit_end_a_clients_login() {
    let refuse = |tag: u8, body: &[u8]| {
        let (mut login, _) = ask("anna");
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
    let proof = run("anna", password("secret"), untouched).passed[3].clone();
    refuse(b'p', &proof[5..]);
}

#[test]
fn replayed_messages_do_not_log_in() {
    let passed = run("anna", password("secret"), untouched).passed;
    let (first, proof) = (&passed[1][5..], &passed[3][5..]);
    // The same nonce on our side would be the same exchange; a fresh one must refuse the old proof.
    let fresh = Setup { random: 9, ..Setup::new(Method::Scram, "anna", None) };
    let (mut login, _) = fresh.ask();
    login.on_message(b'p', first).unwrap();
    assert!(login.on_message(b'p', proof).is_err());
    // The first message twice.
    let (mut login, _) = ask("anna");
    login.on_message(b'p', first).unwrap();
    assert!(login.on_message(b'p', first).is_err());
    assert_eq!(login.on_message(b'p', proof).unwrap_err(), AuthError::Over);
    // The proof twice.
    let (mut login, _) = ask("anna");
    login.on_message(b'p', first).unwrap();
    assert!(matches!(login.on_message(b'p', proof), Ok(ClientStep::Done(_))));
    assert_eq!(login.on_message(b'p', proof).unwrap_err(), AuthError::Over);
}

/// The logins of `bert` that are tampered with: by SCRAM without and with channel binding.
fn scram_and_plus() -> [Setup; 2] {
    let setup = || Setup::new(Method::Scram, "bert", password("secret"));
    [setup(), setup().bound()]
}

/// Whatever is done to message `number`, nobody is let in who should not be.
fn check_tampered(
    setup: &Setup,
    number: usize,
    change: impl Fn(Vec<u8>) -> Vec<u8>,
) -> Result<(), TestCaseError> {
    let out = setup.run(|n, message| if n == number { change(message) } else { message });
    prop_assert!(out.ready.is_none(), "{number}: {out:?}");
    // The last message is changed after the proxy has let the client in.
    prop_assert!(number == 4 || out.logged_in.is_none(), "{number}: {out:?}");
    Ok(())
}

/// Of message 4, only AuthenticationSASLFinal is protected, not what follows it; and of our offer, not
/// the mechanism that is worse than the one that was taken.
fn protected(number: usize, passed: &[Vec<u8>]) -> usize {
    const PLUS: &[u8] = b"SCRAM-SHA-256-PLUS\0";
    match number {
        0 if passed[0][9..].starts_with(PLUS) => 9 + PLUS.len(),
        4 => Frame::peek(&passed[4]).unwrap().unwrap().len,
        _ => passed[number].len(),
    }
}

#[test]
fn no_changed_byte_and_no_missing_one_logs_in() {
    for setup in scram_and_plus() {
        let passed = setup.run(untouched).passed;
        assert_eq!(passed.len(), 5);
        for number in 0..5 {
            for at in 0..protected(number, &passed) {
                for mask in [0x01, 0x20, 0x80] {
                    check_tampered(&setup, number, |mut message| {
                        message[at] ^= mask;
                        message
                    })
                    .unwrap();
                }
                check_tampered(&setup, number, |message| message[..at].to_vec()).unwrap();
                // Cut, but framed as if it were whole.
                let body = passed[number][5.min(at)..at].to_vec();
                check_tampered(&setup, number, |message| framed(message[0], &body)).unwrap();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_tampered_message_logs_in(
        which in 0_usize..2, number in 0_usize..5, place: prop::sample::Index, kind in 0..3, byte in 1_u8..=255,
    ) {
        let setup = &scram_and_plus()[which];
        let passed = setup.run(untouched).passed;
        let at = place.index(protected(number, &passed));
        check_tampered(setup, number, |message| {
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
        let shown = EndPoint::new(b"hash");
        for seen in [Channel::Plain, Channel::Tls(None), Channel::Tls(shown.clone())] {
            let setup = Setup { seen, ..Setup::new(Method::Scram, "bert", password("secret")) };
            let mut server = setup.connect();
            for (tag, body) in &messages {
                let mut body = body.clone();
                if *tag == b'R' {
                    body.splice(0..0, kind.to_be_bytes());
                }
                let ready = on_server_message(&mut server, *tag, &body);
                prop_assert!(kind == 0 || !matches!(ready, Ok(Step::Ready(_))));
            }
        }
        for method in [Method::Scram, Method::Md5, Method::Password] {
            for user in ["bert", "carl", "nobody"] {
                let setup = Setup { shown: shown.clone(), ..Setup::new(method, user, None) };
                let (mut client, _) = setup.ask();
                for (tag, body) in &messages {
                    let step = client.on_message(*tag, body);
                    prop_assert!(!matches!(step, Ok(ClientStep::Done(_))));
                }
            }
        }
    }
}
