//! Which errors of a replica mean that a read should run elsewhere.

use crate::wire::server::Fields;
use crate::wire::sqlstate;

/// What a replica's refusal of a read tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The statement is one for the primary: run it there, and remember it.
    NotARead,
    /// The replica could not finish it (a recovery conflict, a shutdown): another node can.
    Conflict,
    /// It has not replayed what the read must show: so it said, asked in front of the read.
    NotThereYet,
}

/// Judges an error that a replica answered to a unit which was taken for a read, before the client
/// has seen any of the answer. `None`: it is the client's own error.
///
/// The SQLSTATEs are those that real standbys gave; see `errdetail_recovery_conflict` in PostgreSQL's
/// `tcop/postgres.c` and `PreventCommandDuringRecovery` in `tcop/utility.c`.
#[must_use]
pub fn refusal(error: Fields<'_>) -> Option<Refusal> {
    let message = error.message();
    let mentions = |word: &str| memchr::memmem::find(message, word.as_bytes()).is_some();
    match error.sqlstate() {
        b"25006" => Some(Refusal::NotARead),
        // Texts are matched where the code alone is not enough. In another language than English the
        // error reaches the client: never wrong, only not healed.
        b"0A000" if mentions("recovery") || mentions("hot standby") || mentions("serializable") => {
            Some(Refusal::NotARead)
        }
        b"0A000" if mentions("cannot access temporary or unlogged relations") => Some(Refusal::NotARead),
        b"55000" if mentions("recovery") || mentions("is not yet defined in this session") => {
            Some(Refusal::NotARead)
        }
        b"XX000" if mentions("recovery") => Some(Refusal::NotARead),
        b"40001" if mentions("conflict with recovery") => Some(Refusal::Conflict),
        b"57P01" | b"57P02" | b"57P03" | b"57P04" => Some(Refusal::Conflict),
        _ => None,
    }
}

/// Whether a fatal error tells of the server's end rather than of the client's: a session that holds nothing there can
/// go on elsewhere. After the others, as a timeout of idle sessions, PostgreSQL means the client to be gone.
#[must_use]
pub fn is_servers_end(error: Fields<'_>) -> bool {
    let state = error.sqlstate();
    let of_protocol = state == sqlstate::PROTOCOL_VIOLATION.as_bytes();
    matches!(state, b"57P01" | b"57P02" | b"57P03" | b"57P04")
        || (!of_protocol && [&b"08"[..], b"53", b"58", b"XX"].iter().any(|class| state.starts_with(class)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_standby_says_of_itself_is_healed() {
        let judge = |code: &str, message: &str| {
            refusal(Fields::new(format!("VERROR\0C{code}\0M{message}\0\0").as_bytes()))
        };
        assert_eq!(
            judge("25006", "cannot execute INSERT in a read-only transaction"),
            Some(Refusal::NotARead)
        );
        assert_eq!(
            judge("0A000", "cannot access temporary or unlogged relations during recovery"),
            Some(Refusal::NotARead)
        );
        assert_eq!(judge("0A000", "cannot use serializable mode in a hot standby"), Some(Refusal::NotARead));
        assert_eq!(judge("55000", "recovery is in progress"), Some(Refusal::NotARead));
        assert_eq!(
            judge("40001", "canceling statement due to conflict with recovery"),
            Some(Refusal::Conflict)
        );
        assert_eq!(
            judge("57P01", "terminating connection due to administrator command"),
            Some(Refusal::Conflict)
        );
        assert_eq!(judge("40001", "could not serialize access due to concurrent update"), None);
        assert_eq!(judge("0A000", "FOR UPDATE is not allowed with DISTINCT clause"), None);
        assert_eq!(judge("57014", "canceling statement due to user request"), None);
        assert_eq!(judge("42P01", "relation \"x\" does not exist"), None);
    }
}
