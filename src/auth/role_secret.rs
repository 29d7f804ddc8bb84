//! What the database knows about a role, as far as a login needs it.

use std::fmt;
use std::time::Duration;

/// A stored password may be so long, in bytes. PostgreSQL's own limit is 512.
pub const MAX_PASSWORD: usize = 1024;

/// A role as the database has it.
#[derive(Clone, PartialEq, Eq)]
pub struct RoleSecret {
    /// `pg_authid.rolpassword`: a SCRAM verifier or an md5 hash; `None` if the role has no password.
    pub password: Option<Box<str>>,
    /// Whether it may log in at all.
    pub can_login: bool,
    /// When the password ends, since the process started; `None` for never.
    pub expires: Option<Duration>,
    /// The role's oid, if that was told: a renamed role keeps it, and another one of its name does not have it.
    pub oid: Option<u32>,
}

impl RoleSecret {
    /// Of a row that was asked for at `asked`. `seconds_left` is the time until `VALID UNTIL` as the database's clock
    /// has it; `None` for never. An empty password is none.
    #[must_use]
    pub fn new(password: Option<&str>, can_login: bool, seconds_left: Option<f64>, asked: Duration) -> Self {
        Self {
            password: password.filter(|p| !p.is_empty()).map(Into::into),
            can_login,
            expires: seconds_left.and_then(|left| expiry(left, asked)),
            oid: None,
        }
    }

    /// The same, of the role with that oid.
    #[must_use]
    pub fn of(self, oid: Option<u32>) -> Self {
        Self { oid, ..self }
    }

    /// The password, unless it has expired.
    #[must_use]
    pub fn usable_password(&self, now: Duration) -> Option<&str> {
        self.password.as_deref().filter(|_| self.expires.is_none_or(|end| now < end))
    }
}

/// The end of `left` seconds; `None` if that is beyond all times.
fn expiry(left: f64, asked: Duration) -> Option<Duration> {
    // What is no number at all has ended: nobody may log in by a mistake in a query.
    if left.is_nan() || left <= 0.0 {
        return Some(Duration::ZERO);
    }
    Duration::try_from_secs_f64(left).ok().and_then(|left| asked.checked_add(left))
}

impl fmt::Debug for RoleSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RoleSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Duration = Duration::from_secs(100);

    fn usable(left: Option<f64>, now: u64) -> bool {
        let secret = RoleSecret::new(Some("SCRAM-SHA-256$hush"), true, left, ASKED);
        secret.usable_password(Duration::from_secs(now)).is_some()
    }

    #[test]
    fn a_password_ends_when_the_database_says() {
        assert!(usable(Some(5.0), 104) && !usable(Some(5.0), 105) && !usable(Some(5.0), 1_000_000));
        for never in [None, Some(f64::INFINITY), Some(1e300)] {
            assert!(usable(never, u64::MAX));
        }
        for over in [0.0, -0.0, -1.0, f64::NEG_INFINITY, f64::NAN] {
            assert!(!usable(Some(over), 100) && !usable(Some(over), 0));
        }
    }

    #[test]
    fn an_empty_password_is_none_and_nothing_secret_shows() {
        assert_eq!(RoleSecret::new(Some(""), true, None, ASKED).usable_password(ASKED), None);
        assert_eq!(RoleSecret::new(None, true, None, ASKED).usable_password(ASKED), None);
        let secret = RoleSecret::new(Some("hush"), true, None, ASKED);
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "RoleSecret(..) Some(RoleSecret(..))");
    }
}
