//! Messages that we originate, for either side.

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};

use super::client;
use super::server::{Status, tag};
use super::sqlstate;

/// Writes a message: the tag, a length, and what `body` appends.
pub fn message(out: &mut BytesMut, tag: u8, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(tag);
    let at = out.len();
    out.put_u32(0);
    body(out);
    fix_length(out, at);
}

fn fix_length(out: &mut BytesMut, at: usize) {
    let len = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&len.to_be_bytes());
    }
}

fn put_cstr(out: &mut BytesMut, text: &[u8]) {
    out.put_slice(text);
    out.put_u8(0);
}

/// StartupMessage of protocol 3.0.
pub fn startup(out: &mut BytesMut, parameters: &[(&str, &str)]) {
    let at = out.len();
    out.put_u32(0);
    out.put_u32(3 << 16);
    for (name, value) in parameters {
        put_cstr(out, name.as_bytes());
        put_cstr(out, value.as_bytes());
    }
    out.put_u8(0);
    fix_length(out, at);
}

/// CancelRequest.
pub fn cancel_request(out: &mut BytesMut, pid: u32, key: &[u8]) {
    let at = out.len();
    out.put_u32(0);
    out.put_u32(80_877_102);
    out.put_u32(pid);
    out.put_slice(key);
    fix_length(out, at);
}

/// Query.
pub fn query(out: &mut BytesMut, text: &[u8]) {
    message(out, client::tag::QUERY, |b| put_cstr(b, text));
}

/// Parse. `types` holds the count and the oids as they stand in a Parse message.
pub fn parse(out: &mut BytesMut, name: &[u8], text: &[u8], types: &[u8]) {
    message(out, client::tag::PARSE, |b| {
        put_cstr(b, name);
        put_cstr(b, text);
        b.put_slice(types);
    });
}

/// Bind, with another statement's name.
pub fn bind(out: &mut BytesMut, portal: &[u8], statement: &[u8], rest: &[u8]) {
    message(out, client::tag::BIND, |b| {
        put_cstr(b, portal);
        put_cstr(b, statement);
        b.put_slice(rest);
    });
}

/// Describe of a statement.
pub fn describe_statement(out: &mut BytesMut, name: &[u8]) {
    message(out, client::tag::DESCRIBE, |b| {
        b.put_u8(b'S');
        put_cstr(b, name);
    });
}

/// Close of a statement.
pub fn close_statement(out: &mut BytesMut, name: &[u8]) {
    message(out, client::tag::CLOSE, |b| {
        b.put_u8(b'S');
        put_cstr(b, name);
    });
}

/// AuthenticationOk.
pub fn authentication_ok(out: &mut BytesMut) {
    message(out, tag::AUTHENTICATION, |b| b.put_u32(0));
}

/// ParameterStatus.
pub fn parameter_status(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    message(out, tag::PARAMETER_STATUS, |b| {
        put_cstr(b, name);
        put_cstr(b, value);
    });
}

/// BackendKeyData.
pub fn backend_key_data(out: &mut BytesMut, pid: u32, key: &[u8]) {
    message(out, tag::BACKEND_KEY_DATA, |b| {
        b.put_u32(pid);
        b.put_slice(key);
    });
}

/// NegotiateProtocolVersion: the newest minor version that we speak, and the `_pq_.` options that we do not know.
pub fn negotiate_version(out: &mut BytesMut, minor: u16, unknown: &[&[u8]]) {
    message(out, tag::NEGOTIATE_VERSION, |b| {
        b.put_u32((3 << 16) | u32::from(minor));
        b.put_u32(u32::try_from(unknown.len()).unwrap_or(u32::MAX));
        for name in unknown {
            put_cstr(b, name);
        }
    });
}

/// ReadyForQuery.
pub fn ready_for_query(out: &mut BytesMut, status: Status) {
    message(out, tag::READY_FOR_QUERY, |b| b.put_u8(status.byte()));
}

/// A message without a body, such as ParseComplete.
pub fn bare(out: &mut BytesMut, tag: u8) {
    message(out, tag, |_| {});
}

/// CommandComplete.
pub fn command_complete(out: &mut BytesMut, command: &str) {
    message(out, tag::COMMAND_COMPLETE, |b| put_cstr(b, command.as_bytes()));
}

/// RowDescription with columns of type `text`.
pub fn text_columns(out: &mut BytesMut, names: &[&str]) {
    const TEXT_OID: u32 = 25;
    message(out, tag::ROW_DESCRIPTION, |b| {
        b.put_u16(u16::try_from(names.len()).unwrap_or(u16::MAX));
        for name in names {
            put_cstr(b, name.as_bytes());
            b.put_u32(0);
            b.put_u16(0);
            b.put_u32(TEXT_OID);
            b.put_i16(-1);
            b.put_i32(-1);
            b.put_u16(0);
        }
    });
}

/// DataRow with values of type `text`, in text format (which is the binary format of `text`, too).
pub fn text_row(out: &mut BytesMut, values: &[&str]) {
    nullable_row(out, values.iter().map(|value| Some(*value)));
}

/// DataRow of texts, some of which may be null.
pub fn nullable_row<'a>(out: &mut BytesMut, values: impl ExactSizeIterator<Item = Option<&'a str>>) {
    message(out, tag::DATA_ROW, |b| {
        b.put_u16(u16::try_from(values.len()).unwrap_or(u16::MAX));
        for value in values {
            // A length of -1 stands for null.
            b.put_u32(value.map_or(u32::MAX, |v| u32::try_from(v.len()).unwrap_or(u32::MAX)));
            b.put_slice(value.unwrap_or_default().as_bytes());
        }
    });
}

/// How grave an error of ours is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The unit failed; the session goes on.
    Error,
    /// The connection ends.
    Fatal,
}

/// An error that Tidegate itself reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How grave it is.
    pub severity: Severity,
    /// The SQLSTATE: see [`super::sqlstate`].
    pub sqlstate: Cow<'static, str>,
    /// What happened.
    pub message: String,
    /// More about it, if there is more.
    pub detail: Option<String>,
    /// What to do.
    pub hint: Option<String>,
}

impl Report {
    /// The unit failed; the session goes on.
    #[must_use]
    pub fn error(sqlstate: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            sqlstate: sqlstate.into(),
            message: message.into(),
            detail: None,
            hint: None,
        }
    }

    /// The connection ends.
    #[must_use]
    pub fn fatal(sqlstate: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Fatal, ..Self::error(sqlstate, message) }
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Adds more about it.
    #[must_use]
    pub fn detail(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    /// Writes it as an ErrorResponse. A zero byte in a text ends that text. Where the SQLSTATE is none, as a server may
    /// have sent it, it becomes XX000: drivers rely on five letters.
    pub fn write(&self, out: &mut BytesMut) {
        let whole = self.sqlstate.len() == 5 && self.sqlstate.bytes().all(|b| b.is_ascii_alphanumeric());
        let sqlstate = if whole { &self.sqlstate } else { sqlstate::INTERNAL_ERROR };
        message(out, tag::ERROR_RESPONSE, |b| {
            let severity = match self.severity {
                Severity::Error => "ERROR",
                Severity::Fatal => "FATAL",
            };
            let fields = [
                (b'S', Some(severity)),
                (b'V', Some(severity)),
                (b'C', Some(sqlstate)),
                (b'M', Some(self.message.as_str())),
                (b'D', self.detail.as_deref()),
                (b'H', self.hint.as_deref()),
            ];
            for (code, text) in fields {
                let Some(text) = text else { continue };
                b.put_u8(code);
                put_cstr(b, text.split('\0').next().unwrap_or_default().as_bytes());
            }
            b.put_u8(0);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Frame;
    use crate::wire::server::Fields;

    #[test]
    fn what_is_built_can_be_read_back() {
        let mut out = BytesMut::new();
        parse(&mut out, b"s", b"select $1", b"\0\0");
        let frame = Frame::peek(&out).unwrap().unwrap();
        assert_eq!(frame.len, out.len());
        let read = client::Parse::read(frame.body(&out).unwrap()).unwrap();
        assert_eq!((read.name, read.text, read.types), (&b"s"[..], &b"select $1"[..], &b"\0\0"[..]));

        out.clear();
        Report::error("53300", "full\0hidden").hint("wait").write(&mut out);
        let frame = Frame::peek(&out).unwrap().unwrap();
        let fields = Fields::new(frame.body(&out).unwrap());
        assert_eq!(fields.sqlstate(), b"53300");
        assert_eq!(fields.message(), b"full");
        assert_eq!(fields.get(b'H'), Some(&b"wait"[..]));
        assert_eq!(frame.len, out.len());
    }

    #[test]
    fn an_error_always_has_a_sqlstate() {
        for (given, written) in
            [("28P01", "28P01"), ("", "XX000"), ("28", "XX000"), ("28P0\u{fffd}", "XX000")]
        {
            let mut out = BytesMut::new();
            Report::error(given, "no").write(&mut out);
            let frame = Frame::peek(&out).unwrap().unwrap();
            assert_eq!(Fields::new(frame.body(&out).unwrap()).sqlstate(), written.as_bytes());
        }
    }
}
