//! `[tls]`: from what is written to what clients are shown.

use std::path::PathBuf;

use super::error::ConfigError;
use super::raw::{KeyPair as RawPair, Tls};
use super::settings::{ClientTls, KeyPair};

/// TLS to clients, if it is on: it is as soon as there is a certificate, unless `mode` says otherwise.
///
/// # Errors
/// A file is missing, or `mode` is none.
pub fn client_tls(raw: &Tls) -> Result<Option<ClientTls>, ConfigError> {
    let first = RawPair { cert: raw.cert.clone(), key: raw.key.clone() };
    let mode = match raw.mode.as_deref().map(str::trim) {
        None if raw.cert.is_none() && raw.key.is_none() => "off",
        None => "allow",
        Some(mode) => mode,
    };
    let required = match mode {
        "off" => return Ok(None),
        "allow" => false,
        "require" => true,
        other => {
            return Err(ConfigError::value("tls.mode", other, r#"write "off", "allow" or "require""#));
        }
    };
    let mut certificates = vec![pair("tls", &first)?];
    for more in &raw.more {
        certificates.push(pair("tls.more", more)?);
    }
    Ok(Some(ClientTls { required, certificates, client_ca: raw.client_ca.as_ref().map(PathBuf::from) }))
}

fn pair(key: &str, raw: &RawPair) -> Result<KeyPair, ConfigError> {
    match (&raw.cert, &raw.key) {
        (Some(cert), Some(key)) => Ok(KeyPair { cert: cert.into(), key: key.into() }),
        _ => Err(ConfigError::Missing {
            key: format!("{key}.{}", if raw.cert.is_none() { "cert" } else { "key" }),
            remedy: "name the PEM files of a certificate (cert) and of its private key (key)".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<ClientTls>, String> {
        let raw: Tls = toml::from_str(text).unwrap();
        client_tls(&raw).map_err(|error| error.to_string())
    }

    #[test]
    fn a_certificate_turns_it_on() {
        assert_eq!(read(""), Ok(None));
        assert_eq!(read("mode = 'off'\ncert = 'c'"), Ok(None));
        let found = read("cert = 'c'\nkey = 'k'\n[[more]]\ncert = 'd'\nkey = 'l'").unwrap().unwrap();
        assert!(!found.required);
        assert_eq!(found.certificates.len(), 2);
        assert!(read("mode = 'require'\ncert = 'c'\nkey = 'k'").unwrap().unwrap().required);
    }

    #[test]
    fn what_is_missing_is_named() {
        for (text, expected) in [
            ("mode = 'require'", "tls.cert is missing"),
            ("cert = 'c'", "tls.key is missing"),
            ("cert = 'c'\nkey = 'k'\n[[more]]\nkey = 'k'", "tls.more.cert is missing"),
            ("mode = 'on'", "tls.mode = \"on\": write"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
