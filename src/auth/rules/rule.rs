//! One rule: whom it fits, and what it asks of them.

use std::net::IpAddr;

use super::address::Addresses;
use super::denial::Denial;
use crate::auth::client_login::Method;
use crate::auth::ident::IdentMaps;

/// Somebody who wants in, as far as a startup packet and a socket tell.
#[derive(Clone, Copy, Debug)]
pub struct Applicant<'a> {
    /// Where from.
    pub address: IpAddr,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// The database.
    pub database: &'a str,
    /// The role.
    pub user: &'a str,
    /// A physical replication connection. One that names a database (`replication=database`) is
    /// none, and matched like any other.
    pub replication: bool,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The number of its line, from 1; 0 if no line says it.
    pub line: usize,
    /// The connections that it is for.
    pub transport: Transport,
    pub(super) databases: Vec<Database>,
    pub(super) users: Vec<Role>,
    pub(super) addresses: Addresses,
    /// What it asks.
    pub method: RuleMethod,
    /// Which certificate it asks for. [`RuleMethod::Cert`] always has [`ClientCert::VerifyFull`].
    pub client_cert: Option<ClientCert>,
    /// The identity map that turns a certificate's name into roles; with `cert` only.
    pub map: Option<Box<str>>,
}

/// Which connections a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// `host`: any.
    Any,
    /// `hostssl`: encrypted.
    Tls,
    /// `hostnossl`: not encrypted.
    Plain,
}

/// A rule's database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Database {
    All,
    /// The one that is called as the user.
    SameUser,
    /// None: physical replication, which no other word fits.
    Replication,
    Named(Box<str>),
}

/// A rule's user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    All,
    Named(Box<str>),
}

/// The METHOD of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleMethod {
    /// Nobody comes in.
    Reject,
    /// Everybody comes in.
    Trust,
    /// Who holds a client certificate with the user's name, or one that the identity map turns into it.
    Cert,
    /// `scram-sha-256`.
    Scram,
    /// `md5`: md5 for users of whom that is stored, SCRAM for all others.
    Md5,
    /// `password`: in clear. Only with [`Transport::Tls`].
    Password,
}

/// `clientcert`: a certificate besides what the method asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCert {
    /// One that the client CA has signed.
    VerifyCa,
    /// The same, with the user's name in it.
    VerifyFull,
}

impl RuleMethod {
    /// The login that it asks for; `None` for `reject`. A certificate is proven by TLS, so that `cert`
    /// leaves nothing to ask (PostgreSQL: "uaCert will be treated as if clientcert=verify-full (uaTrust)").
    #[must_use]
    pub const fn login(self) -> Option<Method> {
        match self {
            Self::Reject => None,
            Self::Trust | Self::Cert => Some(Method::Trust),
            Self::Scram => Some(Method::Scram),
            Self::Md5 => Some(Method::Md5),
            Self::Password => Some(Method::Password),
        }
    }
}

impl Rule {
    /// What holds where nobody has written rules.
    pub(super) fn scram_for_all() -> Self {
        Self {
            line: 0,
            transport: Transport::Any,
            databases: vec![Database::All, Database::Replication],
            users: vec![Role::All],
            addresses: Addresses::All,
            method: RuleMethod::Scram,
            client_cert: None,
            map: None,
        }
    }

    /// Whether the rule is for this applicant.
    #[must_use]
    pub fn fits(&self, applicant: &Applicant<'_>) -> bool {
        let transport = match self.transport {
            Transport::Any => true,
            Transport::Tls => applicant.tls,
            Transport::Plain => !applicant.tls,
        };
        transport
            && self.addresses.hold(applicant.address)
            && self.databases.iter().any(|database| database.fits(applicant))
            && self.users.iter().any(|user| user.fits(applicant))
    }

    /// To be asked before the login: is there the certificate that the rule wants? `present` means one
    /// that TLS has verified against the client CA.
    ///
    /// # Errors
    /// There is none.
    pub const fn before_login(&self, present: bool) -> Result<(), Denial> {
        match self.client_cert {
            Some(_) if !present => Err(Denial::NoCertificate),
            _ => Ok(()),
        }
    }

    /// To be asked when the login has succeeded, and before the client hears of it: is it the user's own
    /// certificate? `name` is its common name (PostgreSQL: `CheckCertAuth`).
    ///
    /// # Errors
    /// It is somebody else's.
    pub fn after_login(&self, maps: &IdentMaps, name: Option<&str>, user: &str) -> Result<(), Denial> {
        match self.client_cert {
            Some(ClientCert::VerifyFull)
                if !name.is_some_and(|name| maps.allows(self.map.as_deref(), name, user)) =>
            {
                Err(Denial::Certificate(self.method))
            }
            _ => Ok(()),
        }
    }
}

impl Database {
    /// PostgreSQL: `check_db`.
    fn fits(&self, applicant: &Applicant<'_>) -> bool {
        match self {
            Self::Replication => applicant.replication,
            _ if applicant.replication => false,
            Self::All => true,
            Self::SameUser => applicant.database == applicant.user,
            Self::Named(name) => **name == *applicant.database,
        }
    }
}

impl Role {
    /// PostgreSQL: `check_role`.
    fn fits(&self, applicant: &Applicant<'_>) -> bool {
        match self {
            Self::All => true,
            Self::Named(name) => **name == *applicant.user,
        }
    }
}
