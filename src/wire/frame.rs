//! One message: a tag byte, a length, a body.

use std::fmt;

/// Bytes before the body: the tag and the four bytes of the length.
pub const HEADER: usize = 5;

/// The longest message that PostgreSQL takes or sends, tag included (`PQ_LARGE_MESSAGE_LIMIT`, `MaxAllocSize` - 1).
pub const MAX_MESSAGE: usize = 0x3fff_ffff;

/// The head of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The type byte.
    pub tag: u8,
    /// Bytes of the whole message, tag and length included; at least [`HEADER`].
    pub len: usize,
}

/// The length word is less than 4 or more than [`MAX_MESSAGE`]: the stream cannot be followed any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameError {
    /// The type byte of the message.
    pub tag: u8,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid message length in a message of type {:#04x}", self.tag)
    }
}

impl std::error::Error for FrameError {}

impl Frame {
    /// Reads the head of the message at the start of `bytes`; `None` if it is not complete yet.
    ///
    /// # Errors
    /// The length word is not possible.
    pub fn peek(bytes: &[u8]) -> Result<Option<Self>, FrameError> {
        let Some((&[tag, a, b, c, d], _)) = bytes.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes([a, b, c, d]) as usize;
        if !(4..MAX_MESSAGE).contains(&len) {
            return Err(FrameError { tag });
        }
        Ok(Some(Self { tag, len: len + 1 }))
    }

    /// Bytes of the messages of type `tag` that `bytes` starts with, one behind the other; the last may be there only in
    /// part. Rows come by the million: this is all that is looked at of each.
    #[must_use]
    pub fn run(tag: u8, bytes: &[u8]) -> usize {
        let mut end = 0;
        while let Some(rest) = bytes.get(end..)
            && let Ok(Some(frame)) = Self::peek(rest)
            && frame.tag == tag
        {
            end += frame.len;
        }
        end
    }

    /// The body of this message, which starts at the start of `bytes`; `None` if it is not complete yet.
    #[must_use]
    pub fn body(self, bytes: &[u8]) -> Option<&[u8]> {
        bytes.get(HEADER..self.len)
    }
}

/// Splits a zero-terminated string off the front: the string, and what is behind its zero.
#[must_use]
pub fn cstr(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(0, bytes)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// Splits a 16-bit integer off the front.
#[must_use]
pub fn int16(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*head), rest))
}

/// Splits a 32-bit integer off the front.
#[must_use]
pub fn int32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*head), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_impossible_length_is_an_error() {
        assert_eq!(Frame::peek(b"Q\0\0\0\x03"), Err(FrameError { tag: b'Q' }));
        assert_eq!(Frame::peek(b"Q\xff\xff\xff\xff"), Err(FrameError { tag: b'Q' }));
        assert_eq!(Frame::peek(b"Z\0\0\0"), Ok(None));
        assert_eq!(Frame::peek(b"S\0\0\0\x04"), Ok(Some(Frame { tag: b'S', len: 5 })));
    }

    #[test]
    fn a_run_ends_where_something_else_comes() {
        let rows = b"D\0\0\0\x05xD\0\0\0\x04D\0\0\0\x06xy";
        for (behind, more) in
            [(&b"C\0\0\0\x04"[..], 0), (b"D\0\0\0", 0), (b"D\0\0\0\x03", 0), (b"D\0\0\0\x09", 10)]
        {
            assert_eq!(Frame::run(b'D', &[rows, behind].concat()), rows.len() + more);
        }
        assert_eq!(Frame::run(b'D', b""), 0);
        assert_eq!(Frame::run(b'd', rows), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(Some(frame)) = Frame::peek(&bytes) {
                prop_assert!(frame.len >= HEADER);
                if let Some(body) = frame.body(&bytes) {
                    prop_assert_eq!(body.len() + HEADER, frame.len);
                }
            }
        }

        #[test]
        fn frames_are_found_wherever_the_stream_is_cut(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 1..10),
            cut in 0usize..200,
        ) {
            let mut stream = Vec::new();
            for body in &bodies {
                stream.push(b'D');
                stream.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
                stream.extend_from_slice(body);
            }
            let cut = cut.min(stream.len());
            let mut at = 0;
            let mut seen = 0;
            while let Ok(Some(frame)) = Frame::peek(&stream[at..cut]) {
                let Some(body) = frame.body(&stream[at..cut]) else { break };
                prop_assert_eq!(body, &bodies[seen][..]);
                at += frame.len;
                seen += 1;
            }
            let whole = bodies.iter().scan(0, |end, b| { *end += b.len() + HEADER; Some(*end) }).filter(|end| *end <= cut).count();
            prop_assert_eq!(seen, whole);
        }
    }
}
