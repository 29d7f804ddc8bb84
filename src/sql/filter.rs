//! Says of most names at a glance that they are not in a set.

/// A set of names by length, first and last byte, without regard to case: says no for sure, or perhaps.
#[derive(Clone, Debug)]
pub(super) struct Filter([u64; 64]);

impl Default for Filter {
    fn default() -> Self {
        Self([0; 64])
    }
}

impl Filter {
    pub(super) fn of<'a>(names: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut filter = Self::default();
        for name in names {
            let (slot, bit) = Self::place(name);
            if let Some(word) = filter.0.get_mut(slot) {
                *word |= bit;
            }
        }
        filter
    }

    #[inline]
    /// Whether a name that is the same but for case may be among them.
    pub(super) fn may_have(&self, name: &[u8]) -> bool {
        let (slot, bit) = Self::place(name);
        self.0.get(slot).is_some_and(|word| word & bit != 0)
    }

    /// Which word of the set, and which bit in it.
    #[inline]
    fn place(name: &[u8]) -> (usize, u64) {
        let (Some(first), Some(last)) = (name.first(), name.last()) else {
            return (0, 1);
        };
        let ends = [*first | 0x20, *last | 0x20, name.len() as u8, 0];
        let mixed = u32::from_le_bytes(ends).wrapping_mul(0x9e37_79b1) >> 20;
        (mixed as usize >> 6, 1 << (mixed & 63))
    }
}
