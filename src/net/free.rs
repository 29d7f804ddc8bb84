//! What is free at the moment, to be handed out again: as much as is needed at a time, and no more for long.

/// Things of one kind that are free.
#[derive(Debug)]
pub struct Free<T> {
    pub(super) kept: Vec<T>,
    /// So many have been free all the time since the last [`Self::trim`].
    spare: usize,
}

impl<T> Default for Free<T> {
    fn default() -> Self {
        Self { kept: Vec::new(), spare: 0 }
    }
}

impl<T> Free<T> {
    /// The one that was kept last, which the processor's cache has most of; `None` if there is none.
    #[inline]
    pub fn take(&mut self) -> Option<T> {
        let one = self.kept.pop();
        self.spare = self.spare.min(self.kept.len());
        one
    }

    /// Keeps one, unless there are so many.
    #[inline]
    pub fn keep(&mut self, one: T, most: usize) {
        if self.kept.len() < most {
            self.kept.push(one);
        }
    }

    /// Lets go of those that nobody has needed since the last call: a crowd's are not kept when the crowd has left.
    pub fn trim(&mut self) {
        // The others were used last.
        self.kept.drain(..self.spare);
        self.kept.shrink_to(2 * self.kept.len());
        self.spare = self.kept.len();
    }
}
