//! Whom rules fit, which lines are refused, and what clients hear.

use proptest::prelude::*;

use super::*;

fn rules(lines: &[&str]) -> Rules {
    Rules::parse(lines).unwrap()
}

/// `user@database from address`, encrypted if the text ends with `tls`.
fn applicant(text: &'static str) -> Applicant<'static> {
    let mut words = text.split(' ');
    let (user, database) = words.next().unwrap().split_once('@').unwrap();
    let address = words.next().unwrap().parse().unwrap();
    let rest: Vec<_> = words.collect();
    Applicant {
        address,
        tls: rest.contains(&"tls"),
        database,
        user,
        replication: rest.contains(&"replication"),
    }
}

/// The numbers of the lines that fit, 0 for none.
fn lines(rules: &Rules, applicants: &[&'static str]) -> Vec<usize> {
    applicants.iter().map(|text| rules.find(&applicant(text)).map_or(0, |rule| rule.line)).collect()
}

#[test]
fn the_first_rule_that_fits_counts() {
    let rules = rules(&[
        "# TYPE   DATABASE USER      ADDRESS        METHOD",
        "hostssl  all      admin     10.0.0.0/8     scram-sha-256",
        "host     all      admin     all            reject",
        "",
        "host     shop,\"my db\" anna,bert 192.168.0.0 255.255.0.0 scram # staff",
        "hostnossl all     all       127.0.0.1/32   trust",
        "host     sameuser all       ::1/128        md5",
        "host replication  copy      all            scram-sha-256\r\n",
    ]);
    let wanted = [
        ("admin@x 10.1.1.1 tls", 2),
        ("admin@x 10.1.1.1", 3),
        ("admin@x 11.1.1.1 tls", 3),
        ("anna@shop 192.168.3.4", 5),
        ("bert@my 192.168.3.4", 0),
        ("carl@shop 192.168.3.4", 0),
        ("anna@shop 192.169.3.4", 0),
        ("carl@x 127.0.0.1", 6),
        ("carl@x ::ffff:127.0.0.1", 6),
        ("carl@x 127.0.0.1 tls", 0),
        ("carl@carl ::1", 7),
        ("carl@x ::1", 0),
        ("copy@x 9.9.9.9 replication", 8),
        ("copy@copy 9.9.9.9", 0),
        ("carl@carl ::1 replication", 0),
    ];
    let texts = wanted.map(|(text, _)| text);
    assert_eq!(lines(&rules, &texts), wanted.map(|(_, line)| line));
    let spaced = Applicant { database: "my db", ..applicant("bert@x 192.168.3.4") };
    assert_eq!(rules.find(&spaced).unwrap().line, 5);
}

#[test]
fn quotes_make_names_of_keywords() {
    let rules = rules(&[
        "host \"all\" all all trust",
        "host all \"all\" all trust",
        "host \"replication\" all all trust",
        "host \"sameuser\" all all trust",
        "host x \"+staff\" all trust",
    ]);
    let wanted = [
        ("anna@all ::1", 1),
        ("all@x ::1", 2),
        ("anna@replication ::1", 3),
        ("anna@replication ::1 replication", 0),
        ("anna@anna ::1", 0),
        ("anna@sameuser ::1", 4),
        ("+staff@x ::1", 5),
        ("anna@x ::1", 0),
    ];
    assert_eq!(lines(&rules, &wanted.map(|(text, _)| text)), wanted.map(|(_, line)| line));
}

#[test]
fn methods_and_options_are_read() {
    let rules = rules(&[
        "host all all all trust",
        "host all all all reject",
        "host all all all scram-sha-256",
        "host all all all scram",
        "host all all all md5",
        "hostssl all all all password",
        "hostssl all all all cert",
        "hostssl all all all cert map=m clientname=CN clientcert=verify-full",
        "hostssl all all all scram clientcert=verify-ca",
        "hostssl all all all trust clientcert=verify-full",
        "hostssl all all all cert map=",
    ]);
    use {ClientCert::*, RuleMethod::*};
    let read: Vec<_> =
        rules.iter().map(|rule| (rule.method, rule.client_cert, rule.map.as_deref())).collect();
    assert_eq!(
        read,
        [
            (Trust, None, None),
            (Reject, None, None),
            (Scram, None, None),
            (Scram, None, None),
            (Md5, None, None),
            (Password, None, None),
            (Cert, Some(VerifyFull), None),
            (Cert, Some(VerifyFull), Some("m")),
            (Scram, Some(VerifyCa), None),
            (Trust, Some(VerifyFull), None),
            (Cert, Some(VerifyFull), None),
        ]
    );
    assert_eq!(rules, rules.clone());
    assert_ne!(rules, Rules::default());
}

#[test]
fn lines_that_cannot_be_kept_are_named_with_a_remedy() {
    for (line, word, remedy) in [
        ("local all all trust", "local", "write host"),
        ("hostgssenc all all all trust", "hostgssenc", "write hostssl"),
        ("hostnogssenc all all all trust", "hostnogssenc", "write host"),
        ("Host all all all trust", "Host", "write host"),
        ("host,hostssl all all all trust", "hostssl", "another line"),
        ("host", "host", "before its databases"),
        ("host all", "all", "before its users"),
        ("host all bert", "bert", "before its address"),
        ("host all all ::1", "::1", "netmask must follow"),
        ("host all all ::1/128", "::1/128", "before its method"),
        ("host all all all # trust", "all", "before its method"),
        ("host samerole all all trust", "samerole", "write the databases' names"),
        ("host samegroup all all trust", "samegroup", "write the databases' names"),
        ("host all +staff all trust", "+staff", "write the users' names"),
        ("host @dbs all all trust", "@dbs", "write the names here"),
        ("host all anna,@users all trust", "@users", "write the names here"),
        ("host /^a all all trust", "/^a", "write the names"),
        ("host all \"/a b\" all trust", "/a b", "write the names"),
        ("host all all samehost trust", "samehost", "10.0.0.0/8"),
        ("host all all samenet trust", "samenet", "10.0.0.0/8"),
        ("host all all db.example.com trust", "db.example.com", "10.0.0.0/8"),
        ("host all all .example.com trust", ".example.com", "10.0.0.0/8"),
        ("host all all \"all\" trust", "all", "not an address"),
        ("host all all 10.0.0.0/33 trust", "10.0.0.0/33", "0 to 32"),
        ("host all all 10.0.0.0/ trust", "10.0.0.0/", "0 to 32"),
        ("host all all 10.0.0.1 trust", "trust", "netmask"),
        ("host all all 10.0.0.1 ff00:: trust", "ff00::", "both as IPv4"),
        ("host all all ::1,::2 trust", "::2", "another line"),
        ("host all all all trust,md5", "md5", "another line"),
        ("host all all all ldap ldapserver=x", "ldap", "scram-sha-256"),
        ("host all all all pam", "pam", "scram-sha-256"),
        ("host all all all Trust", "Trust", "scram-sha-256"),
        ("host all all all password", "password", "write hostssl"),
        ("hostnossl all all all password", "password", "write hostssl"),
        ("host all all all cert", "cert", "write hostssl"),
        ("host all all all scram clientcert=verify-ca", "clientcert=verify-ca", "write hostssl"),
        ("hostssl all all all cert clientcert=verify-ca", "clientcert=verify-ca", "leave the option out"),
        ("hostssl all all all scram clientcert=1", "clientcert=1", "verify-full"),
        ("hostssl all all all scram map=m", "map=m", "cert"),
        ("hostssl all all all cert clientname=DN", "clientname=DN", "clientname=CN"),
        ("host all all all trust please", "please", "name=value"),
        ("host all all all scram radiussecrets=hush", "radiussecrets", "map or clientcert"),
        ("host all all all trust\nhostssl all all all reject", "hostssl", "string of its own"),
        ("# closed\nhost all all all reject", "host", "string of its own"),
    ] {
        let error = Rules::parse(&["# one", line]).unwrap_err();
        assert_eq!((error.line, error.word.as_str()), (2, word), "{line}");
        assert!(error.problem.contains(remedy), "{line}: {error}");
    }
    let error = Rules::parse(&["local all all trust"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 1: \"local\": Tidegate does not listen on Unix sockets; write host, and an address"
    );
}

#[test]
fn refusals_are_said_in_the_words_of_postgres() {
    let closed = rules(&["host all bert all reject", "host replication bert all reject"]);
    for (text, wanted) in [
        (
            "anna@shop 10.0.0.1",
            "no pg_hba.conf entry for host \"10.0.0.1\", user \"anna\", database \"shop\", no encryption",
        ),
        (
            "anna@shop ::ffff:10.0.0.1 tls",
            "no pg_hba.conf entry for host \"10.0.0.1\", user \"anna\", database \"shop\", SSL encryption",
        ),
        (
            "anna@shop ::1 replication",
            "no pg_hba.conf entry for replication connection from host \"::1\", user \"anna\", no encryption",
        ),
        (
            "bert@shop ::1 tls",
            "pg_hba.conf rejects connection for host \"::1\", user \"bert\", database \"shop\", SSL encryption",
        ),
        (
            "bert@shop ::1 replication",
            "pg_hba.conf rejects replication connection for host \"::1\", user \"bert\", no encryption",
        ),
    ] {
        let applicant = applicant(text);
        let report = closed.admit(&applicant).unwrap_err().report(&applicant);
        assert_eq!((report.message.as_str(), &*report.sqlstate), (wanted, "28000"));
    }
    assert_eq!(Rules::parse::<&str>(&[]).unwrap().find(&applicant("anna@shop ::1")), None);
}

#[test]
fn certificates_are_asked_for_and_must_name_the_user() {
    let maps = crate::auth::ident::IdentMaps::parse(&["m anna app"]).unwrap();
    let rules = rules(&[
        "hostssl all all 1.0.0.0/8 cert map=m",
        "hostssl all all 2.0.0.0/8 scram clientcert=verify-full",
        "hostssl all all 3.0.0.0/8 trust clientcert=verify-full",
        "hostssl all all 4.0.0.0/8 scram clientcert=verify-ca",
        "hostssl all all 5.0.0.0/8 scram",
    ]);
    let all: Vec<_> = rules.iter().collect();
    assert_eq!(
        all.iter().map(|r| r.before_login(false).is_err()).collect::<Vec<_>>(),
        [true, true, true, true, false]
    );
    assert!(all.iter().all(|r| r.before_login(true).is_ok()));
    let applicant = applicant("app@x 1.1.1.1 tls");
    let told = |rule: &Rule, name: Option<&str>, user: &str| {
        rule.after_login(&maps, name, user).err().map(|denial| {
            let report = denial.report(&applicant);
            format!("{} {}", report.sqlstate, report.message)
        })
    };
    assert_eq!(told(all[0], Some("anna"), "app"), None);
    for (rule, wanted) in [
        (all[0], "28000 certificate authentication failed for user \"app\""),
        (all[1], "28P01 password authentication failed for user \"app\""),
        (all[2], "28000 \"trust\" authentication failed for user \"app\""),
    ] {
        assert_eq!(told(rule, Some("bert"), "app").unwrap(), wanted);
        assert_eq!(told(rule, None, "app").unwrap(), wanted);
    }
    assert_eq!(told(all[1], Some("app"), "app"), None);
    assert_eq!(told(all[3], Some("bert"), "app"), None);
    assert_eq!(told(all[4], None, "app"), None);
    let missing = Denial::NoCertificate.report(&applicant);
    assert_eq!(
        (missing.message.as_str(), &*missing.sqlstate),
        ("connection requires a valid client certificate", "28000")
    );
}

#[test]
fn without_rules_scram_is_asked_of_everybody() {
    let rules = Rules::default();
    for text in ["anna@shop 10.0.0.1", "anna@shop ::1 tls", "anna@shop ::1 replication"] {
        assert_eq!(rules.admit(&applicant(text)).unwrap().1, Method::Scram);
    }
    let written = ["host all all all scram-sha-256", "host replication all all scram-sha-256"];
    assert_eq!(lines(&self::rules(&written), &["a@b ::1", "a@b ::1 replication"]), [1, 2]);
}

proptest! {
    #[test]
    fn any_line_is_read_without_a_panic(
        text in "((host|hostssl|all|trust|cert|::1|10\\.0\\.0\\.0/8|map=|\"|,|#|@|/|\\+| |\t|[^\n]){0,4}){0,8}",
    ) {
        let _ = Rules::parse(&[&text]);
        let _ = crate::auth::ident::IdentMaps::parse(&[&text]);
    }

    #[test]
    fn a_name_in_quotes_fits_itself_only(name in "[a-z \",#@+=é]{1,20}", other in "[a-z \",#]{1,20}") {
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        let rules = Rules::parse(&[format!("host {quoted} {quoted} all trust")]).unwrap();
        let fits = |user: &str, database: &str| {
            rules.find(&Applicant { user, database, ..applicant("a@b ::1") }).is_some()
        };
        prop_assert!(fits(&name, &name));
        prop_assert_eq!(fits(&other, &name), other == name);
        prop_assert_eq!(fits(&name, &other), other == name);
    }
}
