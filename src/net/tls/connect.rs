//! We go to servers: with or without TLS, and whom we take them for, as libpq's `sslmode` has it.

use std::fmt;
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::BytesMut;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
};

use super::{ALPN, Certificate, Session, TlsError, files, provider};
use crate::config::settings::{NodeSettings, NodeTls, Roots, SslMode};
use crate::net::{Stream, invalid_data};

/// SSLRequest.
const REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Makes connections to one node.
pub struct Connector {
    host: String,
    port: u16,
    tls: NodeTls,
    /// None while no way leads over TLS.
    config: ArcSwapOption<ClientConfig>,
}

/// What a connector has read from its files.
pub struct Files(Option<Arc<ClientConfig>>);

/// One way to connect. A node that refuses a login by one may take it by the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Without TLS.
    Plain,
    /// With TLS if the server has it.
    TlsIfOffered,
    /// With TLS.
    Tls,
}

impl Connector {
    /// Reads the files.
    ///
    /// # Errors
    /// One of them cannot be used.
    pub fn new(node: &NodeSettings) -> Result<Self, TlsError> {
        let connector = Self {
            host: node.host.clone(),
            port: node.port,
            tls: node.tls.clone(),
            config: ArcSwapOption::empty(),
        };
        connector.take(connector.read()?);
        Ok(connector)
    }

    /// Reads the files anew, for [`Self::take`].
    ///
    /// # Errors
    /// One of them cannot be used.
    pub fn read(&self) -> Result<Files, TlsError> {
        let plain = self.ways() == [Way::Plain];
        Ok(Files(if plain { None } else { Some(Arc::new(config(&self.tls)?)) }))
    }

    /// From now on goes by these files; connections that there are keep what they have.
    pub fn take(&self, files: Files) {
        self.config.store(files.0);
    }

    /// The ways to connect, the preferred one first (manual, "SSL Mode Descriptions").
    #[must_use]
    pub fn ways(&self) -> &'static [Way] {
        match self.tls.mode {
            // libpq has no TLS on Unix sockets.
            _ if self.host.starts_with('/') => &[Way::Plain],
            SslMode::Disable => &[Way::Plain],
            SslMode::Allow => &[Way::Plain, Way::Tls],
            SslMode::Prefer => &[Way::TlsIfOffered, Way::Plain],
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[Way::Tls],
        }
    }

    /// Connects by one of the [`Self::ways`].
    ///
    /// # Errors
    /// The node cannot be reached, has no TLS, or is not the one that it should be.
    pub async fn connect(&self, way: Way) -> io::Result<Stream> {
        let mut stream = Stream::connect(&self.host, self.port).await?;
        let config = match (way, self.config.load_full()) {
            (Way::Plain, _) => return Ok(stream),
            (_, Some(config)) => config,
            (_, None) => return Err(invalid_data("TLS is not set up for this node")),
        };
        if !self.tls.direct && !offers_tls(&mut stream).await? {
            return match way {
                Way::TlsIfOffered => Ok(stream),
                _ => Err(io::Error::new(io::ErrorKind::Unsupported, "the server does not support TLS")),
            };
        }
        let name = ServerName::try_from(self.host.clone()).map_err(invalid_data)?;
        let tls = ClientConnection::new(config, name).map_err(invalid_data)?;
        stream.secure(Session::client(tls), BytesMut::new()).await?;
        if self.tls.direct && stream.tls().and_then(Session::alpn) != Some(ALPN) {
            return Err(invalid_data("the server did not agree on the protocol (ALPN)"));
        }
        Ok(stream)
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connector({}:{} {:?})", self.host, self.port, self.tls.mode)
    }
}

/// Asks for TLS. Only one byte is read: what an attacker has put behind it is not taken for the server's.
async fn offers_tls(stream: &mut Stream) -> io::Result<bool> {
    stream.write_all(&REQUEST).await?;
    let mut byte = [0];
    tokio::io::AsyncReadExt::read_exact(stream, &mut byte).await?;
    match &byte {
        b"S" => Ok(true),
        b"N" => Ok(false),
        // An error of a server before 7.0, or of one that is starting: libpq does not show it either (CVE-2024-10977).
        _ => Err(invalid_data("the server gave no proper answer to an SSLRequest")),
    }
}

fn config(settings: &NodeTls) -> Result<ClientConfig, TlsError> {
    let shown = settings.roots.path();
    let failed = |error: Error| TlsError::new(&shown, error);
    let provider = provider();
    let trust = Trust::new(settings, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(trust));
    let mut config = match &settings.own {
        None => builder.with_no_client_auth(),
        Some(own) => builder
            .with_client_auth_cert(files::certificates(&own.cert)?, files::key(&own.key)?)
            .map_err(|error| TlsError::new(&own.key, error))?,
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Whom we take a server's certificate from.
#[derive(Debug)]
struct Trust {
    provider: Arc<CryptoProvider>,
    /// None: from anyone, which protects from those who only listen.
    chain: Option<Chain>,
}

#[derive(Debug)]
struct Chain {
    verifier: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
    /// Whether the host's name must stand in it.
    name: bool,
}

impl Trust {
    fn new(settings: &NodeTls, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let trusted = match (&settings.roots, settings.mode) {
            (Roots::None, _) | (_, SslMode::Disable | SslMode::Allow | SslMode::Prefer) => {
                return Ok(Self { provider: provider.clone(), chain: None });
            }
            (Roots::File(file), _) => files::certificates(file)?,
            (Roots::System, _) => rustls_native_certs::load_native_certs().certs,
        };
        let file = settings.roots.path();
        let mut roots = RootCertStore::empty();
        let (_, refused) = roots.add_parsable_certificates(trusted.iter().cloned());
        if refused > 0 && settings.roots != Roots::System {
            return Err(TlsError::new(&file, "a certificate in it cannot be read"));
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|error| TlsError::new(&file, error))?;
        let name = settings.mode == SslMode::VerifyFull;
        Ok(Self { provider: provider.clone(), chain: Some(Chain { verifier, trusted, name }) })
    }
}

impl Chain {
    /// A certificate that is itself among the trusted ones needs no issuer, even if it says that it is one: so it is
    /// with libpq, and so people set up servers that sign for themselves.
    fn is_trusted(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> bool {
        let valid = Certificate::read(certificate).map(|c| c.validity());
        self.trusted.contains(certificate)
            && valid.is_some_and(|(from, to)| (from..=to).contains(&now.as_secs()))
    }

    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<(), Error> {
        if self.is_trusted(certificate, now) {
            return match self.name {
                true => verify_server_name(&ParsedCertificate::try_from(certificate)?, name),
                false => Ok(()),
            };
        }
        match self.verifier.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            Ok(_) => Ok(()),
            // The chain is looked at before the name (rustls, `WebPkiServerVerifier`).
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.name => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(chain) = &self.chain {
            chain.verify(certificate, intermediates, name, ocsp, now)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
