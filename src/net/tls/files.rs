//! Certificates and keys in PEM files.

use std::fs;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A file of TLS's, or what is in it, cannot be used. Holds no key.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}", file = .file.display())]
pub struct TlsError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong.
    pub problem: String,
}

impl TlsError {
    pub(super) fn new(file: &Path, problem: impl ToString) -> Self {
        Self { file: file.to_owned(), problem: problem.to_string() }
    }
}

/// The certificates of a file, in order.
///
/// # Errors
/// It cannot be read, or has none.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = fs::read(file).map_err(|error| TlsError::new(file, error))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| TlsError::new(file, format!("not a PEM file: {error}")))?;
    if found.is_empty() {
        return Err(TlsError::new(file, "there is no certificate in it"));
    }
    Ok(found)
}

/// The private key of a file.
///
/// # Errors
/// It cannot be read, has none, or others may read it.
pub fn key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    refuse_open_key(file)?;
    let text = fs::read(file).map_err(|error| TlsError::new(file, error))?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        TlsError::new(file, "there is no private key in it that can be used (one with a passphrase cannot)")
    })
}

/// PostgreSQL's rule for its own key (`check_ssl_key_file_permissions`): nobody but its owner may read it, unless it
/// is root's, whose group may.
#[cfg(unix)]
fn refuse_open_key(file: &Path) -> Result<(), TlsError> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = fs::metadata(file).map_err(|error| TlsError::new(file, error))?;
    let open = if meta.uid() == 0 { 0o027 } else { 0o077 };
    if meta.is_file() && meta.mode() & open != 0 {
        return Err(TlsError::new(file, "others may read this private key: chmod 600 it"));
    }
    Ok(())
}

#[cfg(not(unix))]
fn refuse_open_key(_: &Path) -> Result<(), TlsError> {
    Ok(())
}

/// The certificates of a file, as those that are trusted.
///
/// # Errors
/// It cannot be read, or one of them cannot be used.
pub fn roots(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| TlsError::new(file, error))?;
    }
    Ok(roots)
}
