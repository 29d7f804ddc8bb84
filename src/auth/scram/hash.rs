//! Hashing a password, as a piece of work that can be carried elsewhere: it takes a millisecond with
//! PostgreSQL's default, and a server may ask for a quarter of a second. Others must not wait for that.

use std::fmt;

use super::key::{Iterations, ScramKeys};

/// A password to be hashed. May be sent to another thread.
pub struct HashJob {
    password: Vec<u8>,
    salt: Vec<u8>,
    iterations: Iterations,
}

/// A hashed password, for the login that asked for it and no other.
pub struct Hashed(pub(crate) ScramKeys);

impl HashJob {
    pub(crate) fn new(password: impl Into<Vec<u8>>, salt: &[u8], iterations: Iterations) -> Self {
        Self { password: password.into(), salt: salt.to_vec(), iterations }
    }

    /// Does the work: 1 to [`Iterations::MAX`] rounds of HMAC, and nothing else that takes time.
    #[must_use]
    pub fn run(self) -> Hashed {
        Hashed(ScramKeys::from_bytes(&self.password, &self.salt, self.iterations))
    }
}

impl fmt::Debug for HashJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HashJob({}, ..)", self.iterations.get())
    }
}

impl fmt::Debug for Hashed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hashed(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_can_be_sent_and_shows_nothing() {
        fn sendable<T: Send + 'static>(_: &T) {}
        let job = HashJob::new("hush", b"salt", Iterations::new(2).unwrap());
        sendable(&job);
        assert_eq!(format!("{job:?}"), "HashJob(2, ..)");
        let hashed = job.run();
        sendable(&hashed);
        assert_eq!(format!("{hashed:?}"), "Hashed(..)");
        assert_eq!(hashed.0, ScramKeys::from_password("hush", b"salt", Iterations::new(2).unwrap()));
    }
}
