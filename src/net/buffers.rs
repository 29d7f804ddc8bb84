//! Buffers that a connection has only while bytes are in them.

use bytes::{Buf, BytesMut};

/// Bytes of one buffer.
pub const SIZE: usize = 16 * 1024;

/// How many free ones a worker keeps.
const KEEP: usize = 256;

/// A read into less room than this would not be worth its system call.
const ENOUGH: usize = SIZE / 4;

/// Sees to it that a read into the buffer finds room: what was consumed in front comes back first.
pub fn make_room(buffer: &mut BytesMut) {
    if buffer.capacity() - buffer.len() < ENOUGH {
        buffer.reserve(SIZE / 2);
    }
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
    free: Vec<BytesMut>,
    /// So many have been free all the time since the last [`Self::trim`].
    spare: usize,
}

impl Buffers {
    /// Hands out an empty buffer with room.
    pub fn take(&mut self) -> BytesMut {
        let buffer = self.free.pop().unwrap_or_else(|| BytesMut::with_capacity(SIZE));
        self.spare = self.spare.min(self.free.len());
        buffer
    }

    /// Lets go of those that nobody has needed since the last call: a crowd's are not kept when the crowd has left.
    pub fn trim(&mut self) {
        self.free.truncate(self.free.len() - self.spare);
        self.free.shrink_to(2 * self.free.len());
        self.spare = self.free.len();
    }

    /// Takes a buffer back. One that has grown is not kept.
    pub fn give(&mut self, mut buffer: BytesMut) {
        buffer.clear();
        // What was consumed is moved back to the front, without an allocation.
        if buffer.capacity() > 0
            && (buffer.capacity() >= SIZE || buffer.try_reclaim(SIZE))
            // What was consumed in front of it is part of its room, too.
            && !buffer.try_reclaim(2 * SIZE + 1)
            && self.free.len() < KEEP
        {
            self.free.push(buffer);
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
    fn buffers_that_nobody_needs_are_let_go() {
        let mut buffers = Buffers::default();
        let crowd: Vec<_> = (0..100).map(|_| buffers.take()).collect();
        crowd.into_iter().for_each(|buffer| buffers.give(buffer));
        buffers.trim();
        let few: Vec<_> = (0..3).map(|_| buffers.take()).collect();
        few.into_iter().for_each(|buffer| buffers.give(buffer));
        assert_eq!(buffers.free.len(), 100);
        buffers.trim();
        assert_eq!(buffers.free.len(), 3);
        buffers.trim();
        assert!(buffers.free.is_empty() && buffers.take().capacity() >= SIZE);
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
        assert!(buffers.free.is_empty());
    }
}
