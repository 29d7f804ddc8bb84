//! Node URLs: `postgres://user:password@host:port/database`.

use super::error::ConfigError;
use super::settings::{KeyPair, NodeSettings, NodeTls, Roots, SslMode};

/// Reads a node's URL, as libpq reads connection URIs (manual, "Connection Strings").
///
/// # Errors
/// It cannot be read, or asks for something that is not there yet. The text holds no password.
pub fn node(key: &str, url: &str) -> Result<NodeSettings, ConfigError> {
    let shown = without_password(url);
    let bad = |remedy: &str| ConfigError::value(key, shown.clone(), remedy);
    let form = "write postgres://user:password@host:port/database";
    let rest = url
        .strip_prefix("postgres://")
        .or_else(|| url.strip_prefix("postgresql://"))
        .ok_or_else(|| bad(form))?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (userinfo, hostport) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = match userinfo.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (userinfo, None),
    };
    let decode = |text: &str| {
        decode(text).ok_or_else(|| bad("a percent sign must be followed by two hexadecimal digits"))
    };
    let (host, port) = host_and_port(hostport).ok_or_else(|| bad(form))?;
    let mut host = decode(host)?;
    let (mut tls, mut cert, mut key) = (NodeTls::default(), None, None);
    let mut port = match port {
        Some(port) => port.parse().map_err(|_| bad("a port is a number from 1 to 65535"))?,
        None => 5432,
    };
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(|| bad("parameters are written name=value"))?;
        let value = decode(value)?;
        match (name, value.as_str()) {
            ("host", _) => host = value,
            ("port", _) => port = value.parse().map_err(|_| bad("a port is a number from 1 to 65535"))?,
            ("sslmode", mode) => tls.mode = ssl_mode(mode).ok_or_else(|| bad(SSL_MODES))?,
            ("sslrootcert", "system") => tls.roots = Roots::System,
            ("sslrootcert", _) => tls.roots = Roots::File(value.into()),
            ("sslcert", _) => cert = Some(value),
            ("sslkey", _) => key = Some(value),
            ("sslnegotiation", "direct") => tls.direct = true,
            ("sslnegotiation", "postgres") | ("application_name" | "connect_timeout", _) => {}
            _ => {
                return Err(bad(
                    "only the parameters host, port, sslmode, sslrootcert, sslcert, sslkey and \
                     sslnegotiation=direct are taken",
                ));
            }
        }
    }
    tls.own = match (cert, key) {
        (None, None) => None,
        (Some(cert), Some(key)) => Some(KeyPair { cert: cert.into(), key: key.into() }),
        _ => return Err(bad("sslcert and sslkey belong together")),
    };
    check(&tls).map_err(bad)?;
    if host.is_empty() {
        host = "localhost".to_owned();
    }
    if port == 0 {
        return Err(bad("a port is a number from 1 to 65535"));
    }
    let user = if user.is_empty() { "postgres".to_owned() } else { decode(user)? };
    let database = if path.is_empty() { user.clone() } else { decode(path)? };
    let password = password.map(decode).transpose()?;
    let name = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    Ok(NodeSettings { name: name.into(), host, port, user, password, database, tls })
}

const SSL_MODES: &str = "sslmode is one of disable, allow, prefer, require, verify-ca, verify-full";

fn ssl_mode(text: &str) -> Option<SslMode> {
    Some(match text {
        "disable" => SslMode::Disable,
        "allow" => SslMode::Allow,
        "prefer" => SslMode::Prefer,
        "require" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        _ => return None,
    })
}

/// What does not go together, as libpq has it (`connectOptions2` in fe-connect.c).
fn check(tls: &NodeTls) -> Result<(), &'static str> {
    match (tls.mode, &tls.roots) {
        (SslMode::VerifyCa | SslMode::VerifyFull, Roots::None) => {
            Err("sslmode=verify-ca and verify-full need sslrootcert=FILE, or sslrootcert=system")
        }
        (mode, Roots::System) if mode != SslMode::VerifyFull => {
            Err("sslrootcert=system needs sslmode=verify-full: anyone can have a certificate from those")
        }
        (SslMode::Disable | SslMode::Allow | SslMode::Prefer, _) if tls.direct => {
            Err("sslnegotiation=direct needs sslmode=require or more")
        }
        _ => Ok(()),
    }
}

/// Host and port, where a host may be an IPv6 address in brackets.
fn host_and_port(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None => rest.is_empty().then_some((host, None)),
        };
    }
    match text.split_once(':') {
        Some((host, port)) => (!port.contains(':')).then_some((host, Some(port))),
        None => Some((text, None)),
    }
}

fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let (high, low) = (bytes.next()?, bytes.next()?);
            let digit = |b: u8| char::from(b).to_digit(16);
            out.push(u8::try_from(digit(high)? * 16 + digit(low)?).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok().filter(|s| !s.contains('\0'))
}

/// The URL with its password blotted out.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        // Not a URL: anything in it may be a secret.
        return "...".to_owned();
    };
    match rest.rsplit_once('@') {
        Some((userinfo, host)) => {
            let user = userinfo.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:...@{host}")
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn urls_are_read_as_libpq_reads_them() {
        let n = node("nodes", "postgresql://bob:p%40ss@db.example:5433/shop?sslmode=prefer").unwrap();
        assert_eq!(
            (&*n.name, n.user.as_str(), n.password.as_deref(), n.database.as_str()),
            ("db.example:5433", "bob", Some("p@ss"), "shop")
        );
        let n =
            node("nodes", "postgres://h?sslmode=verify-full&sslrootcert=/r&sslcert=/c&sslkey=/k").unwrap();
        let own = Some(KeyPair { cert: "/c".into(), key: "/k".into() });
        let roots = Roots::File("/r".into());
        assert_eq!(n.tls, NodeTls { mode: SslMode::VerifyFull, roots, own, direct: false });
        let n = node("nodes", "postgres://[::1]").unwrap();
        assert_eq!(
            (&*n.name, n.host.as_str(), n.user.as_str(), n.database.as_str()),
            ("[::1]:5432", "::1", "postgres", "postgres")
        );
        let n = node("nodes", "postgres:///shop?host=/run/postgresql&port=5440").unwrap();
        assert_eq!((n.host.as_str(), n.port, n.database.as_str()), ("/run/postgresql", 5440, "shop"));
    }

    #[test]
    fn what_cannot_be_read_is_refused_without_the_password() {
        for url in [
            "mysql://u:hunter2@h",
            "postgres://u:hunter2@h:0",
            "postgres://u:hunter2@h:x",
            "u:hunter2@h",
            "postgres://u:hunter2@h/d?sslmode=maybe",
            "postgres://u:hunter2@h/d?sslmode=verify-full",
            "postgres://u:hunter2@h/d?sslmode=require&sslrootcert=system",
            "postgres://u:hunter2@h/d?sslcert=c.crt",
            "postgres://u:hunter2@h/d?sslnegotiation=direct",
            "postgres://u:hunter2@h/d?x=1",
            "postgres://u:hunter2@[::1",
            "postgres://u:hunter2%@h",
        ] {
            let error = node("nodes", url).unwrap_err().to_string();
            assert!(!error.contains("hunter2") && error.starts_with("nodes = "), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_password_survives_and_never_shows(password in "[a-zA-Z0-9%:@/?# ]{9,20}", tail in "[a-z?=&:@/]{0,10}") {
            let encoded: String = password.bytes().map(|b| format!("%{b:02X}")).collect();
            let n = node("nodes", &format!("postgres://u:{encoded}@h/d")).unwrap();
            prop_assert_eq!(n.password.as_deref(), Some(password.as_str()));
            let shown = format!("{n:?}");
            prop_assert!(!shown.contains(&password));
            if let Err(error) = node("nodes", &format!("postgres://u:{encoded}@{tail}")) {
                prop_assert!(!error.to_string().contains(&encoded));
            }
        }
    }
}
