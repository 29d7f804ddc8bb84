//! SET, RESET, SHOW and `set_config`: `VariableSetStmt` and its kin in gram.y. The verb has been
//! taken.

use super::command::{Command, Setting};
use super::cursor::Cursor;
use super::scan::Kind;
use super::transaction::modes;

/// SET in all its forms; `Other` for what is no run-time parameter (SET CONSTRAINTS) or not
/// understood.
pub(super) fn set<'a>(cursor: &mut Cursor<'a>) -> Command<'a> {
    if cursor.take_word("local") {
        return value(cursor, true);
    }
    let session = cursor.take_word("session");
    if session && cursor.take_word("characteristics") {
        cursor.take_word("as");
        cursor.take_word("transaction");
        return Command::SetCharacteristics(modes(cursor));
    }
    if session && cursor.at_word("authorization") {
        return special(cursor, b"session_authorization", false);
    }
    value(cursor, false)
}

/// What stands behind SET, SET SESSION or SET LOCAL.
fn value<'a>(cursor: &mut Cursor<'a>, local: bool) -> Command<'a> {
    let first = cursor.peek();
    let Some(word) = cursor.take_name() else {
        return Command::Other;
    };
    let is = |name: &str| first.kind == Kind::Word && word.eq_ignore_ascii_case(name.as_bytes());
    let next = cursor.peek().kind;
    let assigned = next == Kind::Dot
        || cursor.at_word("to")
        || (next == Kind::Operator && cursor.bytes(cursor.peek()) == b"=");
    if assigned {
        return assignment(cursor, first.start(), local);
    }
    if is("transaction") {
        return Command::SetTransaction(modes(cursor));
    }
    if is("session") && cursor.at_word("authorization") {
        return special(cursor, b"session_authorization", local);
    }
    if is("time") && cursor.at_word("zone") {
        return special(cursor, b"timezone", local);
    }
    if is("xml") && cursor.take_word("option") {
        return finish(cursor, b"xmloption", local);
    }
    if is("names") {
        return finish(cursor, b"client_encoding", local);
    }
    if is("schema") {
        return finish(cursor, b"search_path", local);
    }
    if is("role") {
        return finish(cursor, b"role", local);
    }
    Command::Other
}

/// A form whose second word is still to be taken.
fn special<'a>(cursor: &mut Cursor<'a>, name: &'a [u8], local: bool) -> Command<'a> {
    cursor.take();
    finish(cursor, name, local)
}

fn assignment<'a>(cursor: &mut Cursor<'a>, start: usize, local: bool) -> Command<'a> {
    let Some(name) = dotted(cursor, start) else {
        return Command::Other;
    };
    // TO or an equals sign.
    cursor.take();
    finish(cursor, name, local)
}

/// The rest of a name whose first part has been taken.
fn dotted<'a>(cursor: &mut Cursor<'a>, start: usize) -> Option<&'a [u8]> {
    while cursor.peek().kind == Kind::Dot {
        cursor.take();
        cursor.take_name()?;
    }
    Some(cursor.between(start, cursor.end()))
}

/// Takes the value. Without one, and for DEFAULT (or LOCAL, of the time zone), it is a RESET.
fn finish<'a>(cursor: &mut Cursor<'a>, name: &'a [u8], local: bool) -> Command<'a> {
    let value = cursor.take_rest();
    let default = value.is_empty()
        || value.eq_ignore_ascii_case(b"default")
        || (name == b"timezone" && value.eq_ignore_ascii_case(b"local"));
    if local {
        Command::SetLocal(Setting { name, value })
    } else if default {
        Command::Reset(Setting { name, value: b"" })
    } else {
        Command::Set(Setting { name, value })
    }
}

/// RESET.
pub(super) fn reset<'a>(cursor: &mut Cursor<'a>) -> Command<'a> {
    match parameter(cursor) {
        Some(b"all") => Command::ResetAll,
        Some(name) => Command::Reset(Setting { name, value: b"" }),
        None => Command::Other,
    }
}

/// SHOW.
pub(super) fn show<'a>(cursor: &mut Cursor<'a>) -> Command<'a> {
    parameter(cursor).map_or(Command::Other, |name| Command::Show(Setting { name, value: b"" }))
}

/// The name that RESET and SHOW take, their special forms under the parameter's own name.
fn parameter<'a>(cursor: &mut Cursor<'a>) -> Option<&'a [u8]> {
    let first = cursor.peek();
    let word = cursor.take_name()?;
    let is = |name: &str| first.kind == Kind::Word && word.eq_ignore_ascii_case(name.as_bytes());
    if is("all") {
        Some(b"all")
    } else if is("time") && cursor.take_word("zone") {
        Some(b"timezone")
    } else if is("session") && cursor.take_word("authorization") {
        Some(b"session_authorization")
    } else if is("transaction") && cursor.take_word("isolation") {
        cursor.take_word("level");
        Some(b"transaction_isolation")
    } else {
        dotted(cursor, first.start())
    }
}

/// Whether a statement is `SELECT [pg_catalog.]set_config('name', value, true|false)` and no more, where the value is a
/// literal or a parameter.
pub(super) fn set_config<'a>(text: &'a [u8], plain_strings: bool) -> Option<(Setting<'a>, bool)> {
    let mut cursor = Cursor::new(text, plain_strings);
    let cursor = &mut cursor;
    if !cursor.take_word("select") {
        return None;
    }
    if cursor.take_word("pg_catalog") {
        expect(cursor, Kind::Dot)?;
    }
    if !cursor.take_word("set_config") {
        return None;
    }
    let (name, value, local) = arguments(cursor)?;
    // By a cast, the parameter may be of another type, whose bytes are no text.
    if value.starts_with(b"$") && !value.iter().skip(1).all(u8::is_ascii_digit) {
        return None;
    }
    let whole = cursor.peek().kind == Kind::End;
    let simple = !name.is_empty()
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$'))
        && !value.contains(&b'\n');
    (whole && simple).then_some((Setting { name, value }, local))
}

/// Whether the call of `set_config` whose parenthesis comes next sets something for the transaction alone.
pub(super) fn is_local(mut cursor: Cursor<'_>) -> bool {
    arguments(&mut cursor).is_some_and(|(.., local)| local)
}

/// `('name', value, true|false)`, where the value is a literal or a parameter, perhaps with its type.
fn arguments<'a>(cursor: &mut Cursor<'a>) -> Option<(&'a [u8], &'a [u8], bool)> {
    expect(cursor, Kind::Open)?;
    let [b'\'', name @ .., b'\''] = expect(cursor, Kind::Literal)? else {
        return None;
    };
    expect(cursor, Kind::Comma)?;
    let value = match cursor.peek().kind {
        Kind::Param => {
            let start = cursor.peek().start();
            cursor.take();
            if cursor.peek().kind == Kind::Cast {
                cursor.take();
                cursor.take_name()?;
            }
            cursor.between(start, cursor.end())
        }
        _ => expect(cursor, Kind::Literal)?,
    };
    expect(cursor, Kind::Comma)?;
    let local = cursor.take_word("true");
    if !local && !cursor.take_word("false") {
        return None;
    }
    expect(cursor, Kind::Close)?;
    Some((name, value, local))
}

fn expect<'a>(cursor: &mut Cursor<'a>, kind: Kind) -> Option<&'a [u8]> {
    if cursor.peek().kind != kind {
        return None;
    }
    let token = cursor.take();
    Some(cursor.bytes(token))
}
