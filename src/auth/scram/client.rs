//! The client's side: we prove to a node that we know a user's password.

use super::key::{ScramKeys, Secret};
use super::message::{ClientFinal, MAX_FROM_SERVER, Nonce, ScramError, ServerFirst, read_server_final};
use crate::auth::Credential;

/// An exchange that waits for the server's first message.
#[derive(Clone, Debug)]
pub struct AwaitServerFirst {
    credential: Credential,
    nonce: Nonce,
    client_first_bare: Vec<u8>,
}

/// An exchange that waits for the server's signature.
#[derive(Clone, Debug)]
pub struct AwaitServerFinal {
    signature: Secret,
}

/// Starts an exchange, and gives our first message. The user name in it is empty, as libpq's:
/// the server goes by the startup packet.
#[must_use]
pub fn start(credential: Credential, nonce: Nonce) -> (Vec<u8>, AwaitServerFirst) {
    start_as("", credential, nonce)
}

/// The same with a user name.
pub(super) fn start_as(user: &str, credential: Credential, nonce: Nonce) -> (Vec<u8>, AwaitServerFirst) {
    let client_first_bare = format!("n={user},r={}", nonce.as_str()).into_bytes();
    let message = [b"n,,", client_first_bare.as_slice()].concat();
    let next = AwaitServerFirst { credential, nonce, client_first_bare };
    (message, next)
}

impl AwaitServerFirst {
    /// Takes the server's first message, and gives our last one. With a clear password this
    /// hashes as often as the server says: a millisecond for PostgreSQL's default, a
    /// quarter of a second at worst.
    ///
    /// # Errors
    /// The message is too long, malformed or of another exchange, or asks for too much work.
    pub fn server_first(self, message: &[u8]) -> Result<(Vec<u8>, AwaitServerFinal), ScramError> {
        within_limit(message)?;
        let first = ServerFirst::read(message)?;
        if !first.nonce.starts_with(self.nonce.as_str()) {
            return Err(ScramError::Nonce);
        }
        let keys = match self.credential {
            Credential::Password(password) => {
                ScramKeys::from_password(&password, &first.salt, first.iterations)
            }
            Credential::ScramKeys(keys) => keys,
        };
        let without_proof = ClientFinal::write_without_proof(first.nonce);
        let auth_message: [&[u8]; 5] = [&self.client_first_bare, b",", message, b",", &without_proof];
        let proof = keys.client_key.proof(&auth_message);
        let next = AwaitServerFinal { signature: keys.server_key.signature(&auth_message) };
        Ok((ClientFinal::write(&without_proof, &proof), next))
    }
}

impl AwaitServerFinal {
    /// Takes the server's last message: the server is who it says if this is `Ok`.
    ///
    /// # Errors
    /// The message is too long or malformed, is an error, or its signature is wrong.
    pub fn server_final(self, message: &[u8]) -> Result<(), ScramError> {
        within_limit(message)?;
        if Secret(read_server_final(message)?) == self.signature {
            Ok(())
        } else {
            Err(ScramError::Signature)
        }
    }
}

fn within_limit(message: &[u8]) -> Result<(), ScramError> {
    if message.len() > MAX_FROM_SERVER {
        return Err(ScramError::Malformed("the message is too long"));
    }
    Ok(())
}
