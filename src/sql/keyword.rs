//! The words that decide what a statement does, found without folding or allocating.
//!
//! Only words that change a decision are listed. Classes are those of PostgreSQL's
//! `src/include/parser/kwlist.h`: they tell where a word cannot be a name.

use super::scan::eight;

/// A word with a meaning of its own to the classifier; `Other` for the rest of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Other,
    Abort,
    Alter,
    Analyze,
    As,
    Begin,
    By,
    Call,
    Case,
    Character,
    Checkpoint,
    Close,
    Cluster,
    Comment,
    Commit,
    Copy,
    Create,
    Deallocate,
    Declare,
    Delete,
    Discard,
    Distinct,
    Do,
    Drop,
    End,
    Execute,
    Explain,
    Fetch,
    For,
    From,
    Grant,
    Group,
    Grouping,
    Import,
    Insert,
    Into,
    Join,
    JoinKind,
    NoKeyLock,
    Listen,
    Load,
    Lock,
    Materialized,
    Merge,
    Move,
    No,
    Not,
    Notify,
    On,
    Operator,
    Order,
    Ordinality,
    Partition,
    Prepare,
    Reassign,
    Recursive,
    Refresh,
    Reindex,
    Release,
    Reset,
    Revoke,
    Rollback,
    Savepoint,
    Security,
    Select,
    Set,
    Sets,
    Share,
    Show,
    Start,
    Table,
    Temp,
    Time,
    To,
    Truncate,
    Unlisten,
    Update,
    Vacuum,
    Values,
    Varying,
    With,
    Zone,
}

/// Where a word may stand for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Anywhere: no keyword, or one of the unreserved ones.
    Plain,
    /// As Plain, and an expression may follow it.
    Soft,
    /// As a relation or column, not as a function unless behind a schema (`col_name_keyword`).
    Syntax,
    /// As a function, not as a relation (`type_func_name_keyword`).
    TypeFunction,
    /// Only behind AS or a dot.
    Reserved,
}

/// A listed word.
#[derive(Clone, Copy)]
pub(super) struct Keyword {
    text: &'static [u8],
    head: Head,
    pub(super) key: Key,
    pub(super) class: Class,
}

const fn word(text: &'static str, key: Key, class: Class) -> Keyword {
    Keyword { text: text.as_bytes(), head: Head::of(text.as_bytes()), key, class }
}

const fn plain(text: &'static str, key: Key) -> Keyword {
    word(text, key, Class::Plain)
}

const fn soft(text: &'static str, key: Key) -> Keyword {
    word(text, key, Class::Soft)
}

const fn syntax(text: &'static str) -> Keyword {
    word(text, Key::Other, Class::Syntax)
}

const fn type_function(text: &'static str, key: Key) -> Keyword {
    word(text, key, Class::TypeFunction)
}

const fn reserved(text: &'static str, key: Key) -> Keyword {
    word(text, key, Class::Reserved)
}

/// TREAT is missing on purpose: `TREAT(x AS f)` calls the function `f`, so it must stay unknown.
/// So are the words of the standard that resolve to a function of the same name (SUBSTRING,
/// OVERLAY, POSITION, EXTRACT, NORMALIZE, and from 16 on `JSON_*`): they are looked up as such.
static WORDS: &[Keyword] = &[
    plain("abort", Key::Abort),
    plain("alter", Key::Alter),
    reserved("analyse", Key::Analyze),
    reserved("analyze", Key::Analyze),
    reserved("as", Key::As),
    plain("begin", Key::Begin),
    soft("by", Key::By),
    plain("call", Key::Call),
    reserved("case", Key::Case),
    plain("checkpoint", Key::Checkpoint),
    plain("close", Key::Close),
    plain("cluster", Key::Cluster),
    plain("comment", Key::Comment),
    plain("commit", Key::Commit),
    plain("copy", Key::Copy),
    reserved("create", Key::Create),
    plain("deallocate", Key::Deallocate),
    plain("declare", Key::Declare),
    plain("delete", Key::Delete),
    plain("discard", Key::Discard),
    reserved("distinct", Key::Distinct),
    reserved("do", Key::Do),
    plain("drop", Key::Drop),
    reserved("end", Key::End),
    plain("execute", Key::Execute),
    plain("explain", Key::Explain),
    reserved("fetch", Key::Fetch),
    reserved("for", Key::For),
    reserved("from", Key::From),
    reserved("grant", Key::Grant),
    reserved("group", Key::Group),
    word("grouping", Key::Grouping, Class::Syntax),
    plain("import", Key::Import),
    plain("insert", Key::Insert),
    reserved("into", Key::Into),
    type_function("join", Key::Join),
    type_function("inner", Key::JoinKind),
    type_function("left", Key::JoinKind),
    type_function("right", Key::JoinKind),
    type_function("full", Key::JoinKind),
    type_function("outer", Key::JoinKind),
    type_function("cross", Key::JoinKind),
    type_function("natural", Key::JoinKind),
    soft("key", Key::NoKeyLock),
    plain("listen", Key::Listen),
    plain("load", Key::Load),
    plain("lock", Key::Lock),
    plain("materialized", Key::Materialized),
    plain("merge", Key::Merge),
    plain("move", Key::Move),
    plain("no", Key::No),
    reserved("not", Key::Not),
    plain("notify", Key::Notify),
    reserved("on", Key::On),
    plain("operator", Key::Operator),
    reserved("order", Key::Order),
    plain("ordinality", Key::Ordinality),
    soft("partition", Key::Partition),
    plain("prepare", Key::Prepare),
    plain("reassign", Key::Reassign),
    plain("recursive", Key::Recursive),
    plain("refresh", Key::Refresh),
    plain("reindex", Key::Reindex),
    plain("release", Key::Release),
    plain("reset", Key::Reset),
    plain("revoke", Key::Revoke),
    plain("rollback", Key::Rollback),
    plain("savepoint", Key::Savepoint),
    plain("security", Key::Security),
    reserved("select", Key::Select),
    plain("set", Key::Set),
    plain("sets", Key::Sets),
    plain("share", Key::Share),
    plain("show", Key::Show),
    plain("start", Key::Start),
    reserved("table", Key::Table),
    plain("temp", Key::Temp),
    plain("temporary", Key::Temp),
    word("time", Key::Time, Class::Syntax),
    reserved("to", Key::To),
    plain("truncate", Key::Truncate),
    plain("unlisten", Key::Unlisten),
    plain("update", Key::Update),
    plain("vacuum", Key::Vacuum),
    word("values", Key::Values, Class::Syntax),
    reserved("with", Key::With),
    soft("zone", Key::Zone),
    reserved("all", Key::Other),
    reserved("and", Key::Other),
    reserved("any", Key::Other),
    reserved("array", Key::Other),
    reserved("asc", Key::Other),
    reserved("asymmetric", Key::Other),
    reserved("both", Key::Other),
    reserved("cast", Key::Other),
    reserved("check", Key::Other),
    reserved("collate", Key::Other),
    reserved("column", Key::Other),
    reserved("constraint", Key::Other),
    reserved("current_catalog", Key::Other),
    reserved("current_date", Key::Other),
    reserved("current_role", Key::Other),
    reserved("current_time", Key::Other),
    reserved("current_timestamp", Key::Other),
    reserved("current_user", Key::Other),
    reserved("default", Key::Other),
    reserved("deferrable", Key::Other),
    reserved("desc", Key::Other),
    reserved("else", Key::Other),
    reserved("except", Key::Other),
    reserved("false", Key::Other),
    reserved("foreign", Key::Other),
    reserved("having", Key::Other),
    reserved("in", Key::Other),
    reserved("initially", Key::Other),
    reserved("intersect", Key::Other),
    reserved("lateral", Key::Other),
    reserved("leading", Key::Other),
    reserved("limit", Key::Other),
    reserved("localtime", Key::Other),
    reserved("localtimestamp", Key::Other),
    reserved("null", Key::Other),
    reserved("offset", Key::Other),
    reserved("only", Key::Other),
    reserved("or", Key::Other),
    reserved("placing", Key::Other),
    reserved("primary", Key::Other),
    reserved("references", Key::Other),
    reserved("returning", Key::Other),
    reserved("session_user", Key::Other),
    reserved("some", Key::Other),
    reserved("symmetric", Key::Other),
    reserved("then", Key::Other),
    reserved("trailing", Key::Other),
    reserved("true", Key::Other),
    reserved("union", Key::Other),
    reserved("unique", Key::Other),
    reserved("user", Key::Other),
    reserved("using", Key::Other),
    reserved("variadic", Key::Other),
    reserved("when", Key::Other),
    reserved("where", Key::Other),
    reserved("window", Key::Other),
    syntax("between"),
    syntax("bigint"),
    word("bit", Key::Character, Class::Syntax),
    syntax("boolean"),
    word("char", Key::Character, Class::Syntax),
    word("character", Key::Character, Class::Syntax),
    syntax("coalesce"),
    syntax("dec"),
    syntax("decimal"),
    syntax("exists"),
    syntax("float"),
    syntax("greatest"),
    syntax("inout"),
    syntax("int"),
    syntax("integer"),
    syntax("interval"),
    syntax("least"),
    syntax("national"),
    word("nchar", Key::Character, Class::Syntax),
    syntax("none"),
    syntax("nullif"),
    syntax("numeric"),
    syntax("out"),
    syntax("precision"),
    syntax("real"),
    syntax("row"),
    syntax("setof"),
    syntax("smallint"),
    syntax("timestamp"),
    syntax("trim"),
    syntax("varchar"),
    syntax("xmlattributes"),
    syntax("xmlconcat"),
    syntax("xmlelement"),
    syntax("xmlexists"),
    syntax("xmlforest"),
    syntax("xmlnamespaces"),
    syntax("xmlparse"),
    syntax("xmlpi"),
    syntax("xmlroot"),
    syntax("xmlserialize"),
    syntax("xmltable"),
    type_function("ilike", Key::Other),
    type_function("is", Key::Other),
    type_function("like", Key::Other),
    type_function("similar", Key::Other),
    soft("columns", Key::Other),
    soft("content", Key::Other),
    soft("document", Key::Other),
    soft("escape", Key::Other),
    soft("first", Key::Other),
    soft("groups", Key::Other),
    soft("name", Key::Other),
    soft("next", Key::Other),
    soft("passing", Key::Other),
    soft("path", Key::Other),
    soft("range", Key::Other),
    soft("ref", Key::Other),
    soft("rows", Key::Other),
    soft("second", Key::Other),
    soft("standalone", Key::Other),
    soft("value", Key::Other),
    soft("varying", Key::Varying),
    soft("version", Key::Other),
];

const SLOTS: usize = 1024;
const EMPTY: u8 = u8::MAX;

/// Longest word in the list.
const LONGEST: usize = 17;

/// By the lower five bits of a first letter, the lengths of the words that start with it.
static LENGTHS: [u32; 32] = {
    let mut lengths = [0; 32];
    let mut n = 0;
    while n < WORDS.len() {
        lengths[WORDS[n].text[0] as usize & 0x1f] |= 1 << WORDS[n].text.len();
        n += 1;
    }
    lengths
};

/// Word numbers by hash, with linear probing; made at compile time.
static TABLE: [u8; SLOTS] = table();

const fn table() -> [u8; SLOTS] {
    assert!(WORDS.len() < EMPTY as usize);
    let mut slots = [EMPTY; SLOTS];
    let mut n = 0;
    while n < WORDS.len() {
        assert!(WORDS[n].text.len() <= LONGEST);
        let mut slot = WORDS[n].head.hash(WORDS[n].text.len());
        while slots[slot] != EMPTY {
            slot = (slot + 1) % SLOTS;
        }
        slots[slot] = n as u8;
        n += 1;
    }
    slots
}

/// A word's first 16 bytes without regard to case, which is the sixth bit of a letter; the other bytes of keywords
/// and whatever differs from them in that bit alone do not both occur in words.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Head {
    low: u64,
    high: u64,
}

impl Head {
    #[inline(always)]
    const fn folded(low: u64, high: u64, length: usize) -> Self {
        const LOWER: u64 = u64::from_le_bytes([0x20; 8]);
        Self {
            low: (low | LOWER) & first_bytes(length),
            high: (high | LOWER) & first_bytes(length.saturating_sub(8)),
        }
    }

    const fn of(text: &[u8]) -> Self {
        let mut halves = [[0; 8]; 2];
        let mut at = 0;
        while at < text.len() && at < 16 {
            halves[at / 8][at % 8] = text[at];
            at += 1;
        }
        Self::folded(u64::from_le_bytes(halves[0]), u64::from_le_bytes(halves[1]), text.len())
    }

    #[inline(always)]
    const fn hash(self, length: usize) -> usize {
        let mixed =
            (self.low ^ self.high.rotate_left(29) ^ length as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 54) as usize
    }
}

/// A mask for that many bytes, the first one lowest.
#[inline(always)]
const fn first_bytes(length: usize) -> u64 {
    match length {
        0 => 0,
        1..8 => u64::MAX >> (64 - 8 * length),
        _ => u64::MAX,
    }
}

/// The keyword that the unquoted word from `start` to `end` is, whatever its case.
#[inline]
pub(super) fn keyword(text: &[u8], start: usize, end: usize) -> Option<Keyword> {
    let length = end - start;
    if length > LONGEST {
        return None;
    }
    let first = usize::from(*text.get(start)? & 0x1f);
    // Most names part from all keywords here.
    if LENGTHS.get(first)? >> length & 1 == 0 {
        return None;
    }
    let high = if length > 8 { eight(text, start + 8) } else { 0 };
    let head = Head::folded(eight(text, start), high, length);
    let mut slot = head.hash(length);
    loop {
        let found = WORDS.get(usize::from(*TABLE.get(slot)?))?;
        if found.head == head && found.text.len() == length {
            // The one word that is longer than its head.
            let whole = length <= 16 || found.text.eq_ignore_ascii_case(text.get(start..end)?);
            return whole.then_some(*found);
        }
        slot = (slot + 1) % SLOTS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_found_in_any_case() {
        for word in WORDS {
            let text = [b"x ", &*word.text.to_ascii_uppercase(), b"\xff"].concat();
            let found = keyword(&text, 2, 2 + word.text.len()).unwrap();
            assert_eq!(found.text, word.text);
        }
    }

    #[test]
    fn other_words_are_not_found() {
        for word in [
            "",
            "a",
            "selec",
            "selects",
            "updated_at",
            "nextval",
            "treat",
            "\u{e9}t\u{e9}",
            "current_timestamq",
            "as\x7f",
        ] {
            assert!(keyword(word.as_bytes(), 0, word.len()).is_none(), "{word}");
        }
    }

    #[test]
    fn words_are_spread_out() {
        // Probing stays short: no run of taken slots is longer than a handful.
        let longest = TABLE.split(|&slot| slot == EMPTY).map(<[u8]>::len).max().unwrap();
        assert!(longest <= 12, "{longest}");
    }
}
