//! TLS, to clients and to servers, by rustls.
//!
//! Reading order: [`session`] (records on one socket), [`certificate`] (what we ask of one), [`files`] (PEM), then
//! [`accept`] (clients come to us) and [`connect`] (we go to servers).

pub mod accept;
pub mod certificate;
pub mod connect;
pub mod files;
pub mod session;

pub use accept::Acceptor;
pub use certificate::Certificate;
pub use connect::Connector;
pub use files::TlsError;
pub use session::Session;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// The protocol's name in ALPN, registered with IANA; libpq has sent it since version 17.
pub const ALPN: &[u8] = b"postgresql";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
