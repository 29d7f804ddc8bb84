//! The methods beside plain SCRAM: channel binding, md5 and clear passwords.

use super::tests::*;
use super::*;

const METHODS: [Method; 3] = [Method::Scram, Method::Md5, Method::Password];
const USERS: [&str; 4] = ["anna", "bert", "carl", "nobody"];

fn refused(out: &Outcome) -> (String, String) {
    let report = out.refused.as_ref().unwrap().report();
    (report.sqlstate.into_owned(), report.message)
}

/// The answer to a password's question, and the hashing that it leads to.
fn answer(method: Method, user: &'static str, body: &[u8]) -> Result<ClientStep, AuthError> {
    on_client_message(&mut Setup::new(method, user, None).ask().0, b'p', body)
}

#[test]
fn the_right_password_logs_in_by_every_method_that_fits_what_is_stored() {
    for method in METHODS {
        for bound in [false, true] {
            for user in USERS {
                for text in ["secret", "Secret"] {
                    let setup = Setup::new(method, user, password(text));
                    let out = if bound { setup.bound() } else { setup }.run(untouched);
                    // SCRAM cannot be done with an md5 hash.
                    let fits = user != "nobody" && (user, method) != ("carl", Method::Scram);
                    let wanted = text == "secret" && fits;
                    assert_eq!(out.logged_in.is_some(), wanted, "{method:?} {user} {text}");
                    assert_eq!(out.ready.is_some(), wanted, "{method:?} {user} {text}");
                    if !wanted {
                        let message = format!("password authentication failed for user \"{user}\"");
                        assert_eq!(refused(&out), ("28P01".to_owned(), message));
                    }
                }
            }
        }
    }
}

#[test]
fn what_is_stored_decides_how_md5_asks() {
    for (user, asked) in [("anna", 10), ("bert", 10), ("carl", 5), ("nobody", 10)] {
        let (login, message) = Setup::new(Method::Md5, user, None).ask();
        assert_eq!(message[..9], [b'R', 0, 0, 0, if asked == 5 { 12 } else { 23 }, 0, 0, 0, asked], "{user}");
        assert_eq!(login.max_body(), client_login::MAX_BODY);
    }
    for user in USERS {
        let (login, message) = Setup::new(Method::Password, user, None).ask();
        assert_eq!(message, [b'R', 0, 0, 0, 8, 0, 0, 0, 3]);
        assert_eq!(login.max_body(), client_login::MAX_PASSWORD);
    }
}

#[test]
fn every_login_leaves_what_opens_the_servers() {
    let left = |method, user| {
        let out = Setup::new(method, user, password("secret")).run(untouched);
        out.logged_in.unwrap().credential.unwrap()
    };
    for method in METHODS {
        // The configured password is good for more than what a login shows.
        assert_eq!(Some(left(method, "anna")), password("secret"));
    }
    // By proof and by clear password, the same keys.
    let keys = left(Method::Scram, "bert");
    assert!(matches!(keys, Credential::ScramKeys(_)));
    assert_eq!(left(Method::Password, "bert"), keys);
    let hash = left(Method::Md5, "carl");
    assert!(matches!(hash, Credential::Md5(_)));
    assert_eq!(left(Method::Password, "carl"), hash);
    // And they do open them.
    for (method, user, credential) in [(Method::Scram, "bert", keys), (Method::Md5, "carl", hash)] {
        assert!(Setup::new(method, user, Some(credential)).run(untouched).ready.is_some());
    }
}

#[test]
fn a_clear_password_costs_the_same_work_whoever_it_is_of() {
    // `bert` has one iteration; all others as many as PostgreSQL gives.
    for (user, wanted) in [("anna", 4096), ("bert", 1), ("carl", 4096), ("nobody", 4096)] {
        let (mut login, _) = Setup::new(Method::Password, user, None).ask();
        let ClientStep::Hash(job) = login.on_message(b'p', b"wrong\0").unwrap() else { panic!("{user}") };
        assert_eq!(format!("{job:?}"), format!("HashJob({wanted}, ..)"));
        assert!(matches!(login.on_hashed(job.run()), Err(AuthError::Password { .. })));
    }
}

#[test]
fn hashes_are_taken_once_and_when_asked_for_only() {
    let job = || {
        let (mut login, _) = Setup::new(Method::Password, "bert", None).ask();
        let ClientStep::Hash(job) = login.on_message(b'p', b"secret\0").unwrap() else { panic!() };
        (login, job)
    };
    for method in METHODS {
        for user in USERS {
            let (mut login, _) = Setup::new(method, user, None).ask();
            assert_eq!(login.on_hashed(job().1.run()).unwrap_err(), AuthError::Over);
            assert_eq!(login.on_message(b'p', b"secret\0").unwrap_err(), AuthError::Over);
        }
    }
    let (mut login, right) = job();
    assert!(matches!(login.on_hashed(right.run()), Ok(ClientStep::Done(_))));
    assert_eq!(login.on_hashed(job().1.run()).unwrap_err(), AuthError::Over);
    // The client talks on while its password is hashed.
    let (mut login, right) = job();
    assert_eq!(login.on_message(b'p', b"secret\0").unwrap_err(), AuthError::Over);
    assert_eq!(login.on_hashed(right.run()).unwrap_err(), AuthError::Over);
}

#[test]
fn password_messages_are_read_as_postgres_reads_them() {
    for (method, user) in [(Method::Password, "bert"), (Method::Md5, "carl")] {
        let told = |tag: u8, body: &[u8]| {
            let (mut login, _) = Setup::new(method, user, None).ask();
            let error = on_client_message(&mut login, tag, body).unwrap_err();
            assert_eq!(login.on_message(b'p', b"secret\0").unwrap_err(), AuthError::Over);
            (error.sqlstate(), error.to_string())
        };
        let size = ("08P01", "invalid password packet size".to_owned());
        for body in [&b""[..], b"secret", b"secret\0\0", b"sec\0ret\0", b"\0\0", b"secret\0x"] {
            assert_eq!(told(b'p', body), size);
        }
        assert_eq!(told(b'p', b"\0"), ("28P01", "empty password returned by client".to_owned()));
        let wanted = "expected password response, got message type 81".to_owned();
        assert_eq!(told(b'Q', b"secret\0"), ("08P01", wanted));
        let long = [vec![b'x'; client_login::MAX_PASSWORD], vec![0]].concat();
        assert_eq!(told(b'p', &long), size);
    }
    // A password of any bytes is compared, text or not.
    assert!(matches!(answer(Method::Password, "bert", b"\xff\xfe\0"), Err(AuthError::Password { .. })));
    let longest = [vec![0xc3; client_login::MAX_PASSWORD - 1], vec![0]].concat();
    assert!(matches!(answer(Method::Password, "bert", &longest), Err(AuthError::Password { .. })));
}

#[test]
fn an_md5_answer_is_good_for_its_salt_only() {
    let setup = Setup::new(Method::Md5, "carl", password("secret"));
    let passed = setup.run(untouched).passed;
    let good = &passed[1][5..];
    let (mut login, _) = setup.ask();
    assert!(matches!(login.on_message(b'p', good), Ok(ClientStep::Done(_))));
    assert_eq!(login.on_message(b'p', good).unwrap_err(), AuthError::Over);
    let fresh = Setup { random: 2, ..setup.clone() };
    assert!(fresh.ask().0.on_message(b'p', good).is_err());
    for end in 0..good.len() {
        let mut cut = good[..end].to_vec();
        assert!(setup.ask().0.on_message(b'p', &cut).is_err());
        cut.push(0);
        assert!(end == good.len() - 1 || setup.ask().0.on_message(b'p', &cut).is_err());
    }
    // Neither the stored hash nor the password will do.
    for wrong in ["md59eff3f89538c526979d69c116ed45473\0", "secret\0"] {
        assert!(setup.ask().0.on_message(b'p', wrong.as_bytes()).is_err());
    }
}

#[test]
fn every_prefix_of_a_clear_password_fails() {
    for user in ["bert", "carl"] {
        assert!(matches!(answer(Method::Password, user, b"secret\0"), Ok(ClientStep::Done(_))));
        for end in 0..b"secret".len() {
            assert!(answer(Method::Password, user, &b"secret\0"[..end]).is_err());
            assert!(answer(Method::Password, user, &[&b"secret"[..end], b"\0"].concat()).is_err());
        }
    }
}

#[test]
fn messages_of_one_method_do_not_log_in_by_another() {
    let setups: Vec<_> = METHODS
        .into_iter()
        .flat_map(|method| ["bert", "carl"].map(|user| Setup::new(method, user, password("secret"))))
        .flat_map(|setup| [setup.clone(), setup.bound()])
        .collect();
    for one in &setups {
        let passed = one.run(untouched).passed;
        let said: Vec<_> = passed.iter().skip(1).step_by(2).map(|message| message[5..].to_vec()).collect();
        for other in setups.iter().filter(|other| other.method != one.method) {
            // `md5` asks SCRAM users for SCRAM: that is the same exchange, as the nonces are the same here.
            if one.user == other.user && passed[0][8] == other.ask().1[8] {
                continue;
            }
            let (mut login, _) = other.ask();
            for message in &said {
                let step = on_client_message(&mut login, b'p', message);
                assert!(!matches!(step, Ok(ClientStep::Done(_))));
            }
        }
    }
}

#[test]
fn plus_is_offered_and_used_with_tls() {
    let out = Setup::new(Method::Scram, "bert", password("secret")).bound().run(untouched);
    assert!(out.ready.is_some());
    assert_eq!(out.passed[0][9..], *b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0");
    assert!(out.passed[1][5..].starts_with(b"SCRAM-SHA-256-PLUS\0"));
    // A client that cannot bind comes in without.
    let setup = Setup::new(Method::Scram, "bert", password("secret")).bound();
    let unable = Setup { seen: Channel::Tls(None), ..setup };
    assert!(unable.run(untouched).ready.is_some());
}

#[test]
fn somebody_in_between_with_another_certificate_is_found_out() {
    let setup = Setup::new(Method::Scram, "bert", password("secret")).bound();
    let other = Setup { seen: Channel::Tls(EndPoint::new(b"another certificate")), ..setup.clone() };
    let out = other.run(untouched);
    assert!(out.logged_in.is_none() && out.ready.is_none());
    assert_eq!(refused(&out), ("28000".to_owned(), "SCRAM channel binding check failed".to_owned()));
    // It takes the binding mechanism out of our offer.
    let out = other.run(|number, message| match number {
        0 => framed(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"),
        _ => message,
    });
    assert!(out.logged_in.is_none() && out.ready.is_none());
    assert_eq!(refused(&out), ("28000".to_owned(), "SCRAM channel binding negotiation error".to_owned()));
    let detail = out.refused.unwrap().report().detail.unwrap();
    assert!(
        detail.ends_with("thinks the server does not.  However, this server does support channel binding.")
    );
    // It speaks TLS to us only, and the client sees no reason to bind.
    let stripped = Setup { seen: Channel::Plain, ..setup };
    assert_eq!(stripped.run(untouched).failed, Some(LoginError::PlusWithoutTls));
}

#[test]
fn a_bound_exchange_passed_on_to_another_connection_fails() {
    let setup = Setup::new(Method::Scram, "bert", password("secret")).bound();
    let said = setup.run(untouched).passed;
    // The same nonce even, but another certificate on the way to the client.
    let elsewhere = Setup { shown: EndPoint::new(b"another certificate"), ..setup };
    let (mut login, _) = elsewhere.ask();
    login.on_message(b'p', &said[1][5..]).unwrap();
    let error = login.on_message(b'p', &said[3][5..]).unwrap_err();
    assert_eq!(error.to_string(), "SCRAM channel binding check failed");
    // And without TLS the mechanism was never offered.
    let plain = Setup::new(Method::Scram, "bert", None);
    assert_eq!(plain.ask().0.on_message(b'p', &said[1][5..]).unwrap_err(), AuthError::Mechanism);
}

#[test]
fn messages_in_another_order_do_not_log_in() {
    for setup in
        [Setup::new(Method::Scram, "bert", password("secret"))].map(|s| [s.clone(), s.bound()]).concat()
    {
        let passed = setup.run(untouched).passed;
        let (first, proof) = (&passed[1][5..], &passed[3][5..]);
        for order in [[proof, first], [proof, proof], [first, first]] {
            let (mut login, _) = setup.ask();
            for message in order {
                assert!(!matches!(login.on_message(b'p', message), Ok(ClientStep::Done(_))));
            }
        }
        let bodies = [0, 2, 4].map(|number| passed[number].clone());
        for order in [[2, 1, 0], [1, 0, 2], [0, 2, 1], [2, 0, 1], [1, 2, 0], [0, 0, 2], [0, 1, 1]] {
            let mut client = setup.connect();
            let ready = order
                .iter()
                .flat_map(|&number| frames(&bodies[number]))
                .any(|(tag, body)| matches!(on_server_message(&mut client, tag, &body), Ok(Step::Ready(_))));
            assert!(!ready, "{order:?}");
        }
    }
}

#[test]
fn no_secret_is_shown() {
    let secrets = ["hush", "secret", "9eff3f89538c526979d69c116ed45473"];
    let clean = |shown: String| {
        for secret in secrets {
            assert!(!shown.contains(secret), "{shown}");
        }
    };
    for method in METHODS {
        for user in USERS {
            let setup = Setup::new(method, user, password("secret")).bound();
            clean(format!("{:?}", setup.start()));
            clean(format!("{:?}", setup.run(untouched).logged_in));
            let (mut login, _) = setup.ask();
            for body in [&b"hush\0"[..], b"hush"] {
                clean(format!("{:?}", login.on_message(b'p', body)));
                clean(format!("{login:?}"));
            }
            clean(format!("{:?}", setup.connect()));
        }
    }
    clean(format!("{:?}", users().get("carl")));
}
