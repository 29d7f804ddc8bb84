//! Run-time parameters: what a session has set, and how a server is made to have the same.

use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use foldhash::fast::FixedState;

use super::date_style::DateStyle;
use crate::sql::hides_ascii;

/// The most parameters that a session may set before it is bound to one server instead.
pub const MAX_ENTRIES: usize = 256;

/// The most bytes of SQL that those may take.
pub const MAX_BYTES: usize = 64 * 1024;

/// The one parameter of which a statement may set a part.
const DATE_STYLE: &str = "datestyle";

/// One parameter's setting.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    /// Lower case.
    name: Box<str>,
    /// A statement that sets it.
    sql: Box<[u8]>,
    /// The value without quotes, for the few parameters that we ask for.
    value: Box<[u8]>,
}

impl Entry {
    fn is_scanned_by(&self) -> bool {
        SCANS_BY.contains(&&*self.name)
    }

    fn is_read_by(&self) -> bool {
        self.is_scanned_by() || READS_BY.contains(&&*self.name)
    }
}

/// The parameters of a session, or those in force on a server connection.
///
/// Values are kept as the statements which set them, because only those mean the same on every
/// server: `SET search_path TO a, b` and `set_config('search_path', 'a, b', false)` quote differently.
#[derive(Clone, Debug, Default)]
pub struct SettingsMap {
    entries: Vec<Entry>,
    hash: u64,
    plan_key: u64,
    reading_key: u64,
    marks: Marks,
}

/// What is asked of the settings at every unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// `standard_conforming_strings` is off.
    pub escaped_strings: bool,
    /// `client_encoding` is one in which a quote may be part of a character.
    pub hides_ascii: bool,
    /// `default_transaction_read_only` is on.
    pub read_only: bool,
    /// `default_transaction_isolation` is serializable.
    pub serializable: bool,
    /// `idle_session_timeout`, unless it is 0.
    pub idle_timeout: Option<Duration>,
}

impl PartialEq for SettingsMap {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.entries == other.entries
    }
}

impl Eq for SettingsMap {}

/// Settings that change nothing about what a statement means.
const MEANS_NOTHING: [&str; 6] = [
    "application_name",
    "client_min_messages",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "lock_timeout",
    "statement_timeout",
];

/// Settings by which a server reads a statement's text, once, when it parses it (`raw_parser`).
const SCANS_BY: [&str; 3] = ["backslash_quote", "client_encoding", "standard_conforming_strings"];

/// Settings by which it then reads literals and operators: once, too, but anew when names may mean something else, as after
/// `search_path` has changed (`RevalidateCachedQuery` in `utils/cache/plancache.c`).
const READS_BY: [&str; 8] = [
    "array_nulls",
    DATE_STYLE,
    "intervalstyle",
    "lc_monetary",
    "timezone",
    "timezone_abbreviations",
    "transform_null_equals",
    "xmloption",
];

const SEARCH_PATH: &str = "search_path";

/// The map is full: see [`MAX_ENTRIES`] and [`MAX_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl SettingsMap {
    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is asked at every unit.
    #[must_use]
    pub fn marks(&self) -> Marks {
        self.marks
    }

    /// A number that two maps of equal content share.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The value of a parameter, without its quotes; `name` in lower case.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        self.entry(name).map(|entry| &*entry.value)
    }

    /// Sets a parameter by the statement `sql`. `name` in lower case.
    ///
    /// # Errors
    /// The map is full.
    pub fn set(&mut self, name: &str, sql: &[u8], value: &[u8]) -> Result<(), Full> {
        if name == DATE_STYLE {
            return self.set_date_style(sql, value);
        }
        self.put(name, sql, unquote(value))
    }

    /// `datestyle` is two settings in one: what a statement does not say, stays. The entry says all that is known.
    fn set_date_style(&mut self, sql: &[u8], value: &[u8]) -> Result<(), Full> {
        let before = self.value(DATE_STYLE).map(DateStyle::read).unwrap_or_default();
        let after = before.then(DateStyle::read(value));
        let text = after.to_text();
        // What we cannot read, the server will; then it stands alone.
        let stands = text.is_empty();
        let written =
            if stands { sql.to_vec() } else { format!("SET {DATE_STYLE} TO '{text}'").into_bytes() };
        self.put(DATE_STYLE, &written, if stands { value } else { text.as_bytes() })
    }

    fn put(&mut self, name: &str, sql: &[u8], value: &[u8]) -> Result<(), Full> {
        let entry = Entry { name: name.into(), sql: sql.into(), value: value.into() };
        if self.bytes() + sql.len() + value.len() > MAX_BYTES {
            return Err(Full);
        }
        match self.find(name) {
            Ok(at) => self.entries[at] = entry,
            Err(_) if self.entries.len() >= MAX_ENTRIES => return Err(Full),
            Err(at) => self.entries.insert(at, entry),
        }
        self.rehash();
        Ok(())
    }

    /// Sets a parameter as a startup packet does: the value is read as in a configuration file.
    ///
    /// # Errors
    /// The map is full.
    pub fn set_startup(&mut self, name: &str, value: &[u8]) -> Result<(), Full> {
        let sql = match self.value("client_encoding") {
            Some(encoding) if self.marks.hides_ascii && !value.is_ascii() && encoding.is_ascii() => {
                // A quote or backslash in it may be part of a character; and the statement may be read by another
                // encoding than this one.
                let mut text = b"pg_catalog.convert_from(pg_catalog.decode('".to_vec();
                for byte in value {
                    text.extend_from_slice(format!("{byte:02x}").as_bytes());
                }
                text.extend_from_slice(b"','hex'),");
                quote_literal(encoding, &mut text);
                text.push(b')');
                set_config_to(name, &text)
            }
            _ => set_config(name, value),
        };
        self.set(&name.to_ascii_lowercase(), &sql, value)
    }

    /// Takes a parameter's setting away.
    pub fn reset(&mut self, name: &str) {
        if let Ok(at) = self.find(name) {
            self.entries.remove(at);
            self.rehash();
        }
    }

    /// Copies the setting of `name` from `base`, or takes it away if `base` has none.
    ///
    /// # Errors
    /// The map is full.
    pub fn reset_to(&mut self, name: &str, base: &Self) -> Result<(), Full> {
        match base.entry(name) {
            Some(entry) => self.set(name, &entry.sql, &entry.value),
            None => {
                self.reset(name);
                Ok(())
            }
        }
    }

    /// Appends the statements, separated by semicolons, that turn a server which has `self` into
    /// one which has `target`; nothing if there is no difference.
    ///
    /// The parameters `role` and `session_authorization` come last when set and first when reset,
    /// since they decide who may set the others.
    pub fn difference(&self, target: &Self, sql: &mut Vec<u8>) {
        if self.hash == target.hash && self.entries == target.entries {
            return;
        }
        let gone = |entry: &&Entry| target.find(&entry.name).is_err();
        let new = |entry: &&Entry| match self.find(&entry.name) {
            Ok(at) => self.entries.get(at).is_none_or(|old| old.sql != entry.sql),
            Err(_) => true,
        };
        if self.marks.serializable {
            // The statements that follow are one transaction, and no standby takes a serializable one.
            sql.extend_from_slice(b"SET TRANSACTION ISOLATION LEVEL READ COMMITTED;");
        }
        for identity in ["role", "session_authorization"] {
            if self.find(identity).is_ok() {
                push_reset(identity, sql);
            }
        }
        for entry in self.entries.iter().filter(gone).filter(|e| !is_identity(&e.name)) {
            push_reset(&entry.name, sql);
        }
        if self.find(DATE_STYLE).is_ok() && target.entries.iter().filter(new).any(|e| *e.name == *DATE_STYLE)
        {
            // Of the one that is there nothing may be left.
            push_reset(DATE_STYLE, sql);
        }
        for entry in target.entries.iter().filter(new).filter(|e| !is_identity(&e.name)) {
            push_statement(&entry.sql, sql);
        }
        for identity in ["session_authorization", "role"] {
            if let Some(entry) = target.entry(identity) {
                push_statement(&entry.sql, sql);
            }
        }
    }

    /// Whether a parameter of type boolean is on.
    #[must_use]
    pub fn is_on(&self, name: &str) -> bool {
        // As `parse_bool_with_len` in PostgreSQL's `utils/adt/bool.c`: any unique prefix.
        self.value(name).is_some_and(|value| {
            let value = value.to_ascii_lowercase();
            value == b"1"
                || value == b"on"
                || (!value.is_empty() && (b"true".starts_with(&value) || b"yes".starts_with(&value)))
        })
    }

    /// A number that stands for the settings which change what a statement means: by its names, by its literals, which
    /// PostgreSQL reads when it parses the statement, or by the plan that is made then.
    #[must_use]
    pub fn plan_key(&self) -> u64 {
        self.plan_key
    }

    /// A number that stands for the settings by which a server reads statements when it parses them.
    #[must_use]
    pub fn reading_key(&self) -> u64 {
        self.reading_key
    }

    /// Those by which a server reads a statement when it parses it, and what says when it reads it anew.
    #[must_use]
    pub fn reading(&self) -> Self {
        Self::of(self.entries.iter().filter(|entry| entry.is_read_by() || *entry.name == *SEARCH_PATH))
    }

    /// These, but statements are read as one is that was parsed by those settings ([`Self::reading`]), when it is run by these.
    #[must_use]
    pub fn reading_as(&self, then: &Self) -> Self {
        let anew = self.entry(SEARCH_PATH) != then.entry(SEARCH_PATH);
        let is_of_then = |entry: &&Entry| if anew { entry.is_scanned_by() } else { entry.is_read_by() };
        let of_now = self.entries.iter().filter(|entry| !is_of_then(entry));
        Self::of(of_now.chain(then.entries.iter().filter(is_of_then)))
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        self.find(name).ok().and_then(|at| self.entries.get(at))
    }

    /// How many bytes its statements and values take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.entries.iter().map(|e| e.sql.len() + e.value.len()).sum()
    }

    fn of<'a>(entries: impl Iterator<Item = &'a Entry>) -> Self {
        let mut entries: Vec<_> = entries.cloned().collect();
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let mut map = Self { entries, ..Self::default() };
        map.rehash();
        map
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| (*entry.name).cmp(name))
    }

    fn rehash(&mut self) {
        let number = |entries: &mut dyn Iterator<Item = &Entry>| {
            let mut hasher = FixedState::default().build_hasher();
            let mut any = false;
            for entry in entries {
                any = true;
                hasher.write(entry.name.as_bytes());
                hasher.write_u8(0);
                // The whole statement: without its quotes, a value may mean something else.
                hasher.write(&entry.sql);
                hasher.write_u8(0);
            }
            if any { hasher.finish() } else { 0 }
        };
        self.hash = number(&mut self.entries.iter());
        self.plan_key =
            number(&mut self.entries.iter().filter(|entry| !MEANS_NOTHING.contains(&&*entry.name)));
        self.reading_key = number(&mut self.entries.iter().filter(|entry| entry.is_read_by()));
        let strings = "standard_conforming_strings";
        self.marks = Marks {
            escaped_strings: self.value(strings).is_some() && !self.is_on(strings),
            hides_ascii: self.value("client_encoding").is_some_and(hides_ascii),
            read_only: self.is_on("default_transaction_read_only"),
            serializable: self
                .value("default_transaction_isolation")
                .is_some_and(|v| v.eq_ignore_ascii_case(b"serializable")),
            idle_timeout: self.value("idle_session_timeout").and_then(milliseconds).filter(|t| !t.is_zero()),
        };
    }
}

/// A duration as PostgreSQL reads it where the unit is milliseconds (`parse_int` in `utils/misc/guc.c`).
fn milliseconds(value: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" | "ms" => 1e-3,
        "us" => 1e-6,
        "s" => 1.0,
        "min" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * factor).ok()
}

fn is_identity(name: &str) -> bool {
    matches!(name, "role" | "session_authorization")
}

fn push_reset(name: &str, sql: &mut Vec<u8>) {
    sql.extend_from_slice(b"RESET \"");
    for &byte in name.as_bytes() {
        if byte == b'"' {
            sql.push(b'"');
        }
        sql.push(byte);
    }
    sql.extend_from_slice(b"\";");
}

fn push_statement(statement: &[u8], sql: &mut Vec<u8>) {
    sql.extend_from_slice(statement);
    // A statement kept from a client's text may end in a line comment.
    sql.extend_from_slice(b"\n;");
}

/// The statement that sets a parameter to a value which is not written as SQL.
#[must_use]
pub fn set_config(name: &str, value: &[u8]) -> Vec<u8> {
    let mut literal = Vec::new();
    quote_literal(value, &mut literal);
    set_config_to(name, &literal)
}

fn set_config_to(name: &str, expression: &[u8]) -> Vec<u8> {
    let mut sql = b"SELECT pg_catalog.set_config(".to_vec();
    quote_literal(name.as_bytes(), &mut sql);
    sql.push(b',');
    sql.extend_from_slice(expression);
    sql.extend_from_slice(b",false)");
    sql
}

/// Writes a string literal that means the same whatever `standard_conforming_strings` says.
pub fn quote_literal(text: &[u8], sql: &mut Vec<u8>) {
    sql.extend_from_slice(b"E'");
    for &byte in text {
        if byte == b'\'' || byte == b'\\' {
            sql.push(byte);
        }
        sql.push(byte);
    }
    sql.push(b'\'');
}

/// A parameter's name as we keep it: without quotes, in lower case (`guc_name_compare` folds ASCII).
#[must_use]
pub fn fold_name(name: &[u8]) -> String {
    String::from_utf8_lossy(name).replace('"', "").to_ascii_lowercase()
}

fn unquote(value: &[u8]) -> &[u8] {
    match value {
        [b'\'', inner @ .., b'\''] | [b'"', inner @ .., b'"'] => inner,
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn sql(from: &SettingsMap, to: &SettingsMap) -> String {
        let mut sql = Vec::new();
        from.difference(to, &mut sql);
        String::from_utf8(sql).unwrap()
    }

    #[test]
    fn a_server_gets_only_the_difference() {
        let mut old = SettingsMap::default();
        old.set("geqo", b"SET geqo TO off", b"off").unwrap();
        old.set("work_mem", b"SET work_mem = '1MB'", b"'1MB'").unwrap();
        let mut new = old.clone();
        assert_eq!(sql(&old, &new), "");
        new.reset("geqo");
        new.set("work_mem", b"SET work_mem = '2MB'", b"'2MB'").unwrap();
        assert_eq!(sql(&old, &new), "RESET \"geqo\";SET work_mem = '2MB'\n;");
    }

    #[test]
    fn the_role_comes_last_and_goes_first() {
        let mut with = SettingsMap::default();
        with.set("role", b"SET ROLE bob", b"bob").unwrap();
        with.set("work_mem", b"SET work_mem='1MB'", b"'1MB'").unwrap();
        let without = SettingsMap::default();
        assert_eq!(sql(&without, &with), "SET work_mem='1MB'\n;SET ROLE bob\n;");
        assert_eq!(sql(&with, &without), "RESET \"role\";RESET \"work_mem\";");
    }

    #[test]
    fn a_startup_value_cannot_end_its_literal() {
        let mut map = SettingsMap::default();
        map.set_startup("application_name", br"x\' OR '").unwrap();
        assert_eq!(
            sql(&SettingsMap::default(), &map),
            "SELECT pg_catalog.set_config(E'application_name',E'x\\\\'' OR ''',false)\n;"
        );
    }

    #[test]
    fn a_map_takes_so_much_and_no_more() {
        let mut map = SettingsMap::default();
        for n in 0..MAX_ENTRIES {
            map.set(&format!("a.b{n:04}"), b"SET", b"").unwrap();
        }
        assert_eq!(map.set("a.c", b"SET", b""), Err(Full));
        assert_eq!(map.set("a.b0000", b"SET x", b""), Ok(()));
        assert_eq!(SettingsMap::default().set("x", &vec![b'x'; MAX_BYTES + 1], b""), Err(Full));
    }

    #[test]
    fn a_statement_is_read_as_it_was_when_it_was_parsed() {
        let map = |pairs: &[(&str, &str)]| {
            let mut map = SettingsMap::default();
            for (name, value) in pairs {
                map.set(name, format!("SET {name} TO {value}").as_bytes(), value.as_bytes()).unwrap();
            }
            map
        };
        let then = map(&[("timezone", "utc"), ("work_mem", "1"), ("standard_conforming_strings", "off")]);
        let kept = map(&[("timezone", "utc"), ("standard_conforming_strings", "off")]);
        assert_eq!(then.reading(), kept);
        assert_eq!(then.reading_key(), kept.reading_key());
        let now = map(&[("xmloption", "content"), ("work_mem", "2"), ("timezone", "cet")]);
        assert_ne!(now.reading_key(), then.reading_key());
        let read = map(&[("work_mem", "2"), ("timezone", "utc"), ("standard_conforming_strings", "off")]);
        assert_eq!(now.reading_as(&then.reading()), read);
        assert_eq!(now.reading_as(&now.reading()), now);
        assert_eq!(map(&[("work_mem", "2")]).reading_key(), 0);
        // Names may mean something else: all but the scan of the text is done anew.
        let now = map(&[("search_path", "b"), ("timezone", "cet")]);
        let read = map(&[("search_path", "b"), ("timezone", "cet"), ("standard_conforming_strings", "off")]);
        assert_eq!(now.reading_as(&then.reading()), read);
        let then = map(&[("search_path", "b"), ("timezone", "utc"), ("work_mem", "1")]);
        let read = map(&[("search_path", "b"), ("timezone", "utc")]);
        assert_eq!(now.reading_as(&then.reading()), read);
    }

    #[test]
    fn booleans_are_read_as_postgres_reads_them() {
        let mut map = SettingsMap::default();
        for (value, on) in [
            ("on", true),
            ("'TRUE'", true),
            ("y", true),
            ("1", true),
            ("off", false),
            ("", false),
            ("o", false),
        ] {
            map.set("x", b"SET", value.as_bytes()).unwrap();
            assert_eq!(map.is_on("x"), on, "{value}");
        }
    }

    proptest! {
        /// A toy server runs the statements of `difference`; it must end with the target's settings.
        #[test]
        fn the_difference_leads_from_one_map_to_the_other(
            from in proptest::collection::btree_map("[a-d]|role", "[0-3]", 0..6),
            to in proptest::collection::btree_map("[a-d]|role", "[0-3]", 0..6),
        ) {
            let build = |pairs: &BTreeMap<String, String>| {
                let mut map = SettingsMap::default();
                for (name, value) in pairs {
                    map.set(name, format!("SET {name} {value}").as_bytes(), value.as_bytes()).unwrap();
                }
                map
            };
            let mut server = from.clone();
            for statement in sql(&build(&from), &build(&to)).split(';').map(str::trim).filter(|s| !s.is_empty()) {
                let words: Vec<_> = statement.split(' ').collect();
                match words[..] {
                    ["RESET", name] => { server.remove(name.trim_matches('"')); }
                    ["SET", name, value] => { server.insert(name.into(), value.into()); }
                    _ => prop_assert!(false, "unexpected {}", statement),
                }
            }
            prop_assert_eq!(server, to);
        }
    }
}
