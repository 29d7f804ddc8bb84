//! What we ask of a certificate: its holder's name, and its hash for channel binding.

use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use x509_cert::der::{Decode as _, asn1::ObjectIdentifier};

/// `id-at-commonName`.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// A certificate that has been read.
#[derive(Clone, Debug)]
pub struct Certificate {
    inner: x509_cert::Certificate,
    der: Vec<u8>,
}

impl Certificate {
    /// Reads a certificate; `None` if it is none.
    #[must_use]
    pub fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let inner = x509_cert::Certificate::from_der(der).ok()?;
        Some(Self { inner, der: der.to_vec() })
    }

    /// The holder's common name, as PostgreSQL compares it with the role (manual, "Certificate Authentication").
    /// One with a zero byte in it is none: it is there to deceive (CVE-2009-4034).
    #[must_use]
    pub fn common_name(&self) -> Option<String> {
        let subject = self.inner.tbs_certificate().subject();
        // The first, if there are several (`X509_NAME_get_text_by_NID`).
        let found = subject.iter().find(|attribute| attribute.oid == COMMON_NAME)?;
        let text = std::str::from_utf8(found.value.value()).ok()?;
        (!text.is_empty() && !text.contains('\0')).then(|| text.to_owned())
    }

    /// Its hash for `tls-server-end-point` (RFC 5929, section 4.1): by the algorithm of its signature, where SHA-256
    /// stands for anything weaker. `None` for signatures that do not name a hash, as Ed25519's.
    #[must_use]
    pub fn end_point(&self) -> Option<Vec<u8>> {
        let oid = self.inner.signature_algorithm().oid.to_string();
        Some(match oid.as_str() {
            // RSA and ECDSA with MD5, SHA-1 or SHA-256.
            "1.2.840.113549.1.1.4"
            | "1.2.840.113549.1.1.5"
            | "1.2.840.113549.1.1.11"
            | "1.2.840.10045.4.1"
            | "1.2.840.10045.4.3.2" => Sha256::digest(&self.der).to_vec(),
            "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Sha384::digest(&self.der).to_vec(),
            "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Sha512::digest(&self.der).to_vec(),
            _ => return None,
        })
    }

    /// The seconds since 1970 between which it is valid.
    #[must_use]
    pub fn validity(&self) -> (u64, u64) {
        let validity = self.inner.tbs_certificate().validity();
        (validity.not_before.to_unix_duration().as_secs(), validity.not_after.to_unix_duration().as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::pem::PemObject as _;

    #[test]
    fn certificates_are_hashed_as_their_signature_says() {
        const END: &str = "-----END CERTIFICATE-----\n";
        let all = include_str!("../../../tests/data/certificates.pem").split_inclusive(END);
        let mut seen = 0;
        for one in all {
            let (words, _) = one.split_once("\n-----BEGIN").unwrap();
            let (kind, expected) = words.lines().last().unwrap().split_once(' ').unwrap();
            let read = Certificate::read(&CertificateDer::from_pem_slice(one.as_bytes()).unwrap()).unwrap();
            assert_eq!(read.common_name().as_deref(), Some(kind));
            let hash: Option<String> =
                read.end_point().map(|hash| hash.iter().map(|byte| format!("{byte:02x}")).collect());
            assert_eq!(hash.as_deref().unwrap_or("-"), expected, "{kind}");
            seen += 1;
        }
        assert_eq!(seen, 11);
    }
}
