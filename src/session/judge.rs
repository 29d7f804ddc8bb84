//! The texts of one unit, folded into one verdict.

use crate::route::{Level, RouteHint};
use crate::sql::{Access, Class, Command, Effects, Reason, command::Modes};
use crate::sql::{HintedConsistency, HintedRoute, hint};

/// What stays on the server that it happened on, unlike settings, which go with the session.
const BINDING: Effects = Effects::UNKNOWN_SETTINGS
    .with(Effects::TEMPORARY)
    .with(Effects::ADVISORY_LOCK)
    .with(Effects::LISTEN)
    .with(Effects::HOLD_CURSOR)
    .with(Effects::LOAD)
    .with(Effects::SQL_PREPARE)
    .with(Effects::SEED)
    .with(Effects::EXTERNAL);

/// What a comment at the start of a text demands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// A route; `Some(None)` asks for the usual decision whatever the session has set.
    pub route: Option<Option<RouteHint>>,
    /// A level.
    pub level: Option<Level>,
}

impl Hints {
    fn read(text: &[u8]) -> Self {
        let Some(found) = hint(text) else { return Self::default() };
        let route = found.route.map(|route| match route {
            HintedRoute::Primary => Some(RouteHint::Primary),
            HintedRoute::Replica => Some(RouteHint::Replica),
            HintedRoute::Auto => None,
        });
        let level = found.consistency.map(|level| match level {
            HintedConsistency::Eventual => Level::Eventual,
            HintedConsistency::ReadYourWrites => Level::ReadYourWrites,
            HintedConsistency::Session => Level::Session,
        });
        Self { route, level }
    }
}

/// What a unit is, as far as routing must know.
#[derive(Clone, Copy, Debug, Default)]
pub struct Verdict {
    /// Why the unit is no read: the reason of its only text, or that texts differ; `None` for a read.
    refused: Option<Reason>,
    /// Texts that are not empty.
    pub texts: u32,
    /// There is an empty one, as drivers send to see whether a connection works.
    blank: bool,
    /// Statements of all texts.
    pub statements: u32,
    /// What all texts may leave behind.
    pub effects: Effects,
    /// The modes, if the first statement begins a transaction.
    pub begin: Option<Modes>,
    /// Whether everything but that BEGIN is a read.
    rest_reads: bool,
    /// A text has to do with the session's state: what it means may hang on objects of the session's own.
    pub of_session: bool,
    /// A text starts with SET TRANSACTION READ WRITE.
    pub read_write: bool,
    /// It is a COMMIT and nothing else, and no transaction begins with its end.
    pub commits: bool,
    /// The first hint in a comment.
    pub hint: Hints,
}

/// What one text is, as far as routing must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brief {
    /// Where all of it may run together.
    pub access: Access,
    statements: u32,
    effects: Effects,
    begin: Option<Modes>,
    read_write: bool,
    commits: bool,
    hint: Hints,
}

impl Default for Brief {
    /// A text without a statement.
    fn default() -> Self {
        Self {
            access: Access::Read,
            statements: 0,
            effects: Effects::default(),
            begin: None,
            read_write: false,
            commits: false,
            hint: Hints::default(),
        }
    }
}

impl Brief {
    /// Of a text and what it was classified as.
    #[must_use]
    pub fn of(text: &[u8], class: &Class<'_>) -> Self {
        let begin = match class.first {
            Command::Begin(modes) => Some(modes),
            _ => None,
        };
        Self {
            access: class.access,
            statements: class.statements,
            effects: class.effects,
            begin,
            read_write: matches!(class.first, Command::SetTransaction(modes) if modes.read_only == Some(false)),
            commits: class.statements == 1 && class.first == Command::Commit { chain: false },
            hint: Hints::read(text),
        }
    }
}

impl Verdict {
    /// Whether there are texts, and none of them can write.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.has_text() && matches!(self.access(), Access::Read)
    }

    /// Whether there is a text, be it an empty one.
    #[must_use]
    pub fn has_text(&self) -> bool {
        self.texts > 0 || self.blank
    }

    /// Takes in the next text of the unit.
    pub fn fold(&mut self, class: &Brief) {
        if self.hint == Hints::default() {
            self.hint = class.hint;
        }
        self.effects = self.effects.with(class.effects);
        self.read_write |= class.read_write;
        self.of_session |= class.access == Access::Primary(Reason::SessionState);
        if class.statements == 0 {
            self.blank = true;
            return;
        }
        let first = self.texts == 0;
        self.texts += 1;
        self.commits = first && class.commits;
        self.statements = self.statements.saturating_add(class.statements);
        match (first, class.begin) {
            (true, Some(modes)) => {
                self.begin = Some(modes);
                self.rest_reads = class.statements == 1;
            }
            _ => self.rest_reads &= class.access == Access::Read,
        }
        self.refused = match (self.refused, class.access) {
            (None, Access::Read) => None,
            (None, Access::Primary(reason)) if first => Some(reason),
            (Some(old), Access::Primary(new)) if old == new => Some(old),
            _ => Some(Reason::Mixed),
        };
    }

    /// Whether the unit begins a READ ONLY transaction that every standby takes, and does nothing but read in it.
    #[must_use]
    pub fn begins_read_only(&self, default_read_only: bool, default_serializable: bool) -> bool {
        self.begin.is_some_and(|modes| {
            let serializable = match modes.isolation {
                Some(isolation) => isolation == crate::sql::command::Isolation::Serializable,
                None => default_serializable,
            };
            modes.read_only.unwrap_or(default_read_only) && !serializable && self.rest_reads
        })
    }

    /// Where the unit may run.
    #[must_use]
    pub fn access(&self) -> Access {
        match self.refused {
            None => Access::Read,
            Some(reason) => Access::Primary(reason),
        }
    }

    /// Whether the unit, in a READ ONLY transaction, would leave something on its server that must not be on a replica:
    /// state that binds the session to it, or a lock that nobody on the primary would see. Code which may do that by its
    /// text counts, too.
    #[must_use]
    pub fn binds(&self) -> bool {
        self.effects.has(BINDING.with(Effects::MAY_BIND)) || self.access() == Access::Primary(Reason::Lock)
    }

    /// Whether the unit changes anything that the session keeps track of.
    #[must_use]
    pub fn is_stateful(&self) -> bool {
        self.effects.has(BINDING.with(Effects::SETTINGS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Catalog, CatalogRows, Dialect, Overrides, classify};

    #[test]
    fn what_may_bind_is_what_is_called_not_what_is_read_from() {
        let mut rows = CatalogRows::default();
        rows.push("hiding_relation", "orders");
        rows.push("binding_function", "lock_it");
        let known = Catalog::build(rows, &Overrides::default());
        let changing = known.changing();
        let binds = |text: &str, names: &Catalog| {
            let mut verdict = Verdict::default();
            verdict.fold(&Brief::of(text.as_bytes(), &classify(text.as_bytes(), names, Dialect::default())));
            verdict.binds()
        };
        for names in [&known, &changing] {
            for text in [
                "select * from orders",
                "select o.lock_it from orders o",
                "declare c cursor for select * from orders",
                "select pg_backend_pid(), a from orders",
                "select lower(a) from orders, others",
                "explain insert into orders values (1)",
            ] {
                assert!(!binds(text, names), "{text}");
            }
            for text in [
                "select lock_it()",
                "select a from orders where lock_it()",
                "do 'begin end'",
                "call lock_it()",
            ] {
                assert!(binds(text, names), "{text}");
            }
        }
        // What comes before a call has nothing to do with it.
        for text in [
            "select quite_new()",
            "select a from t where quite_new()",
            "with c as (table t) select quite_new() from c",
        ] {
            assert!(!binds(text, &known) && binds(text, &changing), "{text}");
        }
    }
}
