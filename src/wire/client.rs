//! Views of the messages that a client sends.

use super::frame::{HEADER, cstr, int16, int32};

/// Type bytes of frontend messages.
pub mod tag {
    /// Query.
    pub const QUERY: u8 = b'Q';
    /// Parse.
    pub const PARSE: u8 = b'P';
    /// Bind.
    pub const BIND: u8 = b'B';
    /// Describe.
    pub const DESCRIBE: u8 = b'D';
    /// Execute.
    pub const EXECUTE: u8 = b'E';
    /// Close.
    pub const CLOSE: u8 = b'C';
    /// Sync.
    pub const SYNC: u8 = b'S';
    /// Flush.
    pub const FLUSH: u8 = b'H';
    /// FunctionCall.
    pub const FUNCTION_CALL: u8 = b'F';
    /// CopyData.
    pub const COPY_DATA: u8 = b'd';
    /// CopyDone.
    pub const COPY_DONE: u8 = b'c';
    /// CopyFail.
    pub const COPY_FAIL: u8 = b'f';
    /// Terminate.
    pub const TERMINATE: u8 = b'X';
    /// PasswordMessage and the SASL answers.
    pub const PASSWORD: u8 = b'p';
}

/// The text of a Query; `None` if its zero is missing or not the last byte.
#[must_use]
pub fn query(body: &[u8]) -> Option<&[u8]> {
    let (text, rest) = cstr(body)?;
    rest.is_empty().then_some(text)
}

/// A Parse message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parse<'a> {
    /// The statement's name; empty for the unnamed one.
    pub name: &'a [u8],
    /// The SQL text.
    pub text: &'a [u8],
    /// Count and oids of the parameter types, as they stand in the message.
    pub types: &'a [u8],
}

impl<'a> Parse<'a> {
    /// Reads the body of a Parse message.
    #[must_use]
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let (name, rest) = cstr(body)?;
        let (text, types) = cstr(rest)?;
        let (count, oids) = int16(types)?;
        (oids.len() == usize::from(count) * 4).then_some(Self { name, text, types })
    }
}

/// The head of a Bind message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind<'a> {
    /// The portal's name; empty for the unnamed one.
    pub portal: &'a [u8],
    /// The statement's name.
    pub statement: &'a [u8],
    /// Formats and values.
    pub rest: &'a [u8],
}

impl<'a> Bind<'a> {
    /// Reads the head of a Bind message.
    #[must_use]
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let (portal, rest) = cstr(body)?;
        let (statement, rest) = cstr(rest)?;
        Some(Self { portal, statement, rest })
    }

    /// The bytes of parameter number `number`, counted from 1, in whichever format; `Some(None)` for null, `None` if there
    /// is no such parameter.
    #[must_use]
    pub fn parameter(&self, number: u16) -> Option<Option<&'a [u8]>> {
        let (formats, rest) = int16(self.rest)?;
        let (count, mut rest) = int16(rest.get(2 * usize::from(formats)..)?)?;
        let mut found = None;
        for _ in 0..number.min(count) {
            let (len, behind) = int32(rest)?;
            // A length of -1 stands for null.
            let null = len == u32::MAX;
            let (value, behind) =
                behind.split_at_checked(if null { 0 } else { usize::try_from(len).ok()? })?;
            found = Some((!null).then_some(value));
            rest = behind;
        }
        found.filter(|_| (1..=count).contains(&number))
    }
}

/// What a Describe or a Close is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// A prepared statement.
    Statement(&'a [u8]),
    /// A portal.
    Portal(&'a [u8]),
}

/// Reads the body of a Describe or Close message.
#[must_use]
pub fn target(body: &[u8]) -> Option<Target<'_>> {
    let (kind, rest) = body.split_first()?;
    let (name, rest) = cstr(rest)?;
    match (kind, rest.is_empty()) {
        (b'S', true) => Some(Target::Statement(name)),
        (b'P', true) => Some(Target::Portal(name)),
        _ => None,
    }
}

/// The longest head of a Bind that is looked at: two names of up to this many bytes altogether.
pub const MAX_NAMES: usize = 8 * 1024;

/// Whether a message of that type is small by nature, so that one beyond `limit` is refused.
#[must_use]
pub const fn is_known(tag: u8) -> bool {
    matches!(
        tag,
        tag::QUERY
            | tag::PARSE
            | tag::BIND
            | tag::DESCRIBE
            | tag::EXECUTE
            | tag::CLOSE
            | tag::SYNC
            | tag::FLUSH
            | tag::FUNCTION_CALL
            | tag::COPY_DATA
            | tag::COPY_DONE
            | tag::COPY_FAIL
            | tag::TERMINATE
    )
}

/// Bytes of a Sync message.
pub const SYNC_MESSAGE: [u8; HEADER] = [tag::SYNC, 0, 0, 0, 4];

/// Bytes of a Terminate message.
pub const TERMINATE_MESSAGE: [u8; HEADER] = [tag::TERMINATE, 0, 0, 0, 4];

/// Bytes of a FunctionCall message for a function without arguments, to be answered in binary form. PostgreSQL neither parses
/// nor plans anything for it, and leaves the unnamed statement alone (manual, "Function Call"; `tcop/fastpath.c`).
#[must_use]
pub const fn function_call(oid: u32) -> [u8; 15] {
    let [a, b, c, d] = oid.to_be_bytes();
    // Its length; the function; no formats of arguments, no arguments, and the format of the result.
    [tag::FUNCTION_CALL, 0, 0, 0, 14, a, b, c, d, 0, 0, 0, 0, 0, 1]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn views_borrow_what_the_message_holds() {
        assert_eq!(query(b"select 1\0"), Some(&b"select 1"[..]));
        assert_eq!(query(b"select 1"), None);
        assert_eq!(query(b"a\0b\0"), None);
        assert_eq!(
            Parse::read(b"s\0select $1\0\0\x01\0\0\0\x17"),
            Some(Parse { name: b"s", text: b"select $1", types: b"\0\x01\0\0\0\x17" })
        );
        assert_eq!(Parse::read(b"s\0select $1\0\0\x02\0\0\0\x17"), None);
        assert_eq!(target(b"Sx\0"), Some(Target::Statement(b"x")));
        assert_eq!(target(b"Px\0"), Some(Target::Portal(b"x")));
        assert_eq!(target(b"Qx\0"), None);
    }

    proptest! {
        #[test]
        fn any_body_is_read_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = (query(&body), Parse::read(&body), Bind::read(&body), target(&body));
        }
    }
}
