//! Views of the messages that a server sends.

use std::hash::{BuildHasher as _, Hasher as _};

use bytes::BytesMut;
use foldhash::fast::FixedState;

use super::build;
use super::frame::{cstr, int16, int32};

/// Type bytes of backend messages.
pub mod tag {
    /// Authentication, all kinds.
    pub const AUTHENTICATION: u8 = b'R';
    /// BackendKeyData.
    pub const BACKEND_KEY_DATA: u8 = b'K';
    /// ParameterStatus.
    pub const PARAMETER_STATUS: u8 = b'S';
    /// ReadyForQuery.
    pub const READY_FOR_QUERY: u8 = b'Z';
    /// RowDescription.
    pub const ROW_DESCRIPTION: u8 = b'T';
    /// DataRow.
    pub const DATA_ROW: u8 = b'D';
    /// CommandComplete.
    pub const COMMAND_COMPLETE: u8 = b'C';
    /// ErrorResponse.
    pub const ERROR_RESPONSE: u8 = b'E';
    /// NoticeResponse.
    pub const NOTICE_RESPONSE: u8 = b'N';
    /// NotificationResponse.
    pub const NOTIFICATION_RESPONSE: u8 = b'A';
    /// ParseComplete.
    pub const PARSE_COMPLETE: u8 = b'1';
    /// BindComplete.
    pub const BIND_COMPLETE: u8 = b'2';
    /// CloseComplete.
    pub const CLOSE_COMPLETE: u8 = b'3';
    /// NoData.
    pub const NO_DATA: u8 = b'n';
    /// ParameterDescription.
    pub const PARAMETER_DESCRIPTION: u8 = b't';
    /// EmptyQueryResponse.
    pub const EMPTY_QUERY: u8 = b'I';
    /// PortalSuspended.
    pub const PORTAL_SUSPENDED: u8 = b's';
    /// CopyInResponse.
    pub const COPY_IN: u8 = b'G';
    /// CopyOutResponse.
    pub const COPY_OUT: u8 = b'H';
    /// CopyBothResponse.
    pub const COPY_BOTH: u8 = b'W';
    /// CopyData, from either side.
    pub const COPY_DATA: u8 = b'd';
    /// FunctionCallResponse.
    pub const FUNCTION_RESULT: u8 = b'V';
    /// NegotiateProtocolVersion.
    pub const NEGOTIATE_VERSION: u8 = b'v';
}

/// The transaction status in ReadyForQuery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// Not in a transaction block.
    #[default]
    Idle,
    /// In a transaction block.
    Transaction,
    /// In a failed transaction block.
    Failed,
}

impl Status {
    /// Reads the byte of ReadyForQuery.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'I' => Some(Self::Idle),
            b'T' => Some(Self::Transaction),
            b'E' => Some(Self::Failed),
            _ => None,
        }
    }

    /// The byte in ReadyForQuery.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::Transaction => b'T',
            Self::Failed => b'E',
        }
    }
}

/// The fields of an ErrorResponse or NoticeResponse.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    body: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Looks at the body of an ErrorResponse or NoticeResponse.
    #[must_use]
    pub const fn new(body: &'a [u8]) -> Self {
        Self { body }
    }

    /// Code and text of each field.
    pub fn iter(self) -> impl Iterator<Item = (u8, &'a [u8])> {
        let mut rest = self.body;
        std::iter::from_fn(move || {
            let (&code, behind) = rest.split_first()?;
            if code == 0 {
                return None;
            }
            let (text, behind) = cstr(behind)?;
            rest = behind;
            Some((code, text))
        })
    }

    /// The field of that code.
    #[must_use]
    pub fn get(self, code: u8) -> Option<&'a [u8]> {
        self.iter().find(|(c, _)| *c == code).map(|(_, text)| text)
    }

    /// The SQLSTATE; empty if the message has none.
    #[must_use]
    pub fn sqlstate(self) -> &'a [u8] {
        self.get(b'C').unwrap_or_default()
    }

    /// The primary message; empty if there is none.
    #[must_use]
    pub fn message(self) -> &'a [u8] {
        self.get(b'M').unwrap_or_default()
    }

    /// The same message as one after which the connection goes on.
    pub fn write_as_error(self, out: &mut BytesMut) {
        self.write_with(out, |code, text| if matches!(code, b'S' | b'V') { b"ERROR" } else { text });
    }

    fn write_with<'f>(self, out: &mut BytesMut, field: impl Fn(u8, &'f [u8]) -> &'f [u8])
    where
        Self: 'f,
    {
        build::message(out, tag::ERROR_RESPONSE, |b| {
            for (code, text) in self.iter() {
                b.extend_from_slice(&[code]);
                b.extend_from_slice(field(code, text));
                b.extend_from_slice(&[0]);
            }
            b.extend_from_slice(&[0]);
        });
    }

    /// The same message with another text.
    pub fn write_with_message(self, message: &[u8], out: &mut BytesMut) {
        self.write_with(out, |code, text| if code == b'M' { message } else { text });
    }

    /// Whether the server closes the connection after this (field `V`, never localized).
    #[must_use]
    pub fn is_fatal(self) -> bool {
        matches!(self.get(b'V'), Some(b"FATAL" | b"PANIC"))
    }
}

/// A number for what a RowDescription says of names and types, by which a client reads the rows; 0 for the body of
/// NoData. Tables and formats are left out: a table that was made anew gives the same rows.
#[must_use]
pub fn row_shape(body: &[u8]) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    let Some((_, mut rest)) = body.split_at_checked(2) else { return 0 };
    while let Some((name, behind)) = cstr(rest) {
        // Table (4), column (2), type (4), length (2), modifier (4), format (2).
        let (Some(kind), Some(next)) = (behind.get(6..16), behind.get(18..)) else { break };
        hasher.write(name);
        hasher.write(kind);
        rest = next;
    }
    hasher.finish().max(1)
}

/// The values of a DataRow that has as many; `None` if it has not.
#[must_use]
pub fn row<const N: usize>(body: &[u8]) -> Option<[Option<&[u8]>; N]> {
    let (count, mut rest) = int16(body)?;
    if usize::from(count) != N {
        return None;
    }
    let mut found = [None; N];
    for place in &mut found {
        let (len, behind) = int32(rest)?;
        rest = behind;
        // A length of -1 stands for null.
        if len != u32::MAX {
            let (value, behind) = rest.split_at_checked(usize::try_from(len).ok()?)?;
            (*place, rest) = (Some(value), behind);
        }
    }
    rest.is_empty().then_some(found)
}

/// Name and value of a ParameterStatus.
#[must_use]
pub fn parameter_status(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, rest) = cstr(body)?;
    let (value, rest) = cstr(rest)?;
    rest.is_empty().then_some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_are_found_by_their_code() {
        let fields = Fields::new(b"SFEHLER\0VERROR\0C25006\0Mno\0\0");
        assert_eq!(fields.sqlstate(), b"25006");
        assert_eq!(fields.message(), b"no");
        assert!(!fields.is_fatal());
        assert!(Fields::new(b"VFATAL\0\0").is_fatal());
        assert_eq!(Fields::new(b"C25").sqlstate(), b"");
    }

    proptest! {
        #[test]
        fn any_body_is_read_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..40)) {
            Fields::new(&body).iter().count();
            let _ = parameter_status(&body);
        }
    }
}
