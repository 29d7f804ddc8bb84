//! Buffers that a connection has only while bytes are in them.

use bytes::{Buf, BytesMut};

use super::free::Free;

/// Bytes of one buffer.
pub const SIZE: usize = 16 * 1024;

/// The most bytes of one that is not large: it may have grown for a message that was not complete.
pub const USUAL: usize = 2 * SIZE;

/// Bytes of one that reads have filled: of what is long, a read takes more at once. A little less than 64 KiB, as that
/// is what a segment has room for with its headers, over loopback and where the network card cuts it: 64 KiB would go as
/// a full one and a tiny one, at nearly twice the cost.
pub const LARGE: usize = 60 * 1024;

/// How many free ones a worker keeps.
const KEEP: usize = 256;

/// How many large free ones a worker keeps.
const KEEP_LARGE: usize = 16;

/// A read into less room than this would not be worth its system call.
const ENOUGH: usize = SIZE / 4;

/// Sees to it that a read into the buffer finds room: what was consumed in front comes back first.
pub fn make_room(buffer: &mut BytesMut) {
    if buffer.capacity() - buffer.len() < ENOUGH {
        buffer.reserve(SIZE / 2);
    }
}

/// Whether the read before has left no room in the buffer, so that there may be more to be had.
pub fn is_full(buffer: &BytesMut) -> bool {
    buffer.len() == buffer.capacity()
}

/// Takes the first bytes out of a buffer: all of them more cheaply than some.
pub fn consume(buffer: &mut BytesMut, n: usize) {
    if n == buffer.len() {
        // Does not move the front, but what lies behind it is room again.
        buffer.clear();
    } else {
        buffer.advance(n);
    }
}

/// The free buffers of one worker.
#[derive(Debug, Default)]
pub struct Buffers {
    usual: Free<BytesMut>,
    large: Free<BytesMut>,
}

impl Buffers {
    /// Hands out an empty buffer with room.
    pub fn take(&mut self) -> BytesMut {
        self.usual.take().unwrap_or_else(|| BytesMut::with_capacity(SIZE))
    }

    /// Lets go of those that nobody has needed since the last call: a crowd's are not kept when the crowd has left.
    pub fn trim(&mut self) {
        self.usual.trim();
        self.large.trim();
    }

    /// Sees to it that the next read into a buffer that one has filled can take more.
    pub fn enlarge(&mut self, buffer: &mut BytesMut) {
        // A message that is not complete is not worth being copied.
        if buffer.len() >= ENOUGH {
            make_room(buffer);
            return;
        }
        // Large it may be already, with what was consumed in front of the rest.
        if !buffer.try_reclaim(LARGE - buffer.len()) {
            let mut large = self.large.take().unwrap_or_else(|| BytesMut::with_capacity(LARGE));
            large.extend_from_slice(buffer);
            self.give(std::mem::replace(buffer, large));
        }
    }

    /// Takes a buffer back. One that has grown otherwise than by [`Self::enlarge`] is not kept.
    pub fn give(&mut self, mut buffer: BytesMut) {
        buffer.clear();
        // What was consumed is moved back to the front, without an allocation.
        if buffer.capacity() == 0 || (buffer.capacity() < SIZE && !buffer.try_reclaim(SIZE)) {
            return;
        }
        // What was consumed in front of it is part of its room, too.
        if !buffer.try_reclaim(USUAL + 1) {
            self.usual.keep(buffer, KEEP);
        } else if buffer.try_reclaim(LARGE) && !buffer.try_reclaim(LARGE + 1) {
            self.large.keep(buffer, KEEP_LARGE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_always_room_for_a_read_worth_its_while() {
        let mut buffer = BytesMut::with_capacity(SIZE);
        for left in (0..SIZE).step_by(7).chain([1, 0, 5, 0, 0]) {
            make_room(&mut buffer);
            let room = buffer.capacity() - buffer.len();
            assert!((ENOUGH..=4 * SIZE).contains(&room), "{room}");
            // It is filled, and all but an unfinished message is passed on.
            buffer.resize(buffer.capacity(), 1);
            let n = buffer.len() - left.min(buffer.len() / 3);
            consume(&mut buffer, n);
        }
    }

    #[test]
    fn one_that_was_filled_grows_and_both_come_back() {
        let mut buffers = Buffers::default();
        let mut places = Vec::new();
        for _ in 0..3 {
            let mut buffer = buffers.take();
            assert!(!is_full(&buffer));
            buffer.resize(buffer.capacity(), 1);
            for left in [3, 0, ENOUGH - 1, 1] {
                assert!(is_full(&buffer));
                buffer.resize(buffer.len() - left, 0);
                buffer.resize(buffer.len() + left, 2);
                let n = buffer.len() - left;
                consume(&mut buffer, n);
                buffers.enlarge(&mut buffer);
                assert_eq!((buffer.len(), buffer.capacity()), (left, LARGE), "{left} were left");
                assert!(buffer.iter().all(|b| *b == 2));
                buffer.resize(LARGE, 1);
            }
            assert_eq!((buffers.usual.kept.len(), buffers.large.kept.len()), (1, 0));
            places.push(buffer.as_ptr());
            buffers.give(buffer);
            assert_eq!((buffers.usual.kept.len(), buffers.large.kept.len()), (1, 1));
        }
        assert!(places.iter().all(|place| *place == places[0]), "new ones were made");
        for _ in 0..2 * KEEP_LARGE {
            buffers.give(BytesMut::with_capacity(LARGE));
        }
        assert_eq!(buffers.large.kept.len(), KEEP_LARGE);
    }

    #[test]
    fn an_unfinished_message_is_not_copied_to_another_buffer() {
        let mut buffers = Buffers::default();
        let mut buffer = buffers.take();
        buffer.resize(SIZE, 1);
        consume(&mut buffer, SIZE / 4);
        buffers.enlarge(&mut buffer);
        assert!(buffer.len() == 3 * SIZE / 4 && buffer.capacity() - buffer.len() >= ENOUGH);
        assert!(buffers.usual.kept.is_empty());
    }

    #[test]
    fn buffers_that_nobody_needs_are_let_go() {
        let mut buffers = Buffers::default();
        let crowd: Vec<_> = (0..100).map(|_| buffers.take()).collect();
        crowd.into_iter().for_each(|buffer| buffers.give(buffer));
        buffers.trim();
        let few: Vec<_> = (0..3).map(|_| buffers.take()).collect();
        few.into_iter().for_each(|buffer| buffers.give(buffer));
        assert_eq!(buffers.usual.kept.len(), 100);
        buffers.trim();
        assert_eq!(buffers.usual.kept.len(), 3);
        buffers.trim();
        assert!(buffers.usual.kept.is_empty() && buffers.take().capacity() >= SIZE);
        buffers.trim();
    }

    #[test]
    fn a_buffer_comes_back_with_its_room() {
        let mut buffers = Buffers::default();
        let mut buffer = buffers.take();
        buffer.extend_from_slice(&[1; 1000]);
        buffer.advance(1000);
        let place = buffer.as_ptr() as usize;
        buffers.give(buffer);
        let again = buffers.take();
        assert!(again.capacity() >= SIZE && again.is_empty());
        assert!(place.abs_diff(again.as_ptr() as usize) <= 1000, "a new one was made");
        buffers.give(BytesMut::with_capacity(100 * SIZE));
        let mut mostly_consumed = BytesMut::with_capacity(100 * SIZE);
        mostly_consumed.extend_from_slice(&[1; 99 * SIZE]);
        mostly_consumed.advance(98 * SIZE + SIZE / 2);
        buffers.give(mostly_consumed);
        assert!(buffers.usual.kept.is_empty());
    }
}
