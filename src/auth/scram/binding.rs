//! Channel binding: a login that is good for one TLS connection only, by the hash of the server's
//! certificate (RFC 5929, `tls-server-end-point`). Who sits in between with another certificate is found out.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{MECHANISM, MECHANISM_PLUS};

/// The only binding type of PostgreSQL.
pub const BINDING_TYPE: &str = "tls-server-end-point";

/// The hash of a server's certificate, by the hash function of its signature, or SHA-256 instead of MD5
/// and SHA-1 (RFC 5929, section 4.1; PostgreSQL: `be_tls_get_certificate_hash`). No secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndPoint(Arc<[u8]>);

impl EndPoint {
    /// Takes the hash's bytes. `None` if there are none: they would bind nothing.
    #[must_use]
    pub fn new(hash: &[u8]) -> Option<Self> {
        (!hash.is_empty()).then(|| Self(hash.into()))
    }
}

/// What a connection to a server has to bind to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Nothing: it is not encrypted.
    Plain,
    /// TLS to the server with this certificate. `None` if no hash is defined for it (Ed25519): binding is
    /// then not possible.
    Tls(Option<EndPoint>),
}

/// What a client says about channel binding: the GS2 header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// `n`: it cannot, or will not.
    Unable,
    /// `y`: it could, and believes that the server cannot.
    Unused,
    /// `p`: it binds to this.
    To(EndPoint),
}

impl Binding {
    /// The GS2 header, with which the client's first message begins.
    #[must_use]
    pub const fn header(&self) -> &'static [u8] {
        match self {
            Self::Unable => b"n,,",
            Self::Unused => b"y,,",
            Self::To(_) => b"p=tls-server-end-point,,",
        }
    }

    /// Base64 of the header and the hash: what the client's second message has to say, and prove.
    #[must_use]
    pub fn echo(&self) -> String {
        let hash: &[u8] = match self {
            Self::Unable | Self::Unused => &[],
            Self::To(EndPoint(hash)) => hash,
        };
        BASE64.encode([self.header(), hash].concat())
    }

    /// The mechanism that a client selects to say this.
    #[must_use]
    pub const fn mechanism(&self) -> &'static str {
        match self {
            Self::Unable | Self::Unused => MECHANISM,
            Self::To(_) => MECHANISM_PLUS,
        }
    }
}

/// The mechanism that a client has selected, out of those that we offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// SCRAM-SHA-256-PLUS, which must bind to this.
    Plus(EndPoint),
    /// SCRAM-SHA-256.
    Bare {
        /// We offered the other one as well: a client that believes that we cannot has been lied to.
        plus_offered: bool,
    },
}

impl Selection {
    /// What a client's mechanism means where we can bind to `end_point`; `None` if we do not offer it.
    #[must_use]
    pub fn of(mechanism: &[u8], end_point: Option<EndPoint>) -> Option<Self> {
        match end_point {
            Some(end_point) if mechanism == MECHANISM_PLUS.as_bytes() => Some(Self::Plus(end_point)),
            end_point if mechanism == MECHANISM.as_bytes() => {
                Some(Self::Bare { plus_offered: end_point.is_some() })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_echo_is_the_header_and_the_hash() {
        assert_eq!(Binding::Unable.echo(), "biws");
        assert_eq!(Binding::Unused.echo(), "eSws");
        let bound = Binding::To(EndPoint::new(b"hash").unwrap());
        assert_eq!(BASE64.decode(bound.echo()).unwrap(), b"p=tls-server-end-point,,hash");
        assert_eq!(bound.header(), format!("p={BINDING_TYPE},,").as_bytes());
        assert_eq!(EndPoint::new(b""), None);
    }

    #[test]
    fn only_what_was_offered_can_be_selected() {
        let end_point = || EndPoint::new(b"hash");
        assert_eq!(Selection::of(b"SCRAM-SHA-256-PLUS", None), None);
        assert_eq!(Selection::of(b"SCRAM-SHA-1", end_point()), None);
        let plus = end_point().map(Selection::Plus);
        assert_eq!(Selection::of(b"SCRAM-SHA-256-PLUS", end_point()), plus);
        for end_point in [None, end_point()] {
            let plus_offered = end_point.is_some();
            let bare = Selection::Bare { plus_offered };
            assert_eq!(Selection::of(b"SCRAM-SHA-256", end_point), Some(bare));
        }
    }
}
