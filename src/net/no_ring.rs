//! What stands for a ring where the operating system has no such thing.

use std::convert::Infallible;
use std::io;
use std::rc::Rc;

use super::source::Source;

/// As large as others are.
pub(super) const SENDS: usize = 64;

/// What becomes of a send: how many bytes have gone, or why none has.
pub(super) type Sent = io::Result<usize>;

/// There is none.
pub struct Ring(Infallible);

impl Ring {
    /// One for this thread.
    ///
    /// # Errors
    /// There is none.
    pub fn new() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn send(
        &mut self,
        _batch: impl Iterator<Item = (Rc<Source>, Vec<u8>)>,
        _done: impl FnMut(Rc<Source>, Vec<u8>, Sent),
    ) -> io::Result<()> {
        match self.0 {}
    }
}
