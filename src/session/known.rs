//! Texts that were judged before: applications send the same few over and over, or the same but for numbers.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;

use super::judge::Brief;
use super::shape::shape;
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
    shape: Vec<u8>,
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
        Self {
            slots: (0..SLOTS).map(|_| Slot::default()).collect(),
            hasher: RandomState::default(),
            shape: Vec::new(),
        }
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
        let hash = self.hash(text);
        if let Some(brief) = self.find(hash, text, version, dialect) {
            return brief;
        }
        let mut own = std::mem::take(&mut self.shape);
        // Nothing in a judgement hangs on what a number is.
        let (same, hash) = if shape(text, &mut own) { (&*own, self.hash(&own)) } else { (text, hash) };
        let brief = self.find(hash, same, version, dialect).unwrap_or_else(|| {
            let brief = judged();
            self.keep(hash, same, version, dialect, brief);
            brief
        });
        self.shape = own;
        brief
    }

    fn hash(&self, text: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(text);
        hasher.finish()
    }

    fn find(&self, hash: u64, text: &[u8], version: u64, dialect: Dialect) -> Option<Brief> {
        let slot = self.slots.get(hash as usize % SLOTS)?;
        let same = slot.hash == hash && slot.version == version && slot.dialect == dialect;
        (same && slot.text.as_deref() == Some(text)).then_some(slot.brief)
    }

    fn keep(&mut self, hash: u64, text: &[u8], version: u64, dialect: Dialect, brief: Brief) {
        if let Some(slot) = self.slots.get_mut(hash as usize % SLOTS) {
            let text = (slot.hash == hash).then(|| text.into());
            *slot = Slot { hash, text, version, dialect, brief };
        }
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
            let text = format!("select a{n}{}", " ".repeat(n % 5000));
            for _ in 0..2 {
                assert_eq!(known.judge(text.as_bytes(), &names, Dialect::default()).access, Access::Read);
            }
        }
        assert!(known.shape.capacity() <= 2 * MAX_TEXT);
        let bytes: usize = known.slots.iter().filter_map(|s| s.text.as_ref()).map(|t| t.len()).sum();
        assert!(bytes > 0 && bytes <= SLOTS * MAX_TEXT, "{bytes}");
    }

    /// Texts whose judgement could hang on a number, were it one.
    const TEXTS: [&str; 12] = [
        "select set_config('a.b', '#', false), # from t",
        "select nextval('seq #') + #",
        "select \"f #\"(#) from \"t#\" limit #",
        "set tidegate.max_staleness = #; select #",
        "begin; select # for update; commit",
        "select $#, f#(#), 1e# from t where a=#-#",
        "/* tidegate: route=primary # */ select #",
        "select $$ # $$, # -- #",
        "select E'\\' # ' , f#(#)",
        "fetch # from c",
        "select pg_advisory_lock(#), pg_sleep(#)",
        "update t set a = # where b in (#,#,#)",
    ];

    proptest::proptest! {
        #[test]
        fn numbers_make_no_difference(texts in proptest::collection::vec((0..TEXTS.len(), "[0-9]{1,7}"), 1..60)) {
            let mut known = KnownTexts::default();
            let names = Catalog::builtin();
            for (at, number) in texts {
                let text = TEXTS[at].replace('#', &number);
                let dialect = Dialect { standard_conforming_strings: number.len() % 2 == 0 };
                let found = known.judge(text.as_bytes(), &names, dialect);
                let class = classify(text.as_bytes(), &names, dialect);
                proptest::prop_assert_eq!(found, Brief::of(text.as_bytes(), &class), "{}", text);
            }
        }
    }

    #[test]
    fn a_text_that_differs_in_numbers_is_known() {
        let mut known = KnownTexts::default();
        let names = Catalog::builtin();
        for n in 0..3 {
            known.judge(format!("select a from t where b = {n}").as_bytes(), &names, Dialect::default());
        }
        let kept = known.slots.iter().filter(|s| s.text.is_some()).count();
        assert_eq!((kept, known.shape.as_slice()), (1, &b"select a from t where b = 0"[..]));
    }
}
