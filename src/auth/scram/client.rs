//! The client's side: we prove to a node that we know a user's password.

use std::fmt;

use super::binding::Binding;
use super::hash::{HashJob, Hashed};
use super::key::{ScramKeys, Secret};
use super::message::{ClientFinal, MAX_FROM_SERVER, Nonce, ScramError, ServerFirst, read_server_final};

/// What the proof is made of.
#[derive(Clone)]
pub enum Knowledge {
    /// The clear password, which has to be hashed with the server's salt.
    Password(String),
    /// The keys that would come of it.
    Keys(ScramKeys),
}

/// An exchange that waits for the server's first message.
#[derive(Clone, Debug)]
pub struct AwaitServerFirst {
    knowledge: Knowledge,
    nonce: Nonce,
    binding: Binding,
    client_first_bare: Vec<u8>,
}

/// What the server's first message leads to.
#[derive(Debug)]
pub enum Answer {
    /// Our last message.
    Final(Vec<u8>, AwaitServerFinal),
    /// Do this first.
    Hash(HashJob, AwaitHashed),
}

/// An exchange that waits for the hashed password.
#[derive(Clone, Debug)]
pub struct AwaitHashed {
    client_first_bare: Vec<u8>,
    server_first: Vec<u8>,
    without_proof: Vec<u8>,
}

/// An exchange that waits for the server's signature.
#[derive(Clone, Debug)]
pub struct AwaitServerFinal {
    signature: Secret,
}

/// Starts an exchange, and gives our first message, for [`Binding::mechanism`]. The user name in it is
/// empty, as libpq's: the server goes by the startup packet.
#[must_use]
pub fn start(knowledge: Knowledge, nonce: Nonce, binding: Binding) -> (Vec<u8>, AwaitServerFirst) {
    start_as("", knowledge, nonce, binding)
}

/// The same with a user name.
pub(super) fn start_as(
    user: &str,
    knowledge: Knowledge,
    nonce: Nonce,
    binding: Binding,
) -> (Vec<u8>, AwaitServerFirst) {
    let client_first_bare = format!("n={user},r={}", nonce.as_str()).into_bytes();
    let message = [binding.header(), &client_first_bare].concat();
    let next = AwaitServerFirst { knowledge, nonce, binding, client_first_bare };
    (message, next)
}

impl AwaitServerFirst {
    /// Takes the server's first message, which leads to our last one. With a clear password there is
    /// hashing to do first, as often as the server says.
    ///
    /// # Errors
    /// The message is too long, malformed or of another exchange, or asks for too much work.
    pub fn server_first(self, message: &[u8]) -> Result<Answer, ScramError> {
        within_limit(message)?;
        let first = ServerFirst::read(message)?;
        if !first.nonce.starts_with(self.nonce.as_str()) {
            return Err(ScramError::Nonce);
        }
        let next = AwaitHashed {
            client_first_bare: self.client_first_bare,
            server_first: message.to_vec(),
            without_proof: ClientFinal::write_without_proof(first.nonce, &self.binding),
        };
        Ok(match self.knowledge {
            Knowledge::Password(password) => {
                Answer::Hash(HashJob::new(password, &first.salt, first.iterations), next)
            }
            Knowledge::Keys(keys) => {
                let (message, next) = next.prove(&keys);
                Answer::Final(message, next)
            }
        })
    }
}

impl AwaitHashed {
    /// Takes the hashed password, and gives our last message.
    #[must_use]
    pub fn hashed(self, hashed: &Hashed) -> (Vec<u8>, AwaitServerFinal) {
        self.prove(&hashed.0)
    }

    fn prove(self, keys: &ScramKeys) -> (Vec<u8>, AwaitServerFinal) {
        let auth_message: [&[u8]; 5] =
            [&self.client_first_bare, b",", &self.server_first, b",", &self.without_proof];
        let proof = keys.client_key.proof(&auth_message);
        let next = AwaitServerFinal { signature: keys.server_key.signature(&auth_message) };
        (ClientFinal::write(&self.without_proof, &proof), next)
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

impl fmt::Debug for Knowledge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Password(..)",
            Self::Keys(_) => "Keys(..)",
        })
    }
}
