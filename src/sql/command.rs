//! What the scanner finds out about a statement.

/// Where a statement may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Proven to be a read: any node may run it.
    Read,
    /// Only the primary may run it, for this reason.
    Primary(Reason),
}

/// Why a statement is not a read for a replica. A closed list: these are metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// DML, DDL, CALL, DO, COPY FROM, and all else that is known to write.
    Write,
    /// A row lock, LOCK, or an advisory lock.
    Lock,
    /// A function that is volatile, or must not run on a standby.
    Function,
    /// A function that is not known.
    UnknownFunction,
    /// A relation that replicas do not have or answer otherwise.
    Relation,
    /// It changes or asks for state of the session.
    SessionState,
    /// Transaction control.
    Transaction,
    /// The text could not be read to its end with certainty.
    Unrecognised,
    /// Several statements, of which at least one is no read.
    Mixed,
}

impl Reason {
    /// The metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Lock => "lock",
            Self::Function => "function",
            Self::UnknownFunction => "unknown_function",
            Self::Relation => "relation",
            Self::SessionState => "session_state",
            Self::Transaction => "transaction",
            Self::Unrecognised => "unrecognised",
            Self::Mixed => "mixed",
        }
    }
}

/// What a text may leave behind, over all of its statements: a set of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects(pub u32);

impl Effects {
    /// SET, RESET, DISCARD ALL, `set_config` with literals: see [`Command`] for which.
    pub const SETTINGS: Self = Self(1);
    /// `set_config` whose arguments are not literals: which setting changed cannot be told.
    pub const UNKNOWN_SETTINGS: Self = Self(1 << 1);
    /// CREATE TEMP, SELECT INTO TEMP, DISCARD TEMP, or any use of a name in `pg_temp`.
    pub const TEMPORARY: Self = Self(1 << 2);
    /// A function that takes a session-level advisory lock.
    pub const ADVISORY_LOCK: Self = Self(1 << 3);
    /// LISTEN or UNLISTEN.
    pub const LISTEN: Self = Self(1 << 4);
    /// DECLARE ... WITH HOLD.
    pub const HOLD_CURSOR: Self = Self(1 << 5);
    /// LOAD.
    pub const LOAD: Self = Self(1 << 6);
    /// SQL PREPARE, EXECUTE or DEALLOCATE.
    pub const SQL_PREPARE: Self = Self(1 << 7);
    /// DDL: the catalog may have changed.
    pub const DDL: Self = Self(1 << 8);
    /// BEGIN, COMMIT, ROLLBACK, SAVEPOINT and their kin.
    pub const TRANSACTION: Self = Self(1 << 9);
    /// `setseed`, SET SEED: what `random()` answers afterwards depends on the server.
    pub const SEED: Self = Self(1 << 10);
    /// COPY ... FROM STDIN.
    pub const COPY_IN: Self = Self(1 << 11);
    /// A function that reaches out of the database or keeps state outside of it (dblink and its kin).
    pub const EXTERNAL: Self = Self(1 << 12);
    /// `nextval`, `setval`, `currval`, `lastval`: `currval` needs the same server later.
    pub const SEQUENCE: Self = Self(1 << 13);

    /// Code of the user's own runs of which it is not known what it leaves behind: DO, CALL, a function that is not
    /// known to be safe.
    pub const OPAQUE: Self = Self(1 << 14);

    /// [`Command::Database`].
    pub const DATABASE: Self = Self(1 << 15);

    /// Something that binds the session may end: an unlock, CLOSE, DROP, UNLISTEN, DEALLOCATE.
    pub const RELEASES: Self = Self(1 << 16);

    /// Code of the user's own runs which, by its text, may take session-level locks, make temporary tables or leave
    /// whatever else binds the session: only the server can tell.
    pub const HIDDEN: Self = Self(1 << 17);

    /// Such code is named here, rather than behind a table that may be written to: it runs in a READ ONLY transaction, too.
    pub const MAY_BIND: Self = Self(1 << 18);

    /// Whether any bit of `other` is set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The isolation level that a BEGIN or SET names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// READ UNCOMMITTED or READ COMMITTED.
    ReadCommitted,
    /// REPEATABLE READ.
    RepeatableRead,
    /// SERIALIZABLE: refused by every standby (0A000).
    Serializable,
}

/// Modes of BEGIN, START TRANSACTION, SET TRANSACTION; `None` where not said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modes {
    /// READ ONLY is `Some(true)`, READ WRITE `Some(false)`.
    pub read_only: Option<bool>,
    /// The isolation level.
    pub isolation: Option<Isolation>,
}

/// One run-time parameter in a SET, RESET or SHOW.
///
/// `name` is as written in the text, apart from the forms with a syntax of their own, which come
/// under their parameter's name: `TIME ZONE` (`timezone`), `NAMES` (`client_encoding`), `SCHEMA`
/// (`search_path`), `ROLE` (`role`), `SESSION AUTHORIZATION` (`session_authorization`),
/// `XML OPTION` (`xmloption`). Compare it without regard to ASCII case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting<'a> {
    /// The parameter's name.
    pub name: &'a [u8],
    /// What stands behind `TO`, `=` or the special form's words, trimmed, as written; empty for RESET and SHOW.
    pub value: &'a [u8],
}

/// What DISCARD discards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// DISCARD ALL.
    All,
    /// DISCARD PLANS.
    Plans,
    /// DISCARD SEQUENCES.
    Sequences,
    /// DISCARD TEMP or TEMPORARY.
    Temp,
}

/// The statement itself, as far as a session must know it. Names are as written (quotes and all).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// Nothing but white space and comments.
    Empty,
    /// Any statement that has no entry of its own below.
    Other,
    /// BEGIN or START TRANSACTION.
    Begin(Modes),
    /// COMMIT or END; `chain` for AND CHAIN.
    Commit {
        /// AND CHAIN: a new transaction begins at once.
        chain: bool,
    },
    /// ROLLBACK or ABORT, not TO SAVEPOINT.
    Rollback {
        /// AND CHAIN: a new transaction begins at once.
        chain: bool,
    },
    /// SAVEPOINT.
    Savepoint(&'a [u8]),
    /// RELEASE.
    Release(&'a [u8]),
    /// ROLLBACK TO.
    RollbackTo(&'a [u8]),
    /// PREPARE TRANSACTION, COMMIT PREPARED, ROLLBACK PREPARED.
    TwoPhase,
    /// SET or SET SESSION (also the special forms, SET ROLE, SET SESSION AUTHORIZATION).
    Set(Setting<'a>),
    /// SET LOCAL.
    SetLocal(Setting<'a>),
    /// SET TRANSACTION.
    SetTransaction(Modes),
    /// SET SESSION CHARACTERISTICS AS TRANSACTION.
    SetCharacteristics(Modes),
    /// RESET of one parameter, or SET ... TO DEFAULT.
    Reset(Setting<'a>),
    /// RESET ALL.
    ResetAll,
    /// Exactly `SELECT [pg_catalog.]set_config('name', 'value', true|false)` with plain literals:
    /// `value` keeps its quotes.
    SetConfig {
        /// Name (without quotes) and value (with them).
        setting: Setting<'a>,
        /// The third argument.
        local: bool,
    },
    /// SHOW of one parameter (SHOW ALL has the name `all`).
    Show(Setting<'a>),
    /// DISCARD.
    Discard(Discard),
    /// DROP or ALTER DATABASE, or CREATE DATABASE with this one as its template: nobody else may be connected to it.
    Database(&'a [u8]),
    /// SQL PREPARE, with the statement's name.
    Prepare(&'a [u8]),
    /// SQL EXECUTE, with the statement's name.
    Execute(&'a [u8]),
    /// DEALLOCATE; `None` for ALL.
    Deallocate(Option<&'a [u8]>),
    /// LISTEN, with the channel.
    Listen(&'a [u8]),
    /// UNLISTEN; `None` for `*`.
    Unlisten(Option<&'a [u8]>),
}

/// One statement of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement<'a> {
    /// Its text, without the semicolon.
    pub text: &'a [u8],
    /// Where it may run.
    pub access: Access,
    /// What it may leave behind.
    pub effects: Effects,
    /// What it is.
    pub command: Command<'a>,
}

/// A whole text: all statements of one Query message, or the one of a Parse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class<'a> {
    /// Where the text may run as a whole.
    pub access: Access,
    /// What all its statements may leave behind.
    pub effects: Effects,
    /// How many statements it has, empty ones not counted.
    pub statements: u32,
    /// The first statement that is not empty.
    pub first: Command<'a>,
}
