//! Texts that were judged before: applications send the same few over and over.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;

use super::judge::Brief;
use crate::sql::{Dialect, Names, classify};

/// How many texts are kept, each in the place that its hash gives it.
const SLOTS: usize = 512;

/// Longer texts are judged anew each time: what that costs is little beside running them.
const MAX_TEXT: usize = 4096;

/// The judgements of one worker.
#[derive(Debug)]
pub struct KnownTexts {
    slots: Box<[Slot]>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Slot {
    hash: u64,
    /// Kept from the second time on, so that texts which never come again cost no more than their hash.
    text: Option<Box<[u8]>>,
    /// By which names, and how literals were read.
    version: u64,
    dialect: Dialect,
    brief: Brief,
}

impl Default for KnownTexts {
    fn default() -> Self {
        Self { slots: (0..SLOTS).map(|_| Slot::default()).collect(), hasher: RandomState::default() }
    }
}

impl KnownTexts {
    /// What a text is.
    pub fn judge(&mut self, text: &[u8], names: &dyn Names, dialect: Dialect) -> Brief {
        let judged = || Brief::of(text, &classify(text, names, dialect));
        let version = names.version();
        if version == 0 || text.len() > MAX_TEXT {
            return judged();
        }
        let mut hasher = self.hasher.build_hasher();
        hasher.write(text);
        let hash = hasher.finish();
        let Some(slot) = self.slots.get_mut(hash as usize % SLOTS) else { return judged() };
        let same = slot.hash == hash && slot.version == version && slot.dialect == dialect;
        if same && slot.text.as_deref() == Some(text) {
            return slot.brief;
        }
        let brief = judged();
        let text = (slot.hash == hash).then(|| text.into());
        *slot = Slot { hash, text, version, dialect, brief };
        brief
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Access, Catalog, CatalogRows, Overrides, Reason};

    #[test]
    fn what_is_known_is_what_would_be_found() {
        let mut known = KnownTexts::default();
        let before = Catalog::builtin();
        let mut rows = CatalogRows::default();
        rows.push("safe_function", "f");
        let after = Catalog::build(rows, &Overrides::default());
        let dialect = Dialect::default();
        let text = b"select f(1)";
        for _ in 0..4 {
            let refused = known.judge(text, &before, dialect).access;
            assert_eq!(refused, Access::Primary(Reason::UnknownFunction));
        }
        for _ in 0..4 {
            assert_eq!(known.judge(text, &after, dialect).access, Access::Read, "names have changed");
        }
        let quotes = b"select 'a\\' , f('";
        for standard_conforming_strings in [true, false, true, false] {
            let dialect = Dialect { standard_conforming_strings };
            let found = known.judge(quotes, &after, dialect);
            assert_eq!(found, Brief::of(quotes, &classify(quotes, &after, dialect)));
        }
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let mut known = KnownTexts::default();
        let names = Catalog::builtin();
        for n in 0..20_000 {
            let text = format!("select {n}{}", " ".repeat(n % 5000));
            for _ in 0..2 {
                assert_eq!(known.judge(text.as_bytes(), &names, Dialect::default()).access, Access::Read);
            }
        }
        let bytes: usize = known.slots.iter().filter_map(|s| s.text.as_ref()).map(|t| t.len()).sum();
        assert!(bytes > 0 && bytes <= SLOTS * MAX_TEXT, "{bytes}");
    }
}
