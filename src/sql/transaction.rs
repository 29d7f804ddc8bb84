//! Transaction control: `TransactionStmt` in gram.y. The verb has been taken.

use super::command::{Command, Isolation, Modes};
use super::cursor::Cursor;
use super::scan::Kind;

/// BEGIN and START TRANSACTION.
pub(super) fn begin<'a>(cursor: &mut Cursor<'a>) -> Command<'a> {
    cursor.take_any(&["work", "transaction"]);
    Command::Begin(modes(cursor))
}

/// `transaction_mode_list`: the last word on each mode counts, as in PostgreSQL.
pub(super) fn modes(cursor: &mut Cursor<'_>) -> Modes {
    let mut modes = Modes::default();
    while !cursor.at_end() {
        if cursor.take_word("read") {
            if cursor.take_word("only") {
                modes.read_only = Some(true);
            } else if cursor.take_word("write") {
                modes.read_only = Some(false);
            } else {
                return Modes::default();
            }
        } else if cursor.take_word("isolation") {
            cursor.take_word("level");
            let Some(level) = isolation(cursor) else {
                return Modes::default();
            };
            modes.isolation = Some(level);
        } else if cursor.take_word("not") || cursor.take_word("deferrable") {
            // DEFERRABLE matters to SERIALIZABLE alone.
        } else if cursor.peek().kind == Kind::Comma {
            cursor.take();
        } else {
            // An error, or a word of a later version: promise nothing.
            return Modes::default();
        }
    }
    modes
}

fn isolation(cursor: &mut Cursor<'_>) -> Option<Isolation> {
    if cursor.take_word("serializable") {
        Some(Isolation::Serializable)
    } else if cursor.take_word("repeatable") {
        cursor.take_word("read").then_some(Isolation::RepeatableRead)
    } else if cursor.take_word("read") {
        cursor.take_any(&["committed", "uncommitted"]).then_some(Isolation::ReadCommitted)
    } else {
        None
    }
}

/// COMMIT and END.
pub(super) fn commit<'a>(cursor: &mut Cursor<'a>) -> Command<'a> {
    if cursor.take_word("prepared") {
        return Command::TwoPhase;
    }
    cursor.take_any(&["work", "transaction"]);
    Command::Commit { chain: chain(cursor) }
}

/// ROLLBACK and ABORT.
pub(super) fn rollback<'a>(cursor: &mut Cursor<'a>) -> Command<'a> {
    if cursor.take_word("prepared") {
        return Command::TwoPhase;
    }
    cursor.take_any(&["work", "transaction"]);
    if cursor.take_word("to") {
        return savepoint(cursor).map_or(Command::Other, Command::RollbackTo);
    }
    Command::Rollback { chain: chain(cursor) }
}

/// RELEASE.
pub(super) fn release<'a>(cursor: &mut Cursor<'a>) -> Command<'a> {
    savepoint(cursor).map_or(Command::Other, Command::Release)
}

/// A savepoint's name behind an optional SAVEPOINT, which may itself be the name.
fn savepoint<'a>(cursor: &mut Cursor<'a>) -> Option<&'a [u8]> {
    let named = cursor.at_word("savepoint");
    let first = cursor.take_name()?;
    if named && cursor.at_name() { cursor.take_name() } else { Some(first) }
}

fn chain(cursor: &mut Cursor<'_>) -> bool {
    cursor.take_word("and") && cursor.take_word("chain")
}
