//! What servers take as proof of a role, for as long as somebody is in as that role.

use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use crate::auth::Credential;

/// The newest proof of each role that is in, whichever client has brought it: after a change of password the old proof
/// of those who came before makes no new connection any more, and the new one serves them as well.
#[derive(Default)]
pub struct Keyring(Mutex<HashMap<Holder, Key>>);

/// A role by its name and, where that is known, its oid: another role may have the name later.
type Holder = (Box<str>, Option<u32>);

struct Key {
    credential: Option<Credential>,
    clients: usize,
}

/// Somebody is in as a role. When the last one leaves, the proof is forgotten.
#[derive(Debug)]
pub struct Entered {
    keyring: Arc<Keyring>,
    holder: Holder,
}

impl Keyring {
    /// Somebody has come in as that role, and has left this proof.
    pub fn enter(
        self: &Arc<Self>,
        user: Rc<str>,
        role: Option<u32>,
        credential: Option<Credential>,
    ) -> Entered {
        let holder: Holder = ((*user).into(), role);
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = keys.entry(holder.clone()).or_insert(Key { credential: None, clients: 0 });
        key.clients += 1;
        if credential.is_some() {
            key.credential = credential;
        }
        drop(keys);
        Entered { keyring: self.clone(), holder }
    }

    /// The proof of a role.
    #[must_use]
    pub fn get(&self, user: &str, role: Option<u32>) -> Option<Credential> {
        let keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.get(&(user.into(), role)).and_then(|key| key.credential.clone())
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut keys = self.keyring.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = keys.get_mut(&self.holder) {
            key.clients -= 1;
            if key.clients == 0 {
                keys.remove(&self.holder);
            }
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
