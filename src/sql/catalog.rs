//! One database's names: what its functions, relations and operators mean to a replica.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::FixedState;

use super::builtin;
use super::filter::Filter;
use super::fold::{LONGEST, clip};
use super::names::{Names, Verdict};

/// Reads a database's catalog: rows `(kind text, name text)` for [`CatalogRows::push`].
///
/// Runs on any primary from 13 on, for any role that may read the system catalogs.
pub const CATALOG_QUERY: &str = include_str!("catalog_query.sql");

/// One row with one `bigint`: a counter that moves when the answer of [`CATALOG_QUERY`] may have
/// changed. It lags by up to a second (statistics), and moves for temporary tables too.
pub const CHANGE_COUNTER_QUERY: &str = include_str!("change_counter_query.sql");

/// How many names a catalog keeps. Beyond it every name that it does not know is unsafe.
const NAMES_LIMIT: usize = 200_000;

const FUNCTION: u8 = 1;
const RELATION: u8 = 2;
const OPERATOR: u8 = 4;
const SETS: u8 = 8;
const BINDS: u8 = 16;
const HIDES: u8 = 32;

type Name = Box<[u8]>;

/// The rows of [`CATALOG_QUERY`], as far as they are kept.
#[derive(Clone, Debug, Default)]
pub struct CatalogRows {
    system_relations: Vec<u32>,
    safe_functions: HashSet<Name, FixedState>,
    special: HashMap<Name, u8, FixedState>,
    overflow: bool,
}

impl CatalogRows {
    /// Adds a row. A kind that is not known (of a later version's query) is taken for every kind
    /// of danger at once.
    pub fn push(&mut self, kind: &str, name: &str) {
        if self.safe_functions.len() + self.special.len() >= NAMES_LIMIT {
            self.overflow = true;
            return;
        }
        if kind == "system_relation" {
            self.system_relations.extend(name.parse::<u32>());
            return;
        }
        let name: Name = clip(name.as_bytes()).into();
        let bits = match kind {
            "safe_function" => {
                self.safe_functions.insert(name);
                return;
            }
            "unsafe_function" => FUNCTION,
            "unsafe_relation" => RELATION,
            "unsafe_operator" => OPERATOR,
            "setting_function" => SETS,
            "binding_function" => BINDS,
            "hiding_relation" => HIDES,
            _ => FUNCTION | RELATION | OPERATOR | SETS | BINDS | HIDES,
        };
        *self.special.entry(name).or_default() |= bits;
    }

    /// The oids of PostgreSQL's own relations that are unsafe: the parameter of later queries on the same connection.
    #[must_use]
    pub fn system_relations(&self) -> &[u32] {
        &self.system_relations
    }
}

/// What the configuration says about names, each `name` or `schema.name`; the schema is not
/// looked at. Names fold to lower case unless in double quotes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Functions that may run on a replica, whatever the catalog says.
    pub safe_functions: Vec<String>,
    /// Functions that may not.
    pub primary_functions: Vec<String>,
    /// Relations that replicas must not answer for.
    pub primary_relations: Vec<String>,
}

/// A database's names. Lookups neither allocate nor lock.
#[derive(Clone, Debug)]
pub struct Catalog {
    version: u64,
    standing: Standing,
    /// Safe whatever else is known.
    trusted: Arc<HashSet<Name, FixedState>>,
    /// User functions of which every candidate is safe.
    safe_functions: Arc<HashSet<Name, FixedState>>,
    /// Names of which some object is unsafe, and as what.
    special: Arc<HashMap<Name, u8, FixedState>>,
    /// Lets most names that are not special pass without a lookup.
    filter: Arc<Filter>,
    /// Operators are in every statement, unsafe ones in few databases.
    operators: bool,
    /// Some special relation's name goes beyond ASCII: then it cannot be told apart from others
    /// that come in another encoding.
    wide_relations: bool,
    /// Names had to be left out.
    overflow: bool,
}

/// The version of a catalog that knows PostgreSQL's own names alone.
const BUILTIN: u64 = 1;

/// The version of one that has not been read.
const UNREAD: u64 = 2;

/// Tells the versions of all others apart.
static VERSIONS: AtomicU64 = AtomicU64::new(UNREAD + 1);

/// How far what a catalog knows can be gone by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It is so.
    Holds,
    /// It has not been read.
    Unread,
    /// It was so before a change: it still tells of functions that they change settings, and no more.
    Changing,
}

/// Operators that are taken to be PostgreSQL's own while nothing is known.
const COMMON_OPERATORS: [&[u8]; 13] =
    [b"=", b"<", b">", b"<=", b">=", b"<>", b"!=", b"+", b"-", b"*", b"/", b"%", b"||"];

impl Default for Catalog {
    fn default() -> Self {
        Self::builtin()
    }
}

impl Catalog {
    /// What is known of a database before its catalog has been read: nothing. Any name may stand for something that
    /// replicas must not answer for, PostgreSQL's own functions included, which users may overload.
    #[must_use]
    pub fn unread() -> Self {
        Self { version: UNREAD, standing: Standing::Unread, ..Self::builtin() }
    }

    /// What is known of a database whose definitions have changed since this was read: as good as nothing.
    #[must_use]
    pub fn changing(&self) -> Self {
        match self.standing {
            Standing::Unread => self.clone(),
            Standing::Holds | Standing::Changing => Self {
                version: VERSIONS.fetch_add(1, Ordering::Relaxed),
                standing: Standing::Changing,
                ..self.clone()
            },
        }
    }

    /// PostgreSQL's own names alone, as in a database without objects.
    #[must_use]
    pub fn builtin() -> Self {
        Self {
            version: BUILTIN,
            standing: Standing::Holds,
            trusted: Arc::default(),
            safe_functions: Arc::default(),
            special: Arc::default(),
            filter: Arc::default(),
            operators: false,
            wide_relations: false,
            overflow: false,
        }
    }

    /// The catalog of a database, as the configuration corrects it.
    #[must_use]
    pub fn build(rows: CatalogRows, overrides: &Overrides) -> Self {
        let CatalogRows { safe_functions, mut special, overflow, .. } = rows;
        for name in &overrides.primary_functions {
            *special.entry(last_part(name)).or_default() |= FUNCTION;
        }
        for name in &overrides.primary_relations {
            *special.entry(last_part(name)).or_default() |= RELATION;
        }
        let forced: HashSet<Name> = overrides.primary_functions.iter().map(|name| last_part(name)).collect();
        let trusted = overrides
            .safe_functions
            .iter()
            .map(|name| last_part(name))
            // Asked for both, the careful answer counts.
            .filter(|name| !forced.contains(name))
            .collect();
        let wide_relations = special.iter().any(|(name, bits)| bits & RELATION != 0 && !name.is_ascii());
        let operators = special.values().any(|bits| bits & OPERATOR != 0);
        Self {
            version: VERSIONS.fetch_add(1, Ordering::Relaxed),
            standing: Standing::Holds,
            trusted: Arc::new(trusted),
            safe_functions: Arc::new(safe_functions),
            filter: Arc::new(Filter::of(special.keys().map(|name| &**name))),
            special: Arc::new(special),
            operators,
            wide_relations,
            overflow,
        }
    }

    /// How many names are known beside PostgreSQL's own.
    #[must_use]
    pub fn len(&self) -> usize {
        self.safe_functions.len() + self.special.len()
    }

    /// Whether nothing is known beside PostgreSQL's own names.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the database has more names than are kept.
    #[must_use]
    pub const fn overflowed(&self) -> bool {
        self.overflow
    }

    #[inline]
    fn is_unread(&self) -> bool {
        self.standing != Standing::Holds
    }

    #[inline]
    fn is_special(&self, name: &[u8], bit: u8) -> bool {
        self.filter.may_have(name) && self.special.get(name).is_some_and(|bits| bits & bit != 0)
    }

    #[inline]
    fn is_trusted(&self, name: &[u8]) -> bool {
        !self.trusted.is_empty() && self.trusted.contains(name)
    }
}

impl Names for Catalog {
    fn version(&self) -> u64 {
        self.version
    }

    fn function(&self, name: &[u8]) -> Verdict {
        if self.is_trusted(name) {
            return Verdict::Safe;
        }
        if self.is_unread() {
            return Verdict::Unknown;
        }
        if self.is_special(name, FUNCTION) {
            return Verdict::Unsafe;
        }
        match builtin::function(name) {
            // An unsafe function of the user's may be among the names that were left out.
            Verdict::Safe if self.overflow => Verdict::Unsafe,
            Verdict::Unknown if self.safe_functions.contains(name) && !self.overflow => Verdict::Safe,
            verdict => verdict,
        }
    }

    fn relation(&self, name: &[u8]) -> Verdict {
        let wide = self.wide_relations && !name.is_ascii();
        let unread = self.is_unread() && !name.starts_with(b"pg_");
        let special = self.overflow || wide || unread || self.is_special(name, RELATION);
        if special || builtin::is_server_relation(name) { Verdict::Unsafe } else { Verdict::Safe }
    }

    fn sets(&self, name: &[u8]) -> bool {
        self.is_special(name, SETS)
    }

    fn binds(&self, name: &[u8]) -> bool {
        self.is_special(name, BINDS) && !self.is_trusted(name)
    }

    fn hides(&self, name: &[u8]) -> bool {
        self.is_special(name, HIDES)
    }

    fn may_be_new(&self, name: &[u8]) -> bool {
        let known = || self.safe_functions.contains(name) || self.is_special(name, FUNCTION);
        self.standing != Standing::Holds && !known() && builtin::function(name) == Verdict::Unknown
    }

    fn is_users(&self, name: &[u8]) -> bool {
        self.is_special(name, FUNCTION)
    }

    fn knows_users(&self) -> bool {
        self.version > UNREAD
    }

    fn is_plain(&self, word: &[u8]) -> bool {
        // Beyond ASCII, and where names are cut, a look at the ends does not do.
        let simple = word.len() < LONGEST && !self.overflow && !self.wide_relations && !self.is_unread();
        simple && !builtin::may_be_server_relation(word) && !self.filter.may_have(word)
    }

    fn is_plain_attribute(&self, word: &[u8]) -> bool {
        self.is_plain(word) && !builtin::may_be_unsafe(word)
    }

    fn attribute(&self, name: &[u8]) -> Verdict {
        // `(1::bigint).pg_advisory_lock` takes the lock, so PostgreSQL's own functions count too.
        let unread = self.is_unread() && !self.is_trusted(name);
        let special = self.is_special(name, FUNCTION) && !self.is_trusted(name);
        if special || unread || builtin::function(name) == Verdict::Unsafe {
            Verdict::Unsafe
        } else {
            Verdict::Safe
        }
    }

    fn operator(&self, symbol: &[u8]) -> Verdict {
        if self.is_unread() {
            let common = COMMON_OPERATORS.contains(&symbol);
            return if common { Verdict::Safe } else { Verdict::Unsafe };
        }
        if !self.operators && !self.overflow {
            return Verdict::Safe;
        }
        // The two spellings are one operator to PostgreSQL.
        let symbol = if symbol == b"!=" { b"<>" } else { symbol };
        if self.overflow || self.is_special(symbol, OPERATOR) { Verdict::Unsafe } else { Verdict::Safe }
    }
}

/// The last part of a name out of the configuration, folded as PostgreSQL folds it.
fn last_part(name: &str) -> Name {
    let name = name.trim();
    if let Some(inner) = name.strip_suffix('"') {
        let start = inner.rfind('"').map_or(0, |at| at + 1);
        return clip(inner.get(start..).unwrap_or("").as_bytes()).into();
    }
    let last = name.rsplit('.').next().unwrap_or(name);
    clip(last.trim().to_ascii_lowercase().as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog(rows: &[(&str, &str)], overrides: &Overrides) -> Catalog {
        let mut all = CatalogRows::default();
        for (kind, name) in rows {
            all.push(kind, name);
        }
        Catalog::build(all, overrides)
    }

    #[test]
    fn user_functions_by_their_worst_candidate() {
        let catalog = catalog(
            &[
                ("safe_function", "f"),
                ("unsafe_function", "g"),
                ("safe_function", "g"),
                ("unsafe_function", "lower"),
                ("safe_function", "nextval"),
            ],
            &Overrides::default(),
        );
        assert_eq!(catalog.function(b"f"), Verdict::Safe);
        assert_eq!(catalog.function(b"g"), Verdict::Unsafe);
        assert_eq!(catalog.function(b"lower"), Verdict::Unsafe, "shadowed by a volatile one");
        assert_eq!(catalog.function(b"nextval"), Verdict::Unsafe, "the built-in one stays");
        assert_eq!(catalog.function(b"upper"), Verdict::Safe);
        assert_eq!(catalog.function(b"h"), Verdict::Unknown);
        assert_eq!(catalog.attribute(b"g"), Verdict::Unsafe);
        assert_eq!(catalog.attribute(b"nextval"), Verdict::Unsafe);
        assert_eq!(catalog.attribute(b"id"), Verdict::Safe);
    }

    #[test]
    fn while_nothing_is_known_nothing_is_safe() {
        let catalog = Catalog::unread();
        assert_eq!(catalog.relation(b"t"), Verdict::Unsafe);
        assert_eq!(catalog.relation(b"pg_class"), Verdict::Safe);
        assert_eq!(catalog.relation(b"pg_locks"), Verdict::Unsafe);
        assert_eq!(catalog.function(b"lower"), Verdict::Unknown);
        assert_eq!(catalog.attribute(b"f"), Verdict::Unsafe);
        assert_eq!((catalog.operator(b"="), catalog.operator(b"<->")), (Verdict::Safe, Verdict::Unsafe));
        assert!(!catalog.is_plain(b"t") && !catalog.is_plain_attribute(b"t"));
    }

    #[test]
    fn relations_and_operators() {
        let catalog = catalog(
            &[("unsafe_relation", "seq"), ("unsafe_operator", "<>"), ("unsafe_relation", "caf\u{e9}")],
            &Overrides::default(),
        );
        assert_eq!(catalog.relation(b"seq"), Verdict::Unsafe);
        assert_eq!(catalog.relation(b"t"), Verdict::Safe);
        assert_eq!(catalog.relation(b"pg_locks"), Verdict::Unsafe);
        assert_eq!(catalog.relation(b"caf\xe9"), Verdict::Unsafe, "the same name in Latin-1");
        assert_eq!(catalog.operator(b"!="), Verdict::Unsafe);
        assert_eq!(catalog.operator(b"="), Verdict::Safe);
        assert_eq!(catalog.function(b"seq"), Verdict::Unknown);
    }

    #[test]
    fn the_configuration_has_the_last_word() {
        let overrides = Overrides {
            safe_functions: vec!["app.Report".into(), "both".into(), "\"Odd Name\"".into()],
            primary_functions: vec!["lower".into(), "both".into()],
            primary_relations: vec!["public.hot".into(), "app.\"Hot\"".into()],
        };
        let catalog = catalog(&[("unsafe_function", "report")], &overrides);
        assert_eq!(catalog.function(b"report"), Verdict::Safe);
        assert_eq!(catalog.attribute(b"report"), Verdict::Safe);
        assert_eq!(catalog.function(b"Odd Name"), Verdict::Safe);
        assert_eq!(catalog.function(b"both"), Verdict::Unsafe);
        assert_eq!(catalog.function(b"lower"), Verdict::Unsafe);
        assert_eq!(catalog.relation(b"hot"), Verdict::Unsafe);
        assert_eq!(catalog.relation(b"Hot"), Verdict::Unsafe);
        assert_eq!(catalog.relation(b"cold"), Verdict::Safe);
    }

    #[test]
    fn beyond_the_limit_the_unknown_is_unsafe() {
        let mut rows = CatalogRows::default();
        for n in 0..=NAMES_LIMIT {
            rows.push("safe_function", &format!("f{n}"));
        }
        let catalog = Catalog::build(rows, &Overrides::default());
        assert!(catalog.overflowed());
        assert_eq!(catalog.len(), NAMES_LIMIT);
        assert_eq!(catalog.relation(b"anything"), Verdict::Unsafe);
        assert_eq!(catalog.function(b"anything"), Verdict::Unknown);
        assert_eq!(catalog.function(b"f1"), Verdict::Unknown);
        assert_eq!(catalog.function(b"lower"), Verdict::Unsafe);
        assert_eq!(catalog.operator(b"+"), Verdict::Unsafe);
    }

    #[test]
    fn kinds_of_later_versions_are_dangers() {
        let catalog = catalog(&[("unsafe_weather", "x")], &Overrides::default());
        assert_eq!(catalog.function(b"x"), Verdict::Unsafe);
        assert_eq!(catalog.relation(b"x"), Verdict::Unsafe);
    }

    #[test]
    fn the_query_and_the_list_agree() {
        // The arrays of the query: extensions' functions, volatile ones allowed, others denied.
        let arrays: Vec<Vec<&str>> = CATALOG_QUERY
            .split("ANY (ARRAY[")
            .flat_map(|part| part.split("ALL (ARRAY["))
            .skip(1)
            .filter_map(|part| part.split_once("]::name[]"))
            .map(|(list, _)| list.split('\'').skip(1).step_by(2).collect())
            .collect();
        let [_, allowed, denied] = arrays.as_slice() else { panic!("{arrays:?}") };
        assert!(allowed.len() > 20 && denied.len() > 20);
        for name in allowed {
            assert_eq!(builtin::function(name.as_bytes()), Verdict::Safe, "{name}");
        }
        for name in denied {
            assert_eq!(builtin::function(name.as_bytes()), Verdict::Unsafe, "{name}");
        }
    }
}
