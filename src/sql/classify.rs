//! A text's statements: where each may run, what it leaves behind, what it is.

use super::command::{Access, Class, Command, Discard, Effects, Reason, Statement};
use super::cursor::Cursor;
use super::keyword::Key;
use super::names::Names;
use super::scan::Kind;
use super::walk::Walk;
use super::{set, transaction};

/// How the server reads the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// The session's `standard_conforming_strings`: whether a backslash in `'..'` is an ordinary
    /// character.
    pub standard_conforming_strings: bool,
}

impl Default for Dialect {
    /// PostgreSQL's default since 9.1.
    fn default() -> Self {
        Self { standard_conforming_strings: true }
    }
}

/// Whether text in this client encoding can hide quotes and backslashes inside of characters.
///
/// Such text must not be classified: treat all of it as unrecognised. The encodings are those
/// that PostgreSQL accepts from clients only (`PG_ENCODING_BE_LAST` in pg_wchar.h).
#[must_use]
pub fn hides_ascii(client_encoding: &[u8]) -> bool {
    // PostgreSQL compares the letters and digits of the name, without regard to case.
    let clean =
        || client_encoding.iter().filter(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase);
    [
        "sjis",
        "shiftjis",
        "mskanji",
        "win932",
        "windows932",
        "shiftjis2004",
        "sjis2004",
        "big5",
        "win950",
        "windows950",
        "gbk",
        "win936",
        "windows936",
        "uhc",
        "win949",
        "windows949",
        "gb18030",
        "johab",
    ]
    .iter()
    .any(|name| clean().eq(name.bytes()))
}

/// Classifies a whole text: all statements of one Query, or the one of a Parse.
pub fn classify<'a>(text: &'a [u8], names: &dyn Names, dialect: Dialect) -> Class<'a> {
    let mut class =
        Class { access: Access::Read, effects: Effects::default(), statements: 0, first: Command::Empty };
    let mut all = statements(text, names, dialect);
    for statement in all.by_ref() {
        class.statements = class.statements.saturating_add(1);
        class.effects = class.effects.with(statement.effects);
        if class.statements == 1 {
            class.first = statement.command;
            class.access = statement.access;
        } else {
            class.access = both(class.access, statement.access);
        }
    }
    class
}

/// Where two statements of one text may run together.
const fn both(one: Access, other: Access) -> Access {
    match (one, other) {
        (Access::Read, Access::Read) => Access::Read,
        (Access::Primary(Reason::Unrecognised), _) | (_, Access::Primary(Reason::Unrecognised)) => {
            Access::Primary(Reason::Unrecognised)
        }
        _ => Access::Primary(Reason::Mixed),
    }
}

/// A text's statements one by one, empty ones left out.
///
/// The last one is unrecognised, and reaches to the end, if the text cannot be read to its end.
pub fn statements<'a, 'n>(text: &'a [u8], names: &'n dyn Names, dialect: Dialect) -> Statements<'a, 'n> {
    let plain_strings = dialect.standard_conforming_strings;
    let cursor = Cursor::new(text, plain_strings);
    Statements { walk: Walk::new(cursor, names), plain_strings, over: false }
}

/// Iterator over a text's statements: see [`statements`].
pub struct Statements<'a, 'n> {
    walk: Walk<'a, 'n>,
    plain_strings: bool,
    over: bool,
}

impl<'a> Iterator for Statements<'a, '_> {
    type Item = Statement<'a>;

    fn next(&mut self) -> Option<Statement<'a>> {
        if self.over {
            return None;
        }
        while self.walk.cursor.peek().kind == Kind::Semicolon {
            self.walk.cursor.take();
        }
        let first = self.walk.cursor.peek();
        if first.kind == Kind::End {
            self.over = true;
            return None;
        }
        self.walk.restart();
        let mut command = lead(&mut self.walk, false);
        self.walk.run();
        let after = self.walk.cursor.peek();
        self.over = after.kind == Kind::Bad;
        let end = if self.over { after.end() } else { self.walk.cursor.end() };
        let text = self.walk.cursor.between(first.start(), end);
        let mut effects = self.walk.effects;
        if self.walk.set_configs == 1
            && let Some((setting, local)) = set::set_config(text, self.plain_strings)
        {
            command = Command::SetConfig { setting, local };
            effects = Effects(effects.0 & !Effects::UNKNOWN_SETTINGS.0).with(Effects::SETTINGS);
        }
        if self.walk.hides && self.walk.reason().is_some() {
            effects = effects.with(Effects::OPAQUE).with(Effects::HIDDEN);
        }
        let access = self.walk.reason().map_or(Access::Read, Access::Primary);
        Some(Statement { text, access, effects, command })
    }
}

/// Reads a statement's verb, and the whole of what a session must know in full.
fn lead<'a>(walk: &mut Walk<'a, '_>, explained: bool) -> Command<'a> {
    let first = walk.cursor.peek();
    match first.kind {
        Kind::Open => {
            parenthesised(walk);
            return Command::Other;
        }
        Kind::Word => {}
        _ => {
            walk.raise(Reason::Unrecognised);
            return Command::Other;
        }
    }
    let Some(word) = walk.cursor.keyword(first) else {
        walk.raise(Reason::Unrecognised);
        return Command::Other;
    };
    walk.set_verb(word.key);
    if matches!(word.key, Key::Select | Key::With | Key::Values | Key::Table) {
        return Command::Other;
    }
    walk.cursor.take();
    if explained {
        return explained_verb(walk, word.key);
    }
    verb(walk, word.key)
}

/// Nothing but a query starts with a parenthesis.
fn parenthesised(walk: &mut Walk<'_, '_>) {
    while walk.cursor.peek().kind == Kind::Open {
        walk.cursor.take();
        walk.open_statement();
    }
    if !at_query(walk) {
        walk.raise(Reason::Unrecognised);
    }
}

fn at_query(walk: &Walk<'_, '_>) -> bool {
    ["select", "with", "values", "table"].iter().any(|word| walk.cursor.at_word(word))
}

fn explained_verb<'a>(walk: &mut Walk<'a, '_>, key: Key) -> Command<'a> {
    match key {
        Key::Execute => {
            plain(walk, Reason::SessionState, Effects::SQL_PREPARE);
            return prepared(&mut walk.cursor, key);
        }
        Key::Declare => walk.raise(Reason::SessionState),
        Key::Create => return create(walk),
        _ => walk.raise(Reason::Write),
    }
    Command::Other
}

fn verb<'a>(walk: &mut Walk<'a, '_>, key: Key) -> Command<'a> {
    match key {
        Key::Explain => explain(walk),
        Key::Copy => Command::Other,
        Key::Insert
        | Key::Update
        | Key::Delete
        | Key::Merge
        | Key::Truncate
        | Key::Vacuum
        | Key::Analyze
        | Key::Cluster
        | Key::Reindex
        | Key::Refresh
        | Key::Checkpoint
        | Key::Notify => plain(walk, Reason::Write, Effects::default()),
        Key::Call => plain(walk, Reason::Write, Effects::OPAQUE),
        Key::Do => {
            let mut sets = false;
            while !walk.cursor.at_end() {
                let token = walk.cursor.take();
                sets |= walk.cursor.bytes(token).windows(3).any(|word| word.eq_ignore_ascii_case(b"set"));
            }
            let settings = if sets { Effects::UNKNOWN_SETTINGS } else { Effects::OPAQUE };
            plain(walk, Reason::Write, settings.with(Effects::HIDDEN).with(Effects::MAY_BIND))
        }
        Key::Create => create(walk),
        Key::Alter | Key::Drop => {
            plain(walk, Reason::Write, Effects::DDL.with(Effects::RELEASES));
            if !walk.cursor.take_word("database") {
                return Command::Other;
            }
            if walk.cursor.take_word("if") {
                walk.cursor.take_word("exists");
            }
            database(walk)
        }
        Key::Grant | Key::Revoke | Key::Comment | Key::Security | Key::Reassign | Key::Import => {
            plain(walk, Reason::Write, Effects::DDL)
        }
        Key::Lock => plain(walk, Reason::Lock, Effects::default()),
        Key::Load => plain(walk, Reason::SessionState, Effects::LOAD),
        Key::Declare | Key::Fetch | Key::Move => plain(walk, Reason::SessionState, Effects::default()),
        Key::Close => plain(walk, Reason::SessionState, Effects::RELEASES),
        Key::Begin
        | Key::Start
        | Key::Commit
        | Key::End
        | Key::Rollback
        | Key::Abort
        | Key::Savepoint
        | Key::Release => transactional(walk, key),
        Key::Prepare => prepare(walk),
        Key::Execute | Key::Deallocate => {
            // What a prepared statement left was not looked for while the session was bound by it.
            let releases = if key == Key::Execute { Effects::default() } else { Effects::RELEASES };
            plain(walk, Reason::SessionState, Effects::SQL_PREPARE.with(releases));
            prepared(&mut walk.cursor, key)
        }
        Key::Listen | Key::Unlisten => {
            let releases = if key == Key::Listen { Effects::default() } else { Effects::RELEASES };
            plain(walk, Reason::SessionState, Effects::LISTEN.with(releases));
            channel(&mut walk.cursor, key)
        }
        Key::Set | Key::Reset | Key::Show | Key::Discard => session(walk, key),
        _ => plain(walk, Reason::Unrecognised, Effects::default()),
    }
}

fn plain<'a>(walk: &mut Walk<'_, '_>, reason: Reason, effects: Effects) -> Command<'a> {
    walk.raise(reason);
    walk.leave(effects);
    Command::Other
}

/// EXPLAIN's options, then the statement that it explains.
fn explain<'a>(walk: &mut Walk<'a, '_>) -> Command<'a> {
    if walk.cursor.peek().kind == Kind::Open {
        walk.cursor.take();
        if walk.cursor.peek().kind == Kind::Open || at_query(walk) {
            // No options: a query in parentheses.
            walk.open_statement();
            parenthesised(walk);
            return Command::Other;
        }
        while !walk.cursor.at_end() && walk.cursor.take().kind != Kind::Close {}
    } else {
        walk.cursor.take_any(&["analyze", "analyse"]);
        walk.cursor.take_word("verbose");
    }
    lead(walk, true)
}

/// Temporary objects concern the session alone, all others the catalog.
fn create<'a>(walk: &mut Walk<'a, '_>) -> Command<'a> {
    walk.raise(Reason::Write);
    if walk.cursor.take_word("or") {
        walk.cursor.take_word("replace");
    }
    walk.cursor.take_any(&["local", "global"]);
    let temporary = walk.cursor.take_any(&["temp", "temporary"]);
    walk.leave(if temporary { Effects::TEMPORARY } else { Effects::DDL });
    if walk.cursor.take_word("database") {
        while !walk.cursor.at_end() && !walk.cursor.take_word("template") {
            walk.cursor.take();
        }
        if walk.cursor.peek().kind == Kind::Operator {
            walk.cursor.take();
        }
        return database(walk);
    }
    if walk.cursor.at_word("table")
        && let Some(name) = executed(walk.cursor.clone())
    {
        walk.leave(Effects::SQL_PREPARE);
        return Command::Execute(name);
    }
    Command::Other
}

fn database<'a>(walk: &mut Walk<'a, '_>) -> Command<'a> {
    let Some(name) = walk.cursor.take_name() else { return Command::Other };
    walk.leave(Effects::DATABASE);
    Command::Database(name)
}

/// The statement of CREATE TABLE ... AS EXECUTE.
fn executed(mut cursor: Cursor<'_>) -> Option<&[u8]> {
    while !cursor.at_end() {
        if !cursor.take_word("as") {
            cursor.take();
        } else if cursor.take_word("execute") {
            return cursor.take_name();
        }
    }
    None
}

fn transactional<'a>(walk: &mut Walk<'a, '_>, key: Key) -> Command<'a> {
    let cursor = &mut walk.cursor;
    let command = match key {
        Key::Begin | Key::Start => transaction::begin(cursor),
        Key::Commit | Key::End => transaction::commit(cursor),
        Key::Savepoint => cursor.take_name().map_or(Command::Other, Command::Savepoint),
        Key::Release => transaction::release(cursor),
        _ => transaction::rollback(cursor),
    };
    walk.leave(Effects::TRANSACTION);
    let two_phase = command == Command::TwoPhase;
    walk.raise(if two_phase { Reason::Write } else { Reason::Transaction });
    command
}

fn prepare<'a>(walk: &mut Walk<'a, '_>) -> Command<'a> {
    let word = walk.cursor.at_word("transaction");
    let Some(name) = walk.cursor.take_name() else {
        return plain(walk, Reason::Unrecognised, Effects::default());
    };
    if word && matches!(walk.cursor.peek().kind, Kind::Literal | Kind::Text) {
        plain(walk, Reason::Write, Effects::TRANSACTION);
        return Command::TwoPhase;
    }
    plain(walk, Reason::SessionState, Effects::SQL_PREPARE);
    Command::Prepare(name)
}

fn prepared<'a>(cursor: &mut Cursor<'a>, key: Key) -> Command<'a> {
    if key == Key::Execute {
        return cursor.take_name().map_or(Command::Other, Command::Execute);
    }
    let noise = cursor.at_word("prepare");
    let mut all = cursor.at_word("all");
    let Some(mut name) = cursor.take_name() else {
        return Command::Other;
    };
    if noise && cursor.at_name() {
        all = cursor.at_word("all");
        name = cursor.take_name().unwrap_or(name);
    }
    Command::Deallocate((!all).then_some(name))
}

fn channel<'a>(cursor: &mut Cursor<'a>, key: Key) -> Command<'a> {
    match (cursor.take_name(), key) {
        (Some(name), Key::Listen) => Command::Listen(name),
        (Some(name), _) => Command::Unlisten(Some(name)),
        (None, Key::Listen) => Command::Other,
        (None, _) => Command::Unlisten(None),
    }
}

/// SET, RESET, SHOW, DISCARD.
fn session<'a>(walk: &mut Walk<'a, '_>, key: Key) -> Command<'a> {
    let cursor = &mut walk.cursor;
    let constraints = key == Key::Set && cursor.at_word("constraints");
    let command = match key {
        Key::Set => set::set(cursor),
        Key::Reset => set::reset(cursor),
        Key::Show => set::show(cursor),
        _ => discard(cursor),
    };
    walk.raise(Reason::SessionState);
    match command {
        Command::Show(_) => {}
        Command::SetTransaction(_) => walk.leave(Effects::TRANSACTION),
        Command::Discard(Discard::Temp) => walk.leave(Effects::TEMPORARY),
        Command::Discard(Discard::Plans | Discard::Sequences) => {}
        Command::Other if constraints => walk.leave(Effects::TRANSACTION),
        Command::Other if key == Key::Show => {}
        Command::Other => walk.leave(Effects::UNKNOWN_SETTINGS),
        Command::Set(setting) | Command::SetLocal(setting) | Command::Reset(setting)
            if setting.name.eq_ignore_ascii_case(b"seed") =>
        {
            walk.leave(Effects::SETTINGS.with(Effects::SEED));
        }
        _ => walk.leave(Effects::SETTINGS),
    }
    command
}

fn discard<'a>(cursor: &mut Cursor<'a>) -> Command<'a> {
    if cursor.take_word("all") {
        Command::Discard(Discard::All)
    } else if cursor.take_word("plans") {
        Command::Discard(Discard::Plans)
    } else if cursor.take_word("sequences") {
        Command::Discard(Discard::Sequences)
    } else if cursor.take_any(&["temp", "temporary"]) {
        Command::Discard(Discard::Temp)
    } else {
        Command::Other
    }
}
