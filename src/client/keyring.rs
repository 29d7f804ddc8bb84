//! What servers take as proof of a role, for as long as somebody is in as that role.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;

use crate::auth::Credential;

/// The newest proof of each role that is in, whichever client has brought it: after a change of password the old proof
/// of those who came before makes no new connection any more, and the new one serves them as well.
#[derive(Default)]
pub struct Keyring(Mutex<Keys>);

/// By name; more than one where another role has got a name while somebody is in as the role that had it before.
type Keys = HashMap<Box<str>, Vec<Key>, RandomState>;

struct Key {
    /// The role's oid, where that is known.
    role: Option<u32>,
    credential: Option<Credential>,
    clients: usize,
}

/// Somebody is in as a role. When the last one leaves, the proof is forgotten.
#[derive(Debug)]
pub struct Entered {
    keyring: Arc<Keyring>,
    user: Arc<str>,
    role: Option<u32>,
}

impl Keyring {
    /// Somebody has come in as that role, and has left this proof.
    pub fn enter(
        self: &Arc<Self>,
        user: Arc<str>,
        role: Option<u32>,
        credential: Option<Credential>,
    ) -> Entered {
        let mut keys = self.keys();
        let namesakes = match keys.get_mut(&*user) {
            Some(namesakes) => namesakes,
            None => keys.entry((*user).into()).or_default(),
        };
        match namesakes.iter_mut().find(|key| key.role == role) {
            Some(key) => {
                key.clients += 1;
                if credential.is_some() {
                    key.credential = credential;
                }
            }
            None => namesakes.push(Key { role, credential, clients: 1 }),
        }
        drop(keys);
        Entered { keyring: self.clone(), user, role }
    }

    /// The proof of a role.
    #[must_use]
    pub fn get(&self, user: &str, role: Option<u32>) -> Option<Credential> {
        self.keys().get(user)?.iter().find(|key| key.role == role)?.credential.clone()
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut keys = self.keyring.keys();
        let Some(namesakes) = keys.get_mut(&*self.user) else { return };
        if let Some(at) = namesakes.iter().position(|key| key.role == self.role)
            && let Some(key) = namesakes.get_mut(at)
        {
            key.clients -= 1;
            if key.clients == 0 {
                namesakes.swap_remove(at);
            }
        }
        if namesakes.is_empty() {
            keys.remove(&*self.user);
        }
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyring(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_proof_counts_and_none_stays_behind() {
        let keyring = Arc::new(Keyring::default());
        let password = |text: &str| Some(Credential::Password(text.to_owned()));
        let first = keyring.enter("anna".into(), Some(7), password("old"));
        let second = keyring.enter("anna".into(), Some(7), password("new"));
        let third = keyring.enter("anna".into(), Some(7), None);
        assert_eq!(keyring.get("anna", Some(7)), password("new"));
        assert_eq!(keyring.get("anna", Some(8)), None);
        drop((first, second));
        assert_eq!(keyring.get("anna", Some(7)), password("new"));
        drop(third);
        assert_eq!(keyring.get("anna", Some(7)), None);
        assert!(keyring.0.lock().unwrap().is_empty());
    }
}
