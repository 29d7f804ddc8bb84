//! What a session must know of a statement in full.

use super::{catalog, class_of};
use crate::sql::command::{Discard, Isolation, Modes};
use crate::sql::{Command, Dialect, Setting, statements};

fn setting<'a>(name: &'a str, value: &'a str) -> Setting<'a> {
    Setting { name: name.as_bytes(), value: value.as_bytes() }
}

fn assert_first(sql: &str, expected: Command<'_>) {
    assert_eq!(class_of(sql).first, expected, "{sql}");
}

#[test]
fn transactions() {
    let none = Modes::default();
    let read_only = Modes { read_only: Some(true), isolation: None };
    assert_first("begin", Command::Begin(none));
    assert_first("BEGIN WORK", Command::Begin(none));
    assert_first("start transaction read only", Command::Begin(read_only));
    assert_first("begin transaction read write, read only", Command::Begin(read_only));
    assert_first("begin read only not deferrable", Command::Begin(read_only));
    assert_first("begin read only and more", Command::Begin(none));
    let levels = [
        ("serializable", Isolation::Serializable),
        ("repeatable read", Isolation::RepeatableRead),
        ("read committed", Isolation::ReadCommitted),
        ("read uncommitted", Isolation::ReadCommitted),
    ];
    for (text, level) in levels {
        let modes = Modes { read_only: Some(true), isolation: Some(level) };
        let sql = format!("begin isolation level {text}, read only, deferrable");
        assert_first(&sql, Command::Begin(modes));
    }
    assert_first("commit", Command::Commit { chain: false });
    assert_first("end transaction and chain", Command::Commit { chain: true });
    assert_first("commit and no chain", Command::Commit { chain: false });
    assert_first("rollback work", Command::Rollback { chain: false });
    assert_first("abort and chain", Command::Rollback { chain: true });
    assert_first("savepoint \"A b\"", Command::Savepoint(b"\"A b\""));
    assert_first("release a", Command::Release(b"a"));
    assert_first("release savepoint a", Command::Release(b"a"));
    assert_first("release savepoint", Command::Release(b"savepoint"));
    assert_first("rollback to a", Command::RollbackTo(b"a"));
    assert_first("rollback work to savepoint a", Command::RollbackTo(b"a"));
    for sql in ["prepare transaction 'x'", "commit prepared 'x'", "rollback prepared 'x'"] {
        assert_first(sql, Command::TwoPhase);
    }
}

#[test]
fn settings() {
    for (sql, name, value) in [
        ("set work_mem = '8MB'", "work_mem", "'8MB'"),
        ("set session work_mem to 8192 ;", "work_mem", "8192"),
        ("SET search_path TO a, \"b c\" -- x", "search_path", "a, \"b c\""),
        ("set tidegate.route = replica", "tidegate.route", "replica"),
        ("set geqo_seed=-1", "geqo_seed", "-1"),
        ("set time zone 'UTC'", "timezone", "'UTC'"),
        ("set names 'latin1'", "client_encoding", "'latin1'"),
        ("set schema 's'", "search_path", "'s'"),
        ("set role someone", "role", "someone"),
        ("set role none", "role", "none"),
        ("set session role x", "role", "x"),
        ("set session authorization 'x'", "session_authorization", "'x'"),
        ("set xml option document", "xmloption", "document"),
        ("set role = x", "role", "x"),
        ("set session = x", "session", "x"),
    ] {
        let expected = match sql {
            // No such parameter, no such syntax: the server will say so.
            "set session = x" => Command::Other,
            _ => Command::Set(setting(name, value)),
        };
        assert_first(sql, expected);
    }
    for (sql, name, value) in [
        ("set local work_mem = 1", "work_mem", "1"),
        ("set local time zone local", "timezone", "local"),
        ("set local role x", "role", "x"),
        ("set local session authorization x", "session_authorization", "x"),
        ("set local a.b to default", "a.b", "default"),
    ] {
        assert_first(sql, Command::SetLocal(setting(name, value)));
    }
    for (sql, name) in [
        ("set work_mem to default", "work_mem"),
        ("set time zone default", "timezone"),
        ("set time zone local", "timezone"),
        ("set names", "client_encoding"),
        ("set session authorization default", "session_authorization"),
        ("reset work_mem", "work_mem"),
        ("reset a.b", "a.b"),
        ("reset time zone", "timezone"),
        ("reset session authorization", "session_authorization"),
        ("reset transaction isolation level", "transaction_isolation"),
        ("reset role", "role"),
    ] {
        assert_first(sql, Command::Reset(setting(name, "")));
    }
    assert_first("reset all", Command::ResetAll);
    for (sql, name) in [
        ("show all", "all"),
        ("SHOW tidegate.last_route;", "tidegate.last_route"),
        ("show time zone", "timezone"),
        ("show transaction isolation level", "transaction_isolation"),
        ("show session authorization", "session_authorization"),
        ("show TimeZone", "TimeZone"),
    ] {
        assert_first(sql, Command::Show(setting(name, "")));
    }
    let read_only = Modes { read_only: Some(true), isolation: None };
    assert_first("set transaction read only", Command::SetTransaction(read_only));
    assert_first("set local transaction read only", Command::SetTransaction(read_only));
    assert_first("set transaction snapshot 'x'", Command::SetTransaction(Modes::default()));
    assert_first(
        "set session characteristics as transaction read only",
        Command::SetCharacteristics(read_only),
    );
    assert_first("set constraints all deferred", Command::Other);
}

#[test]
fn set_config_alone_with_literals() {
    for (sql, local) in [
        ("select set_config('a.b', 'x''y', false)", false),
        ("SELECT pg_catalog.set_config ( 'a.b' , 'x''y' , TRUE ) ;", true),
    ] {
        let setting = setting("a.b", "'x''y'");
        assert_first(sql, Command::SetConfig { setting, local });
    }
    assert_first(
        "select set_config('a', $12, false)",
        Command::SetConfig { setting: setting("a", "$12"), local: false },
    );
    for sql in [
        "select set_config('a', $1::int, false)",
        "select set_config($1, 'x', false)",
        "select set_config('a', 'x', false) as a",
        "select set_config('a', 'x', false), 1",
        "select set_config('a', E'x', false)",
        "select set_config('a', 'x'::text, false)",
        "select set_config('a', 'x', null)",
        "select set_config('a', 'x', false) from t",
        "select other.set_config('a', 'x', false)",
        "select set_config('a''b', 'x', false)",
    ] {
        assert_first(sql, Command::Other);
    }
}

#[test]
fn statements_and_channels() {
    assert_first("prepare q (int) as select 1", Command::Prepare(b"q"));
    assert_first("prepare transaction as select 1", Command::Prepare(b"transaction"));
    assert_first("execute q(1)", Command::Execute(b"q"));
    assert_first("explain (verbose, format json) execute q(1)", Command::Execute(b"q"));
    assert_first("deallocate q", Command::Deallocate(Some(b"q")));
    assert_first("deallocate prepare q", Command::Deallocate(Some(b"q")));
    assert_first("deallocate prepare", Command::Deallocate(Some(b"prepare")));
    assert_first("deallocate all", Command::Deallocate(None));
    assert_first("deallocate prepare all", Command::Deallocate(None));
    assert_first("deallocate \"all\"", Command::Deallocate(Some(b"\"all\"")));
    assert_first("listen Ch", Command::Listen(b"Ch"));
    assert_first("unlisten ch", Command::Unlisten(Some(b"ch")));
    assert_first("unlisten *", Command::Unlisten(None));
    for (sql, what) in [
        ("discard all", Discard::All),
        ("discard plans", Discard::Plans),
        ("discard sequences", Discard::Sequences),
        ("discard temp", Discard::Temp),
        ("discard temporary", Discard::Temp),
    ] {
        assert_first(sql, Command::Discard(what));
    }
}

fn split(sql: &str) -> Vec<String> {
    let names = catalog();
    statements(sql.as_bytes(), &names, Dialect::default())
        .map(|statement| String::from_utf8_lossy(statement.text).into_owned())
        .collect()
}

#[test]
fn texts_are_split_where_the_server_splits_them() {
    assert_eq!(split(""), [""; 0]);
    assert_eq!(split(" ; -- x\n ; /* y */"), [""; 0]);
    assert_eq!(split(" select 1 ; ;select ';' -- ;\n;"), ["select 1", "select ';'"]);
    assert_eq!(split("begin; select 1; commit"), ["begin", "select 1", "commit"]);
    assert_eq!(split("select 1; select 'x; select 2"), ["select 1", "select 'x; select 2"]);
    let rule = "create rule r as on insert to t do also (delete from t; select 1)";
    assert_eq!(split(&format!("{rule}; select 2")), [rule, "select 2"]);
    let body = "create or replace function f() returns int begin atomic select 1; \
                select case when true then 1 end; end";
    assert_eq!(split(&format!("{body}; select 2")), [body, "select 2"]);
    let old = "create function f() returns int language sql as 'select 1; select 2'";
    assert_eq!(split(&format!("{old};select 2")), [old, "select 2"]);
}

#[test]
fn databases_that_must_be_empty_are_named() {
    for (text, name) in [
        ("drop database if exists \"Odd\" with (force)", Some("\"Odd\"")),
        ("alter database a rename to b", Some("a")),
        ("create database b with owner = x template = c", Some("c")),
        ("create database b template c", Some("c")),
        ("create database b", None),
    ] {
        let found = match class_of(text).first {
            Command::Database(name) => Some(name),
            _ => None,
        };
        assert_eq!(found, name.map(str::as_bytes), "{text}");
    }
}

#[test]
fn a_text_is_counted_and_judged_as_a_whole() {
    use crate::sql::{Access, Reason};
    let class = class_of("");
    assert_eq!((class.statements, class.first), (0, Command::Empty));
    assert_eq!(class.access, Access::Read);
    let class = class_of("select 1; select 2;");
    assert_eq!((class.statements, class.access), (2, Access::Read));
    let class = class_of("select 1; insert into t values (1)");
    assert_eq!(class.access, Access::Primary(Reason::Mixed));
    let class = class_of("begin; select 1");
    assert_eq!(class.access, Access::Primary(Reason::Mixed));
    assert_eq!(class.first, Command::Begin(Modes::default()));
}
