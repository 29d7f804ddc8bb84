//! A line into a rule: `TYPE DATABASE USER ADDRESS [MASK] METHOD [OPTIONS]` (PostgreSQL: `parse_hba_line`).

use std::net::IpAddr;

use super::address::Addresses;
use super::line::{Line, LineError};
use super::rule::{ClientCert, Database, Role, Rule, RuleMethod, Transport};
use super::token::Token;

/// The rule of a line, if it holds one.
///
/// # Errors
/// See [`LineError`].
pub(super) fn rule(number: usize, text: &str) -> Result<Option<Rule>, LineError> {
    let Some(mut line) = Line::read(number, text)? else { return Ok(None) };
    let transport = transport(&mut line)?;
    let words = line.many("the line ends before its databases; write TYPE DATABASE USER ADDRESS METHOD")?;
    let databases = words.into_iter().map(|word| database(&line, word)).collect::<Result<_, _>>()?;
    let words = line.many("the line ends before its users; write TYPE DATABASE USER ADDRESS METHOD")?;
    let users = words.into_iter().map(|word| role(&line, word)).collect::<Result<_, _>>()?;
    let addresses = addresses(&mut line)?;
    let method = method(&mut line, transport)?;
    let client_cert = (method == RuleMethod::Cert).then_some(ClientCert::VerifyFull);
    let mut rule =
        Rule { line: line.number(), transport, databases, users, addresses, method, client_cert, map: None };
    while let Some(field) = line.next() {
        for word in field {
            option(&line, &mut rule, &word)?;
        }
    }
    Ok(Some(rule))
}

fn transport(line: &mut Line) -> Result<Transport, LineError> {
    let word = line.one("the line is empty")?;
    match word.text.as_str() {
        "host" => Ok(Transport::Any),
        "hostssl" => Ok(Transport::Tls),
        "hostnossl" => Ok(Transport::Plain),
        "local" => {
            Err(line.error(&word, "Tidegate does not listen on Unix sockets; write host, and an address"))
        }
        "hostgssenc" => {
            Err(line.error(&word, "there is no GSSAPI encryption; write hostssl, or leave the line out"))
        }
        "hostnogssenc" => Err(line.error(&word, "there is no GSSAPI encryption; write host")),
        _ => Err(line.error(&word, "not a connection type; write host, hostssl or hostnossl")),
    }
}

fn database(line: &Line, word: Token) -> Result<Database, LineError> {
    if word.is("samerole") || word.is("samegroup") {
        return Err(line.error(&word, "memberships are not known here; write the databases' names"));
    }
    if word.text.starts_with('/') {
        return Err(line.error(&word, REGEX));
    }
    Ok(if word.is("all") {
        Database::All
    } else if word.is("sameuser") {
        Database::SameUser
    } else if word.is("replication") {
        Database::Replication
    } else {
        Database::Named(word.text.into())
    })
}

fn role(line: &Line, word: Token) -> Result<Role, LineError> {
    if word.begins('+') {
        return Err(line.error(&word, "memberships are not known here; write the users' names"));
    }
    if word.text.starts_with('/') {
        return Err(line.error(&word, REGEX));
    }
    Ok(if word.is("all") { Role::All } else { Role::Named(word.text.into()) })
}

/// As in PostgreSQL, quotes do not take the meaning from the slash.
const REGEX: &str = "regular expressions are not supported; write the names, with commas between";

fn addresses(line: &mut Line) -> Result<Addresses, LineError> {
    let word = line.one("the line ends before its address; write all, or one such as 10.0.0.0/8")?;
    if word.is("all") {
        return Ok(Addresses::All);
    }
    if word.is("samehost") || word.is("samenet") {
        return Err(
            line.error(&word, "this machine's networks are not looked up; write them, as in 10.0.0.0/8")
        );
    }
    let (address, bits) = match word.text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (word.text.as_str(), None),
    };
    let address: IpAddr = address.parse().map_err(|_| {
        line.error(
            &word,
            "not an address, and host names are not looked up; write one such as 10.0.0.0/8 or ::1/128",
        )
    })?;
    if let Some(bits) = bits {
        return Addresses::cidr(address, bits).ok_or_else(|| {
            line.error(&word, "no such range; write 0 to 32 bits for IPv4, 0 to 128 for IPv6")
        });
    }
    let mask = line.one("a netmask must follow; write one, or the range as in 10.0.0.0/8")?;
    let bits: IpAddr = mask.text.parse().map_err(|_| {
        line.error(&mask, "not a netmask; write one such as 255.0.0.0, or the range as in 10.0.0.0/8")
    })?;
    Addresses::masked(address, bits).ok_or_else(|| {
        line.error(&mask, "the netmask is not of the address's kind; write both as IPv4 or both as IPv6")
    })
}

fn method(line: &mut Line, transport: Transport) -> Result<RuleMethod, LineError> {
    let word = line
        .one("the line ends before its method; write scram-sha-256, md5, password, cert, trust or reject")?;
    match word.text.as_str() {
        "trust" => Ok(RuleMethod::Trust),
        "reject" => Ok(RuleMethod::Reject),
        "scram-sha-256" | "scram" => Ok(RuleMethod::Scram),
        "md5" => Ok(RuleMethod::Md5),
        "cert" if transport == Transport::Tls => Ok(RuleMethod::Cert),
        "cert" => Err(line.error(&word, "there are certificates with TLS only; write hostssl")),
        "password" if transport == Transport::Tls => Ok(RuleMethod::Password),
        // PostgreSQL would let it pass, and everybody on the way read it.
        "password" => Err(line.error(&word, "it would be sent in clear; write hostssl, or scram-sha-256")),
        "gss" | "sspi" | "ident" | "peer" | "pam" | "ldap" | "radius" | "bsd" | "oauth" => Err(line.error(
            &word,
            "a method that is not supported; write scram-sha-256, md5, password, cert, trust or reject",
        )),
        _ => {
            Err(line.error(&word, "not a method; write scram-sha-256, md5, password, cert, trust or reject"))
        }
    }
}

fn option(line: &Line, rule: &mut Rule, word: &Token) -> Result<(), LineError> {
    let Some((name, value)) = word.text.split_once('=') else {
        return Err(line.error(word, "not an option; write it as name=value"));
    };
    // The value might be a secret.
    let name_only = Token { text: name.to_owned(), quoted: word.quoted };
    match (name, value) {
        ("map", _) if rule.method != RuleMethod::Cert => {
            Err(line.error(word, "an identity map needs a certificate's name; write the method cert"))
        }
        // PostgreSQL: `check_usermap` takes an empty name for none.
        ("map", map) => {
            rule.map = (!map.is_empty()).then(|| map.into());
            Ok(())
        }
        ("clientcert" | "clientname", _) if rule.transport != Transport::Tls => {
            Err(line.error(word, "there are certificates with TLS only; write hostssl"))
        }
        ("clientcert", "verify-full") => {
            rule.client_cert = Some(ClientCert::VerifyFull);
            Ok(())
        }
        ("clientcert", "verify-ca") if rule.method == RuleMethod::Cert => {
            Err(line.error(word, "the method cert always looks at the name; leave the option out"))
        }
        ("clientcert", "verify-ca") => {
            rule.client_cert = Some(ClientCert::VerifyCa);
            Ok(())
        }
        ("clientcert", _) => Err(line.error(word, "write clientcert=verify-ca or clientcert=verify-full")),
        ("clientname", "CN") => Ok(()),
        ("clientname", _) => Err(line.error(word, "only the common name is looked at; write clientname=CN")),
        _ => {
            Err(line
                .error(&name_only, "not an option of a method that is supported; write map or clientcert"))
        }
    }
}
