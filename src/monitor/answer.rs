//! What a server answers to the monitor's questions.

use crate::lsn::{Lsn, Timeline};
use crate::wire::server::{Fields, row, tag};
use crate::wire::{Frame, FrameError};

/// The longest message that is taken, those that are passed over included.
const MAX_MESSAGE: usize = 64 * 1024;

/// What is wrong with an answer.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The server says no.
    #[error("{severity}: {message} ({sqlstate})")]
    Refused {
        /// ERROR, FATAL or PANIC, maybe in another language.
        severity: String,
        /// Its SQLSTATE.
        sqlstate: String,
        /// Its message.
        message: String,
        /// The server closes the connection.
        fatal: bool,
    },
    /// A message that does not belong here.
    #[error("unexpected message of type {0:#04x} in the answer to a poll")]
    Unexpected(u8),
    /// A message is not of the form that it should have; the text names it.
    #[error("malformed {0} in the answer to a poll")]
    Malformed(&'static str),
    /// There is not exactly one row.
    #[error("the answer to a poll does not have exactly one row")]
    NotOneRow,
    /// A message is longer than any that belongs here.
    #[error("a message of {0} bytes in the answer to a poll")]
    TooLong(usize),
    /// A message has no possible length.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl AnswerError {
    fn refused(body: &[u8]) -> Self {
        let fields = Fields::new(body);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self::Refused {
            severity: text(fields.get(b'S').unwrap_or(b"ERROR")),
            sqlstate: text(fields.sqlstate()),
            message: text(fields.message()),
            fatal: fields.is_fatal(),
        }
    }
}

/// An answer as it comes in. Rows are read where they lie, by `R`.
#[derive(Debug)]
pub(super) struct Answer<T, R> {
    read: R,
    row: Option<T>,
    refused: Option<AnswerError>,
}

impl<T, R: Fn(&[u8]) -> Option<T>> Answer<T, R> {
    /// Nothing has come yet. `read` reads the body of a DataRow; `None` if it is not of the right form.
    pub(super) fn new(read: R) -> Self {
        Self { read, row: None, refused: None }
    }

    /// Takes the whole messages at the start of `bytes`: how many bytes these are, and whether the answer is complete.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(usize, bool), AnswerError> {
        let mut rest = bytes;
        let mut done = false;
        while let Some(frame) = Frame::peek(rest)? {
            if frame.len > MAX_MESSAGE {
                return Err(AnswerError::TooLong(frame.len));
            }
            let Some((message, behind)) = rest.split_at_checked(frame.len) else { break };
            rest = behind;
            done = self.message(frame.tag, frame.body(message).unwrap_or_default())?;
            if done {
                break;
            }
        }
        Ok((bytes.len() - rest.len(), done))
    }

    /// Takes one message: whether it is the last.
    fn message(&mut self, tag: u8, body: &[u8]) -> Result<bool, AnswerError> {
        match tag {
            tag::DATA_ROW if self.row.is_some() => return Err(AnswerError::NotOneRow),
            tag::DATA_ROW => {
                self.row = Some((self.read)(body).ok_or(AnswerError::Malformed("DataRow"))?);
            }
            tag::READY_FOR_QUERY if body == b"I" => return Ok(true),
            tag::READY_FOR_QUERY => return Err(AnswerError::Malformed("ReadyForQuery")),
            tag::ERROR_RESPONSE => {
                let refused = AnswerError::refused(body);
                if matches!(refused, AnswerError::Refused { fatal: true, .. }) {
                    return Err(refused);
                }
                self.refused.get_or_insert(refused);
            }
            tag::PARSE_COMPLETE | tag::BIND_COMPLETE | tag::ROW_DESCRIPTION | tag::COMMAND_COMPLETE => {}
            // These come whenever the server likes.
            tag::PARAMETER_STATUS | tag::NOTICE_RESPONSE | tag::NOTIFICATION_RESPONSE => {}
            tag => return Err(AnswerError::Unexpected(tag)),
        }
        Ok(false)
    }

    /// What a complete answer holds.
    pub(super) fn finish(self) -> Result<Option<T>, AnswerError> {
        self.refused.map_or(Ok(self.row), Err)
    }

    /// What the server said before it hung up, if it said why.
    pub(super) fn refusal(self) -> Option<AnswerError> {
        self.refused
    }
}

/// A node's role and position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) in_recovery: bool,
    /// Primary: the insert position. Replica: the replay position.
    pub(super) lsn: Lsn,
    /// Primary: the flush position.
    pub(super) flushed: Lsn,
    /// Primary: the timeline.
    pub(super) timeline: Timeline,
}

/// Reads a row in binary format: role, position, flush position, and the first eight digits of the WAL file's name.
pub(super) fn found(body: &[u8]) -> Option<Found> {
    let [role, position, flushed, file] = row(body)?;
    Some(Found {
        in_recovery: boolean(role)?,
        lsn: lsn(position)?,
        flushed: lsn(flushed)?,
        timeline: file.map_or(Some(0), digits).map(Timeline)?,
    })
}

/// Reads a row in binary format: role and replay position.
pub(super) fn replayed(body: &[u8]) -> Option<Found> {
    let [role, position] = row(body)?;
    Some(Found { in_recovery: boolean(role)?, lsn: lsn(position)?, ..Found::default() })
}

/// Reads a row in binary format: a timeline, if there is one.
pub(super) fn received(body: &[u8]) -> Option<Option<Timeline>> {
    let [timeline] = row(body)?;
    let Some(timeline) = timeline else { return Some(None) };
    Some(Some(Timeline(u32::from_be_bytes(timeline.try_into().ok()?))))
}

/// Reads a row of numbers in text format.
pub(super) fn numbers<const N: usize>(body: &[u8]) -> Option<[Option<u64>; N]> {
    let number = |text: &[u8]| str::from_utf8(text).ok()?.parse().ok();
    Some(row(body)?.map(|value| value.and_then(number)))
}

fn boolean(value: Option<&[u8]>) -> Option<bool> {
    match value? {
        [0] => Some(false),
        [1] => Some(true),
        _ => None,
    }
}

/// A `pg_lsn`; zero where the server has none.
fn lsn(value: Option<&[u8]>) -> Option<Lsn> {
    value.map_or(Some(Lsn::ZERO), |bytes| Some(Lsn(u64::from_be_bytes(bytes.try_into().ok()?))))
}

/// Eight hexadecimal digits.
fn digits(text: &[u8]) -> Option<u32> {
    let digit = |n: u32, byte: &u8| Some(n << 4 | char::from(*byte).to_digit(16)?);
    (text.len() == 8).then(|| text.iter().try_fold(0, digit))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::build;
    use bytes::{BufMut, BytesMut};
    use proptest::prelude::*;

    fn row(values: &[Option<&[u8]>]) -> BytesMut {
        let mut out = BytesMut::new();
        build::message(&mut out, tag::DATA_ROW, |b| {
            b.put_u16(values.len() as u16);
            for value in values {
                b.put_u32(value.map_or(u32::MAX, |v| v.len() as u32));
                b.put_slice(value.unwrap_or_default());
            }
        });
        out
    }

    const POSITION: Option<&[u8]> = Some(&[0, 0, 0, 0x16, 0xb3, 0x74, 0xd8, 0x48]);

    fn primary() -> BytesMut {
        let mut out = BytesMut::new();
        build::bare(&mut out, tag::BIND_COMPLETE);
        out.put_slice(&row(&[Some(&[0]), POSITION, POSITION, Some(b"0000001F")]));
        build::command_complete(&mut out, "SELECT 1");
        out.put_slice(b"Z\0\0\0\x05I");
        out
    }

    fn read(bytes: &[u8]) -> Result<Option<Found>, AnswerError> {
        let mut answer = Answer::new(found);
        match answer.take(bytes)? {
            (_, true) => answer.finish(),
            (_, false) => panic!("not complete"),
        }
    }

    #[test]
    fn a_poll_is_read_wherever_its_answer_is_cut() {
        let lsn = Lsn(0x16_b374_d848);
        let expected = Found { in_recovery: false, lsn, flushed: lsn, timeline: Timeline(0x1f) };
        let mut bytes = BytesMut::from(&b"S\0\0\0\x08a\0b\0N\0\0\0\x05\0A\0\0\0\x0a\0\0\0\x01c\0"[..]);
        bytes.put_slice(&primary());
        for cut in 0..=bytes.len() {
            let mut answer = Answer::new(found);
            let (used, done) = answer.take(&bytes[..cut]).unwrap();
            assert_eq!(done, cut == bytes.len());
            if !done {
                assert_eq!(answer.take(&bytes[used..]).unwrap(), (bytes.len() - used, true));
            }
            assert_eq!(answer.finish().unwrap(), Some(expected));
        }
    }

    #[test]
    fn what_a_server_says_behind_its_answer_is_left() {
        let mut bytes = primary();
        let len = bytes.len();
        bytes.put_slice(b"N\0\0\0\x05\0");
        assert_eq!(Answer::new(found).take(&bytes).unwrap(), (len, true));
    }

    #[test]
    fn rows_of_another_form_are_refused() {
        let whole = |values: &[Option<&[u8]>]| row(values)[5..].to_vec();
        assert_eq!(
            found(&whole(&[Some(&[1]), POSITION, None, None])),
            Some(Found { in_recovery: true, lsn: Lsn(0x16_b374_d848), ..Found::default() })
        );
        for values in [
            &[None, POSITION, None, None][..],
            &[Some(b"t"), POSITION, None, None],
            &[Some(&[1]), Some(b"0/0"), None, None],
            &[Some(&[1]), POSITION, None],
            &[Some(&[1]), POSITION, None, None, None],
            &[Some(&[0]), POSITION, POSITION, Some(b"1F")],
            &[Some(&[0]), POSITION, POSITION, Some(b"+000001F")],
        ] {
            assert_eq!(found(&whole(values)), None, "{values:?}");
        }
        let mut longer = whole(&[Some(&[1]), POSITION, None, None]);
        longer.push(0);
        assert_eq!(found(&longer), None);
        assert_eq!(
            replayed(&whole(&[Some(&[1]), None])),
            Some(Found { in_recovery: true, ..Found::default() })
        );
        assert_eq!(received(&whole(&[Some(&[0, 0, 0, 7])])), Some(Some(Timeline(7))));
        assert_eq!(received(&whole(&[None])), Some(None));
        assert_eq!(received(&whole(&[Some(b"7")])), None);
        assert_eq!(numbers(&whole(&[Some(b"8192"), None, Some(b"-1")])), Some([Some(8192), None, None]));
    }

    #[test]
    fn a_refusal_is_told_with_its_sqlstate() {
        let mut bytes = BytesMut::new();
        let report = build::Report::error("55000", "recovery is in progress");
        report.write(&mut bytes);
        bytes.put_slice(b"Z\0\0\0\x05I");
        let told = read(&bytes).unwrap_err().to_string();
        assert_eq!(told, "ERROR: recovery is in progress (55000)");

        // After this one nothing more comes.
        bytes.clear();
        build::Report::fatal("57P01", "terminating").write(&mut bytes);
        let told = Answer::new(found).take(&bytes).unwrap_err().to_string();
        assert_eq!(told, "FATAL: terminating (57P01)");
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        let row = primary()[5..].to_vec();
        let twice = [&row[..row.len() - 6], &row].concat();
        for (bytes, told) in [
            (&b"Z\0\0\0\x05T"[..], "malformed ReadyForQuery in the answer to a poll"),
            (b"G\0\0\0\x04", "unexpected message of type 0x47 in the answer to a poll"),
            (b"D\0\0\0\x06\0\0", "malformed DataRow in the answer to a poll"),
            (b"D\0\x02\0\0", "a message of 131073 bytes in the answer to a poll"),
            (b"D\0\0\0\x03", "invalid message length in a message of type 0x44"),
            (&twice, "the answer to a poll does not have exactly one row"),
        ] {
            assert_eq!(Answer::new(found).take(bytes).unwrap_err().to_string(), told);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
            tag in proptest::sample::select(&b"DZENSACT2"[..]),
            body in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let _ = Answer::new(found).take(&bytes);
            let mut framed = BytesMut::new();
            build::message(&mut framed, tag, |b| b.put_slice(&body));
            let _ = Answer::new(found).take(&framed);
            let _ = (found(&body), replayed(&body), received(&body), numbers::<3>(&body));
        }

        #[test]
        fn a_poll_with_a_byte_changed_is_read_without_a_panic(at in 0usize..70, byte: u8) {
            let mut bytes = primary();
            let at = at % bytes.len();
            bytes[at] = byte;
            let mut answer = Answer::new(found);
            if let Ok((used, _)) = answer.take(&bytes) {
                prop_assert!(used <= bytes.len());
            }
        }
    }
}
