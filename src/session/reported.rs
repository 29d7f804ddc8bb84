//! Parameters that servers report: what a function has set shows here, and nowhere else.

use super::transaction::Change;

/// Those that a session can set and that every version reports ("Asynchronous Operations" in the manual's chapter on
/// the protocol), in lower case; `search_path` since PostgreSQL 18.
const FOLLOWED: [&str; 8] = [
    "application_name",
    "client_encoding",
    "datestyle",
    "default_transaction_read_only",
    "intervalstyle",
    "search_path",
    "standard_conforming_strings",
    "timezone",
];

/// What was reported in the transaction under way, and what its statements are known to have set themselves. Boxed, for
/// most sessions never hear of any.
#[derive(Debug, Default)]
pub struct Reported(Option<Box<Heard>>);

#[derive(Debug, Default)]
struct Heard {
    values: Vec<(&'static str, Box<[u8]>)>,
    /// Those of [`FOLLOWED`] that the client's own statements concern.
    noted: [bool; FOLLOWED.len()],
}

impl Reported {
    /// A ParameterStatus came.
    pub fn report(&mut self, name: &[u8], value: &[u8]) {
        let Some(name) = FOLLOWED.iter().find(|known| name.eq_ignore_ascii_case(known.as_bytes())) else {
            return;
        };
        let values = &mut self.0.get_or_insert_default().values;
        match values.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value.into(),
            None => values.push((name, value.into())),
        }
    }

    /// A statement of the client's own makes that change: it is followed by what the statement says.
    pub fn note(&mut self, change: &Change) {
        let Some(name) = change.name() else { return self.note_all() };
        for (noted, known) in self.0.get_or_insert_default().noted.iter_mut().zip(FOLLOWED) {
            *noted |= *known == *name;
        }
    }

    /// All parameters are what they were at the start.
    pub fn note_all(&mut self) {
        self.0.get_or_insert_default().noted.fill(true);
    }

    /// Whether there is nothing to take.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|heard| heard.values.is_empty() && !heard.noted.contains(&true))
    }

    /// The transaction is over: what something else than the client's own statements has set, be it for good or back
    /// to what it was.
    pub fn take(&mut self) -> Vec<(&'static str, Box<[u8]>)> {
        let Some(heard) = &mut self.0 else { return Vec::new() };
        let Heard { mut values, noted } = std::mem::take(&mut **heard);
        values.retain(|(name, _)| !noted.iter().zip(FOLLOWED).any(|(noted, known)| *noted && known == *name));
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_statement_accounts_for_is_followed() {
        let mut reported = Reported::default();
        reported.report(b"TimeZone", b"UTC");
        reported.report(b"DateStyle", b"SQL, DMY");
        reported.report(b"TimeZone", b"CET");
        reported.report(b"is_superuser", b"off");
        reported.note(&Change::Reset("datestyle".into()));
        assert_eq!(reported.take(), [("timezone", b"CET"[..].into())]);
        assert!(reported.is_empty());
        reported.report(b"application_name", b"x");
        reported.note_all();
        assert_eq!(reported.take(), []);
        assert!(reported.is_empty());
    }

    #[test]
    fn of_parameters_that_are_not_followed_nothing_is_kept() {
        let mut reported = Reported::default();
        for _ in 0..1000 {
            reported.note(&Change::Reset("work_mem".into()));
        }
        assert!(reported.is_empty());
    }
}
