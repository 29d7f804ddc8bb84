//! Texts that were judged before: applications send the same few over and over, or the same but for numbers.

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;

use super::judge::Brief;
use super::shape::{Shape, fits};
use crate::sql::{Dialect, Names, classify, fingerprint};

/// In so many sets the texts are kept, each in the set that its hash gives it.
const SETS: usize = 1024;

/// So many are kept in one set.
const WAYS: usize = 4;

/// Longer texts are judged anew each time: what that costs is little beside running them.
const MAX_TEXT: usize = 4096;

/// The most bytes of text that are kept.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// What keeps a text in its set: each other one that comes there takes 1 away, and the one that has least makes room. So
/// much has one that came again,
const KEPT: u8 = 16;

/// and so much one that has come for the first time.
const NEW: u8 = 4;

/// By so many beginnings of texts it is remembered where the last one stands that came with another number.
const BEGINNINGS: usize = 256;

/// The judgements of one worker.
#[derive(Debug)]
pub struct KnownTexts {
    /// Each is made when it is needed.
    sets: Box<[Option<Box<[Slot; WAYS]>>]>,
    bytes: usize,
    /// The set that is next to be emptied when there are too many bytes.
    hand: usize,
    hasher: RandomState,
    shape: Shape,
    /// For each beginning, the number of a slot, counted through all sets, or of none.
    last: Box<[u16]>,
}

#[derive(Debug, Default)]
struct Slot {
    hash: u64,
    /// Kept from the second time on, so that texts which never come again cost no more than their hash.
    text: Option<Box<[u8]>>,
    /// Where numbers stand in it, if it is a shape.
    numbers: Box<[u16]>,
    by: By,
    worth: u8,
    brief: Brief,
}

/// What a judgement was made by: the version of the names, and how literals were read.
type By = (u64, Dialect);

impl Default for KnownTexts {
    fn default() -> Self {
        Self {
            sets: (0..SETS).map(|_| None).collect(),
            bytes: 0,
            hand: 0,
            hasher: RandomState::default(),
            shape: Shape::default(),
            last: [u16::MAX; BEGINNINGS].into(),
        }
    }
}

impl KnownTexts {
    /// What a text is.
    pub fn judge(&mut self, text: &[u8], names: &dyn Names, dialect: Dialect) -> Brief {
        let judged = || Brief::of(text, &classify(text, names, dialect));
        let by = (names.version(), dialect);
        if by.0 == 0 || text.len() > MAX_TEXT {
            return judged();
        }
        let beginning = beginning(text, by.0);
        if let Some(brief) = beginning.and_then(|beginning| self.find_last(beginning, text, by)) {
            return brief;
        }
        let hash = self.hash(text, by.0);
        if let Some((brief, _)) = self.find(hash, text, by) {
            return brief;
        }
        let mut shape = std::mem::take(&mut self.shape);
        // Nothing in a judgement hangs on what a number is.
        let brief = if shape.take(text) {
            let hash = self.hash(&shape.text, by.0);
            if let Some((brief, slot)) = self.find(hash, &shape.text, by) {
                if let Some(last) = beginning.and_then(|beginning| self.last.get_mut(beginning)) {
                    *last = slot;
                }
                brief
            } else {
                let brief = judged();
                self.keep(hash, &shape.text, &shape.numbers, by, brief);
                brief
            }
        } else {
            let brief = judged();
            self.keep(hash, text, &[], by, brief);
            brief
        };
        self.shape = shape;
        brief
    }

    /// The last one of those which begin like that, if the text differs from it only in numbers.
    fn find_last(&mut self, beginning: usize, text: &[u8], by: By) -> Option<Brief> {
        let last = usize::from(*self.last.get(beginning)?);
        let slot = self.sets.get_mut(last / WAYS)?.as_mut()?.get_mut(last % WAYS)?;
        if slot.by != by || !fits(text, slot.text.as_deref()?, &slot.numbers) {
            return None;
        }
        slot.worth = KEPT;
        Some(slot.brief)
    }

    /// With the version, so that databases which are sent the same texts do not meet in the same sets.
    fn hash(&self, text: &[u8], version: u64) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(text);
        hasher.write_u64(version);
        hasher.finish()
    }

    /// What is kept of a text, and the number of its slot.
    fn find(&mut self, hash: u64, text: &[u8], by: By) -> Option<(Brief, u16)> {
        let number = hash as usize % SETS;
        let set = self.sets.get_mut(number)?.as_mut()?;
        let (way, slot) = set.iter_mut().enumerate().find(|(_, slot)| slot.hash == hash && slot.by == by)?;
        if slot.text.as_deref() != Some(text) {
            return None;
        }
        slot.worth = KEPT;
        Some((slot.brief, (number * WAYS + way) as u16))
    }

    fn keep(&mut self, hash: u64, text: &[u8], numbers: &[u16], by: By, brief: Brief) {
        let Some(set) = self.sets.get_mut(hash as usize % SETS) else { return };
        let set = set.get_or_insert_default();
        let again = set.iter_mut().find(|slot| slot.hash == hash && slot.by == by);
        let mut new = Slot { hash, text: None, numbers: Box::default(), by, worth: NEW, brief };
        let slot = match again {
            Some(slot) => {
                (new.text, new.numbers, new.worth) = (Some(text.into()), numbers.into(), KEPT);
                slot
            }
            None => {
                set.iter_mut().for_each(|slot| slot.worth = slot.worth.saturating_sub(1));
                let Some(slot) = set.iter_mut().min_by_key(|slot| slot.worth) else { return };
                slot
            }
        };
        self.bytes += new.bytes();
        self.bytes -= std::mem::replace(slot, new).bytes();
        while self.bytes > MAX_BYTES {
            self.make_room();
        }
    }

    /// Empties one set, whichever it is.
    fn make_room(&mut self) {
        let set = self.sets.get_mut(self.hand).and_then(Option::take);
        self.bytes -= set.iter().flat_map(|set| set.iter()).map(Slot::bytes).sum::<usize>();
        self.hand = (self.hand + 1) % SETS;
    }
}

impl Slot {
    fn bytes(&self) -> usize {
        self.text.as_ref().map_or(0, |text| text.len()) + size_of_val(&*self.numbers)
    }
}

/// What tells texts apart that an application sends in turn, at a glance: their first 16 bytes. With the
/// version, as [`KnownTexts::hash`] has it.
fn beginning(text: &[u8], version: u64) -> Option<usize> {
    let (first, rest) = text.split_first_chunk()?;
    let (first, second) = (u64::from_le_bytes(*first), u64::from_le_bytes(*rest.first_chunk()?));
    let mixed = (first ^ second.rotate_left(29) ^ version).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Some((mixed >> 32) as usize % BEGINNINGS)
}

/// What was found out about the text of a prepared statement, kept with it.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    brief: Cell<Option<(By, Brief)>>,
    fingerprint: Cell<Option<u64>>,
}

impl Findings {
    /// What the text is: `judge` tells, unless it was found out by the same names before.
    pub fn brief(&self, names: &dyn Names, dialect: Dialect, judge: impl FnOnce() -> Brief) -> Brief {
        let by = (names.version(), dialect);
        match self.brief.get() {
            Some((known_by, brief)) if known_by == by && by.0 != 0 => brief,
            _ => {
                let brief = judge();
                self.brief.set(Some((by, brief)));
                brief
            }
        }
    }

    /// The fingerprint of the text, which must be the one that this is kept with.
    pub fn fingerprint(&self, text: &[u8]) -> u64 {
        let found = self.fingerprint.get().unwrap_or_else(|| fingerprint(text));
        self.fingerprint.set(Some(found));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::collect::{Collected, Collector, Context};
    use crate::session::prepared::Sense;
    use crate::session::{ClientStatements, Statements};
    use crate::sql::{Access, Catalog, CatalogRows, Overrides, Reason, Verdict};
    use crate::wire::build;
    use bytes::BytesMut;
    use std::cell::RefCell;

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
        assert!(known.shape.text.capacity() <= 2 * MAX_TEXT && known.shape.numbers.capacity() <= MAX_TEXT);
        let bytes: usize = slots(&known).map(Slot::bytes).sum();
        assert_eq!(bytes, known.bytes);
        assert!((MAX_BYTES / 2..=MAX_BYTES).contains(&bytes), "{bytes}");
    }

    fn slots(known: &KnownTexts) -> impl Iterator<Item = &Slot> {
        known.sets.iter().flatten().flat_map(|set| set.iter())
    }

    /// Counts how often it is asked for a function: texts that call one are judged as often.
    struct Counting(Catalog, Cell<usize>);

    impl Names for Counting {
        fn version(&self) -> u64 {
            self.0.version()
        }

        fn function(&self, name: &[u8]) -> Verdict {
            self.1.set(self.1.get() + 1);
            self.0.function(name)
        }

        fn relation(&self, name: &[u8]) -> Verdict {
            self.0.relation(name)
        }
    }

    impl Counting {
        fn new() -> Self {
            Self(Catalog::builtin(), Cell::default())
        }

        /// How often it was asked since the last call.
        fn asked(&self) -> usize {
            self.1.take()
        }
    }

    fn text(n: usize) -> String {
        format!("select a{n}, lower($1) from t")
    }

    #[test]
    fn a_thousand_texts_in_turn_are_judged_once() {
        let (mut known, names) = (KnownTexts::default(), Counting::new());
        let mut round = || {
            for n in 0..1000 {
                known.judge(text(n).as_bytes(), &names, Dialect::default());
            }
            names.asked()
        };
        let first = round();
        assert!(first >= 1000 && round() == first, "{first}");
        // Few find four others in their set.
        let again: usize = (0..10).map(|_| round()).sum();
        assert!(again <= first, "{again} of {}", 10 * first);
    }

    #[test]
    fn what_comes_once_does_not_push_out_what_comes_often() {
        let (mut known, names) = (KnownTexts::default(), Counting::new());
        let mut asked = Vec::new();
        for n in 0..50_000 {
            known.judge(text(n).as_bytes(), &names, Dialect::default());
            if n % 500 == 0 {
                names.asked();
                known.judge(b"select upper($1)", &names, Dialect::default());
                asked.push(names.asked() > 0);
            }
        }
        let judged = asked.iter().filter(|judged| **judged).count();
        assert!((2..=4).contains(&judged), "{judged} of {}", asked.len());
    }

    #[test]
    fn texts_that_come_no_more_make_room() {
        let (mut known, names) = (KnownTexts::default(), Counting::new());
        for n in 0..40_000 {
            known.judge(text(n / 2).as_bytes(), &names, Dialect::default());
        }
        let mut round = || {
            names.asked();
            for n in 20_000..21_000 {
                known.judge(text(n).as_bytes(), &names, Dialect::default());
            }
            names.asked()
        };
        let first = round();
        let last = (0..20).map(|_| round()).min().unwrap();
        assert!(last <= first / 10, "{last} of {first}");
    }

    #[test]
    fn what_was_found_out_holds_for_the_same_names_and_dialect() {
        let (findings, names) = (Findings::default(), Counting::new());
        let text = b"select lower('a\\')";
        let judge = |names: &Counting, standard_conforming_strings| {
            let dialect = Dialect { standard_conforming_strings };
            let found = findings.brief(names, dialect, || Brief::of(text, &classify(text, names, dialect)));
            assert_eq!(found, Brief::of(text, &classify(text, &names.0, dialect)));
            names.asked() > 0
        };
        assert_eq!([judge(&names, true), judge(&names, true)], [true, false]);
        let later = Counting(Catalog::build(CatalogRows::default(), &Overrides::default()), Cell::default());
        assert_eq!([judge(&later, true), judge(&later, true), judge(&names, true)], [true, false, true]);
        assert_eq!([judge(&names, false), judge(&names, true)], [true, true]);
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
        let kept = slots(&known).filter(|s| s.text.is_some()).count();
        assert_eq!((kept, known.shape.text.as_slice()), (1, &b"select a from t where b = 0"[..]));
    }

    #[test]
    fn a_fingerprint_is_taken_once_of_each_text() {
        let mut statements = ClientStatements::default();
        for (number, text) in [(1, &b"select 1"[..]), (2, b"select a")] {
            statements.set_unnamed(number, text, b"\0\0");
            let (_, findings) = statements.known(b"").unwrap();
            let again = [findings.fingerprint(text), findings.fingerprint(b"not looked at")];
            assert_eq!(again, [fingerprint(text); 2]);
        }
    }

    #[test]
    fn the_text_of_a_prepared_statement_is_judged_once_however_often_it_is_bound() {
        let (mut statements, names) = (ClientStatements::default(), Counting::new());
        let long = format!("{}{}", text(0), " ".repeat(MAX_TEXT));
        statements
            .insert(b"named", Statements::default().intern(long.as_bytes(), b"\0\0", Sense::default()))
            .unwrap();
        statements.set_unnamed(1, long.as_bytes(), b"\0\0");
        statements.bind_text(b"bound", long.as_bytes()).unwrap();
        let known = RefCell::default();
        for name in [&b"named"[..], b"", b"bound"] {
            let mut unit = BytesMut::new();
            (0..1000).for_each(|_| build::bind(&mut unit, b"", name, b"\0\0\0\0\0\0"));
            build::bare(&mut unit, b'S');
            let context = Context {
                names: &names,
                dialect: Dialect::default(),
                statements: &statements,
                known: &known,
            };
            let found = Collector::default().collect(&unit, &context);
            assert!(matches!(found, Collected::Unit(unit) if unit.is_read() && unit.verdict.texts == 1000));
            let asked = names.asked();
            assert!((1..10).contains(&asked), "{asked}");
        }
        statements.set_unnamed(2, b"delete from t", b"\0\0");
        let (text, findings) = statements.known(b"").unwrap();
        let found = findings.brief(&names, Dialect::default(), || {
            Brief::of(text, &classify(text, &names, Dialect::default()))
        });
        assert_ne!(found.access, Access::Read, "it is another text");
    }
}
