//! PostgreSQL's functions that leave something behind in the session or outside of the database.

use super::command::{Effects, Reason};

/// What a call leaves behind, and why it belongs on the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Special {
    pub(super) reason: Reason,
    pub(super) effects: Effects,
}

const fn special(reason: Reason, effects: Effects) -> Option<Special> {
    Some(Special { reason, effects })
}

/// What a function of this name leaves behind, by its folded name. Quick to say no.
#[inline]
pub(super) fn special_function(name: &[u8]) -> Option<Special> {
    match name.first()? {
        b'p' if name.starts_with(b"pg_") => backend(name),
        b'n' | b's' | b'c' | b'l' | b'd' => session(name),
        _ => None,
    }
}

fn session(name: &[u8]) -> Option<Special> {
    match name {
        b"nextval" | b"setval" | b"currval" | b"lastval" => special(Reason::Function, Effects::SEQUENCE),
        // The caller knows more: with literals alone it is a SET in disguise.
        b"set_config" => special(Reason::SessionState, Effects::UNKNOWN_SETTINGS),
        b"setseed" => special(Reason::SessionState, Effects::SEED),
        b"lo_export" | b"lo_import" => special(Reason::Function, Effects::EXTERNAL),
        _ if name.starts_with(b"dblink") => special(Reason::Function, Effects::EXTERNAL),
        _ => None,
    }
}

fn backend(name: &[u8]) -> Option<Special> {
    match name {
        b"pg_advisory_lock"
        | b"pg_advisory_lock_shared"
        | b"pg_try_advisory_lock"
        | b"pg_try_advisory_lock_shared" => special(Reason::Lock, Effects::ADVISORY_LOCK),
        b"pg_advisory_unlock" | b"pg_advisory_unlock_shared" | b"pg_advisory_unlock_all" => {
            special(Reason::Lock, Effects::RELEASES)
        }
        b"pg_advisory_xact_lock"
        | b"pg_advisory_xact_lock_shared"
        | b"pg_try_advisory_xact_lock"
        | b"pg_try_advisory_xact_lock_shared" => special(Reason::Lock, Effects::default()),
        _ if name.starts_with(b"pg_file_") => special(Reason::Function, Effects::EXTERNAL),
        _ => None,
    }
}

/// Whether `current_setting` of this literal (quotes included) answers the same on every server:
/// an application's own parameter, or one that the session carries along.
pub(super) fn same_everywhere(literal: &[u8]) -> bool {
    const CARRIED: &[&[u8]] = &[
        b"application_name",
        b"bytea_output",
        b"client_encoding",
        b"client_min_messages",
        b"datestyle",
        b"intervalstyle",
        b"lc_messages",
        b"lc_monetary",
        b"lc_numeric",
        b"lc_time",
        b"lock_timeout",
        b"role",
        b"search_path",
        b"server_encoding",
        b"server_version",
        b"server_version_num",
        b"statement_timeout",
        b"timezone",
    ];
    let [b'\'', name @ .., b'\''] = literal else {
        return false;
    };
    name.contains(&b'.') || CARRIED.iter().any(|carried| carried.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Catalog, Names};

    #[test]
    fn none_of_these_passes_at_a_glance_as_an_attribute() {
        let names =
            ["nextval", "setval", "currval", "lastval", "set_config", "setseed", "lo_export", "lo_import"];
        let prefixed = ["dblink_exec", "DBLINK", "pg_advisory_lock", "Pg_File_Write", "current_setting"];
        for name in names.iter().chain(&prefixed) {
            assert!(!Catalog::builtin().is_plain_attribute(name.as_bytes()), "{name}");
            assert!(!Catalog::builtin().is_plain_attribute(name.to_uppercase().as_bytes()), "{name}");
        }
        for name in names {
            assert!(special_function(name.as_bytes()).is_some(), "{name}");
        }
        assert!(Catalog::builtin().is_plain_attribute(b"customer_id"));
    }
}
