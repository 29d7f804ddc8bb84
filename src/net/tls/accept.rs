//! Clients come to us: which certificate they are shown, and which of theirs are taken.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::pki_types::ServerName;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection};

use super::{ALPN, Certificate, Session, TlsError, files, provider};
use crate::config::settings::ClientTls;

/// Makes TLS sessions with clients. Immutable: a reload makes a new one, and sessions keep theirs.
pub struct Acceptor {
    config: Arc<ServerConfig>,
    shown: Arc<Shown>,
}

/// The certificates that clients may be shown.
#[derive(Debug)]
pub(super) struct Shown(Vec<Identity>);

/// One certificate of ours, with its key.
pub(super) struct Identity {
    key: Arc<CertifiedKey>,
    /// See [`Certificate::end_point`].
    pub(super) end_point: Option<Vec<u8>>,
}

impl Acceptor {
    /// Reads the files.
    ///
    /// # Errors
    /// One of them cannot be used.
    pub fn new(settings: &ClientTls) -> Result<Self, TlsError> {
        let shown = settings.certificates.iter().map(|pair| identity(&pair.cert, &pair.key));
        let shown = Arc::new(Shown(shown.collect::<Result<_, _>>()?));
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::new(Path::new("tls"), error))?;
        let builder = match &settings.client_ca {
            None => builder.with_no_client_auth(),
            Some(file) => {
                // Whether one must be shown, the rules say.
                let roots = Arc::new(files::roots(file)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| TlsError::new(file, error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_cert_resolver(shown.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        // No driver resumes sessions: tickets would only be bytes and memory.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { config: Arc::new(config), shown })
    }

    /// A session with a new client.
    ///
    /// # Errors
    /// As rustls says.
    pub fn session(&self) -> Result<Session, rustls::Error> {
        let tls = ServerConnection::new(self.config.clone())?;
        Ok(Session::server(tls, self.shown.clone()))
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Acceptor({} certificates)", self.shown.0.len())
    }
}

impl Shown {
    /// What a client is shown that has asked for this host: the first certificate that is for it, or else the first.
    pub(super) fn to(&self, name: Option<&str>) -> Option<&Identity> {
        let name = name.and_then(|name| ServerName::try_from(name.to_owned()).ok());
        let is_for = |identity: &&Identity| {
            let Some((certificate, name)) = identity.key.end_entity_cert().ok().zip(name.as_ref()) else {
                return false;
            };
            let parsed = ParsedCertificate::try_from(certificate);
            parsed.is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok())
        };
        self.0.iter().find(is_for).or(self.0.first())
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.to(hello.server_name()).map(|identity| identity.key.clone())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(..)")
    }
}

fn identity(cert: &Path, key: &Path) -> Result<Identity, TlsError> {
    let chain = files::certificates(cert)?;
    let end_point = chain.first().and_then(Certificate::read).and_then(|c| c.end_point());
    let certified = CertifiedKey::from_der(chain, files::key(key)?, &provider()).map_err(|error| {
        TlsError::new(key, format!("it does not fit the certificate in {}: {error}", cert.display()))
    })?;
    Ok(Identity { key: Arc::new(certified), end_point })
}
