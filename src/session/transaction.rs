//! Changes of settings that hold only once their transaction has committed.

use std::rc::Rc;

use super::settings::{Full, SettingsMap};

/// A change of one session's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A parameter is set by that statement.
    Set {
        /// Lower case.
        name: Rc<str>,
        /// The statement.
        sql: Rc<[u8]>,
        /// The value as written.
        value: Rc<[u8]>,
    },
    /// RESET of one parameter.
    Reset(Rc<str>),
    /// RESET ALL, or DISCARD ALL.
    ResetAll,
}

impl Change {
    /// Makes the change in `settings`; `base` holds what the connection started with.
    ///
    /// # Errors
    /// The map is full.
    pub fn apply(&self, settings: &mut SettingsMap, base: &SettingsMap) -> Result<(), Full> {
        match self {
            Self::Set { name, sql, value } => {
                Self::end_role(name, settings);
                settings.set(name, sql, value)
            }
            Self::Reset(name) => {
                Self::end_role(name, settings);
                settings.reset_to(name, base)
            }
            Self::ResetAll => {
                // RESET ALL leaves role and session authorization as they are (`GUC_NO_RESET_ALL`).
                let mut kept = base.clone();
                for name in ["role", "session_authorization"] {
                    kept.reset_to(name, settings)?;
                }
                *settings = kept;
                Ok(())
            }
        }
    }
}

impl Change {
    /// Whoever becomes another session user has no role (`SetSessionAuthorization` in miscinit.c).
    fn end_role(name: &str, settings: &mut SettingsMap) {
        if name == "session_authorization" {
            settings.reset("role");
        }
    }

    /// The parameter; `None` for all.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Set { name, .. } | Self::Reset(name) => Some(name),
            Self::ResetAll => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Change(Change),
    Savepoint(Rc<[u8]>),
}

/// The most changes and savepoints that one transaction may have before they are no longer followed.
pub const MAX_STEPS: usize = 4096;

/// The changes of the transaction that is under way. Boxed, for most sessions never make any.
#[derive(Clone, Debug, Default)]
pub struct Changes(Option<Box<Steps>>);

#[derive(Clone, Debug, Default)]
struct Steps {
    steps: Vec<Step>,
    overflow: bool,
}

impl Changes {
    /// Whether there is nothing to commit or to undo.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|made| made.steps.is_empty() && !made.overflow)
    }

    /// Whether any change has been made, that a commit would make permanent.
    #[must_use]
    pub fn any_change(&self) -> bool {
        let is_change = |step: &Step| matches!(step, Step::Change(_));
        self.0.as_ref().is_some_and(|made| made.overflow || made.steps.iter().any(is_change))
    }

    fn push(&mut self, step: Step) {
        let made = self.0.get_or_insert_default();
        if made.steps.len() < MAX_STEPS {
            made.steps.push(step);
        } else {
            made.overflow = true;
        }
    }

    /// A change was made.
    pub fn change(&mut self, change: Change) {
        self.push(Step::Change(change));
    }

    /// SAVEPOINT.
    pub fn savepoint(&mut self, name: Rc<[u8]>) {
        self.push(Step::Savepoint(name));
    }

    /// RELEASE: the savepoint and those after it are gone, their changes stay.
    pub fn release(&mut self, name: &[u8]) {
        if let Some((steps, at)) = self.find(name) {
            let tail = steps.split_off(at);
            steps.extend(tail.into_iter().filter(|s| matches!(s, Step::Change(_))));
        }
    }

    /// ROLLBACK TO: the changes since are undone, the savepoint stays.
    pub fn rollback_to(&mut self, name: &[u8]) {
        if let Some((steps, at)) = self.find(name) {
            steps.truncate(at + 1);
        }
    }

    /// The transaction is over without effect.
    pub fn rollback(&mut self) {
        if let Some(made) = &mut self.0 {
            made.steps.clear();
            made.overflow = false;
        }
    }

    /// The transaction has committed: makes the changes permanent.
    ///
    /// # Errors
    /// There were more changes than are followed, or the map is full: what is set is not known.
    pub fn commit(&mut self, settings: &mut SettingsMap, base: &SettingsMap) -> Result<(), Full> {
        let Some(made) = &mut self.0 else { return Ok(()) };
        let overflow = std::mem::take(&mut made.overflow);
        let mut result = if overflow { Err(Full) } else { Ok(()) };
        for step in made.steps.drain(..) {
            if let Step::Change(change) = step {
                result = result.and(change.apply(settings, base));
            }
        }
        result
    }

    /// All steps, and which of them is the last savepoint of that name.
    fn find(&mut self, name: &[u8]) -> Option<(&mut Vec<Step>, usize)> {
        let steps = &mut self.0.as_mut()?.steps;
        let is_it = |step: &Step| matches!(step, Step::Savepoint(n) if n.eq_ignore_ascii_case(name));
        let at = steps.iter().rposition(is_it)?;
        Some((steps, at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: &str) -> Change {
        Change::Set {
            name: name.into(),
            sql: format!("SET {name} TO {value}").into_bytes().into(),
            value: value.as_bytes().into(),
        }
    }

    #[test]
    fn a_commit_makes_permanent_what_no_savepoint_has_undone() {
        let (mut settings, base) = (SettingsMap::default(), SettingsMap::default());
        let mut changes = Changes::default();
        changes.change(set("a", "1"));
        changes.savepoint(b"s"[..].into());
        changes.change(set("a", "2"));
        changes.savepoint(b"t"[..].into());
        changes.change(set("b", "3"));
        changes.release(b"T");
        changes.rollback_to(b"s");
        changes.change(set("c", "4"));
        changes.commit(&mut settings, &base).unwrap();
        assert_eq!(settings.value("a"), Some(&b"1"[..]));
        assert_eq!(settings.value("b"), None);
        assert_eq!(settings.value("c"), Some(&b"4"[..]));
        assert!(changes.is_empty());
    }

    #[test]
    fn a_reset_goes_back_to_what_the_connection_started_with() {
        let mut base = SettingsMap::default();
        base.set_startup("geqo", b"off").unwrap();
        let mut settings = base.clone();
        set("geqo", "on").apply(&mut settings, &base).unwrap();
        set("role", "bob").apply(&mut settings, &base).unwrap();
        assert!(settings.is_on("geqo"));
        Change::ResetAll.apply(&mut settings, &base).unwrap();
        assert_eq!(settings.value("geqo"), Some(&b"off"[..]));
        assert_eq!(settings.value("role"), Some(&b"bob"[..]));
        Change::Reset("role".into()).apply(&mut settings, &base).unwrap();
        assert_eq!(settings, base);
    }

    #[test]
    fn what_is_not_followed_is_told() {
        let mut changes = Changes::default();
        for _ in 0..=MAX_STEPS {
            changes.change(set("a", "1"));
        }
        assert_eq!(changes.commit(&mut SettingsMap::default(), &SettingsMap::default()), Err(Full));
    }
}
