//! The server's side: a client proves to us that it knows the password of a verifier.

use std::fmt;

use super::binding::{Binding, EndPoint, Selection};
use super::key::{ClientKey, Iterations, SALT_LEN, Verifier, mac};
use super::message::{
    ClientFinal, ClientFirst, MAX_FROM_CLIENT, Nonce, ScramError, ServerFirst, write_server_final,
};
use super::{MECHANISM, MECHANISM_PLUS};

/// Bytes that make the salts of users who do not exist: random once per process.
#[derive(Clone)]
pub struct MockSecret([u8; 32]);

impl MockSecret {
    /// Takes random bytes.
    #[must_use]
    pub const fn new(random: [u8; 32]) -> Self {
        Self(random)
    }

    /// The verifier that an unknown user seems to have; no password fits it.
    #[must_use]
    pub(crate) fn verifier(&self, user: &str) -> Verifier {
        Verifier::hollow(&self.salt(user), Iterations::default())
    }

    /// The same for a name each time, or its absence would show (PostgreSQL: `scram_mock_salt`).
    pub(in crate::auth) fn salt(&self, user: &str) -> [u8; SALT_LEN] {
        let hash = mac(&self.0, &[user.as_bytes()]);
        std::array::from_fn(|i| hash[i])
    }
}

impl fmt::Debug for MockSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MockSecret(..)")
    }
}

/// Whom the client claims to be.
#[derive(Clone, Debug)]
enum Claim {
    /// A user with this verifier.
    Known(Verifier),
    /// Nobody: goes through the motions and fails.
    Unknown(Verifier),
}

impl Claim {
    const fn verifier(&self) -> &Verifier {
        match self {
            Self::Known(verifier) | Self::Unknown(verifier) => verifier,
        }
    }
}

/// An exchange that waits for the name of a mechanism.
#[derive(Clone, Debug)]
pub struct ServerExchange {
    claim: Claim,
    nonce: Nonce,
    /// With one we offer SCRAM-SHA-256-PLUS too.
    end_point: Option<EndPoint>,
}

/// An exchange that waits for the client's first message.
#[derive(Clone, Debug)]
pub struct AwaitClientFirst {
    claim: Claim,
    nonce: Nonce,
    selection: Selection,
}

/// An exchange that waits for the client's proof.
#[derive(Clone, Debug)]
pub struct AwaitProof {
    claim: Claim,
    binding: Binding,
    /// Both nonces, the client's first.
    nonce: String,
    client_first_bare: Vec<u8>,
    server_first: Vec<u8>,
}

impl ServerExchange {
    /// An exchange about a user that exists. `end_point` is our own certificate's, if the client is
    /// connected by TLS.
    #[must_use]
    pub fn new(verifier: &Verifier, nonce: Nonce, end_point: Option<EndPoint>) -> Self {
        Self { claim: Claim::Known(verifier.clone()), nonce, end_point }
    }

    /// An exchange about a user that does not: looks the same, and always fails.
    #[must_use]
    pub fn mock(secret: &MockSecret, user: &str, nonce: Nonce, end_point: Option<EndPoint>) -> Self {
        Self { claim: Claim::Unknown(secret.verifier(user)), nonce, end_point }
    }

    /// The mechanisms that we offer, the best first (`scram_get_mechanisms`).
    #[must_use]
    pub const fn mechanisms(&self) -> &'static [&'static str] {
        match self.end_point {
            Some(_) => &[MECHANISM_PLUS, MECHANISM],
            None => &[MECHANISM],
        }
    }

    /// Takes the mechanism that the client has selected; `None` if it is none of ours.
    #[must_use]
    pub fn select(self, mechanism: &[u8]) -> Option<AwaitClientFirst> {
        let selection = Selection::of(mechanism, self.end_point)?;
        Some(AwaitClientFirst { claim: self.claim, nonce: self.nonce, selection })
    }
}

impl AwaitClientFirst {
    /// Takes the client's first message, and gives ours.
    ///
    /// # Errors
    /// The message is too long, malformed, or asks for what we cannot do.
    pub fn client_first(self, message: &[u8]) -> Result<(Vec<u8>, AwaitProof), ScramError> {
        within_limit(message)?;
        let first = ClientFirst::read(message, &self.selection)?;
        let nonce = format!("{}{}", first.nonce, self.nonce.as_str());
        let verifier = self.claim.verifier();
        let server_first = ServerFirst::write(&nonce, &verifier.salt, verifier.iterations);
        let next = AwaitProof {
            binding: first.binding,
            nonce,
            client_first_bare: first.bare.to_vec(),
            server_first: server_first.clone(),
            claim: self.claim,
        };
        Ok((server_first, next))
    }
}

impl AwaitProof {
    /// Takes the client's last message. If the proof is right, gives our last message and the
    /// client's key, which logs in wherever the same verifier is stored.
    ///
    /// # Errors
    /// [`ScramError::Proof`] if the proof is wrong or the user unknown; others if the message is
    /// too long, malformed or of another exchange.
    pub fn client_final(self, message: &[u8]) -> Result<(Vec<u8>, ClientKey), ScramError> {
        within_limit(message)?;
        let last = ClientFinal::read(message, &self.binding)?;
        if last.nonce != self.nonce.as_bytes() {
            return Err(ScramError::Nonce);
        }
        let auth_message: [&[u8]; 5] =
            [&self.client_first_bare, b",", &self.server_first, b",", last.without_proof];
        // The work comes before the question whether there is such a user: time must not tell.
        let verifier = self.claim.verifier();
        let key = verifier.stored_key.recover(&auth_message, &last.proof);
        let signature = verifier.server_key.signature(&auth_message);
        match (&self.claim, key) {
            (Claim::Known(_), Some(key)) => Ok((write_server_final(&signature.0), key)),
            _ => Err(ScramError::Proof),
        }
    }
}

fn within_limit(message: &[u8]) -> Result<(), ScramError> {
    if message.len() > MAX_FROM_CLIENT {
        return Err(ScramError::Malformed("The message is too long."));
    }
    Ok(())
}
