//! What statements leave behind.

use super::{assert_primary, assert_read, class_of};
use crate::sql::{Effects, Reason};

fn effects(sql: &str) -> Effects {
    class_of(sql).effects
}

#[test]
fn every_effect_has_its_statements() {
    let nothing = Effects::default();
    for (sql, expected) in [
        ("select 1", nothing),
        ("insert into t values (1)", nothing),
        ("insert into temp values (1)", nothing),
        ("set a = 1", Effects::SETTINGS),
        ("reset all", Effects::SETTINGS),
        ("discard all", Effects::SETTINGS),
        ("show a", nothing),
        ("discard plans", nothing),
        ("set seed = 0.5", Effects::SETTINGS.with(Effects::SEED)),
        ("set something odd", Effects::UNKNOWN_SETTINGS),
        ("select set_config('a', 'b', false)", Effects::SETTINGS),
        ("select set_config('a', $1, false)", Effects::SETTINGS),
        ("select set_config('a', $1::text, false)", Effects::UNKNOWN_SETTINGS),
        ("select set_config('a', $1::text, true)", Effects::SETTINGS),
        ("select set_config($1, 'b', false)", Effects::UNKNOWN_SETTINGS),
        ("select set_config('a', $1, $2)", Effects::UNKNOWN_SETTINGS),
        ("select set_config('a', $1, false), 1", Effects::UNKNOWN_SETTINGS),
        ("select set_config('a', $1, true), set_config('c', 'd', true)", Effects::SETTINGS),
        ("select set_config('a', f(), true)", Effects::UNKNOWN_SETTINGS),
        (
            "select set_config('a', 'b', true), set_config('c', 'd', false)",
            Effects::UNKNOWN_SETTINGS.with(Effects::SETTINGS),
        ),
        ("select set_config('a', 'b', false), set_config('c', 'd', false)", Effects::UNKNOWN_SETTINGS),
        ("insert into t select set_config('a', 'b', true)", Effects::SETTINGS),
        ("create temp table x (a int)", Effects::TEMPORARY),
        ("create or replace local temporary view x as select 1", Effects::TEMPORARY),
        ("select 1 into temp x", Effects::TEMPORARY),
        ("select 1 into local temp x", Effects::TEMPORARY),
        ("discard temp", Effects::TEMPORARY),
        ("select * from pg_temp.x", Effects::TEMPORARY),
        ("insert into pg_temp.x values (1)", Effects::TEMPORARY),
        ("select 1 into x", Effects::DDL),
        ("create table x as select 1", Effects::DDL),
        ("drop table x", Effects::DDL.with(Effects::RELEASES)),
        ("close all", Effects::RELEASES),
        ("comment on table x is 'y'", Effects::DDL),
        ("select pg_advisory_lock(1)", Effects::ADVISORY_LOCK),
        ("insert into t select pg_try_advisory_lock_shared(1)", Effects::ADVISORY_LOCK),
        ("insert into t select (1).pg_advisory_lock", Effects::ADVISORY_LOCK),
        ("select pg_advisory_unlock_all()", Effects::RELEASES),
        ("select pg_advisory_xact_lock(1)", nothing),
        ("listen x", Effects::LISTEN),
        ("unlisten *", Effects::LISTEN.with(Effects::RELEASES)),
        ("declare c cursor with hold for select 1", Effects::HOLD_CURSOR),
        ("declare c cursor without hold for select 1", nothing),
        ("load 'x'", Effects::LOAD),
        ("prepare q as select 1", Effects::SQL_PREPARE),
        ("execute q", Effects::SQL_PREPARE),
        ("explain execute q", Effects::SQL_PREPARE),
        ("deallocate all", Effects::SQL_PREPARE.with(Effects::RELEASES)),
        ("begin", Effects::TRANSACTION),
        ("set transaction read only", Effects::TRANSACTION),
        ("prepare transaction 'x'", Effects::TRANSACTION),
        ("select setseed(0.1)", Effects::SEED),
        ("copy t from stdin", Effects::COPY_IN),
        ("copy t from '/x'", Effects::EXTERNAL),
        ("copy t to program 'x'", Effects::EXTERNAL),
        ("select dblink_exec('x')", Effects::EXTERNAL.with(Effects::OPAQUE)),
        ("select nobody_knows()", Effects::OPAQUE),
        ("call p(1)", Effects::OPAQUE),
        ("do $$ begin null; end $$", Effects::OPAQUE.with(Effects::HIDDEN).with(Effects::MAY_BIND)),
        (
            "do $$ begin perform set_config('a.b', 'c', false); end $$",
            Effects::UNKNOWN_SETTINGS.with(Effects::HIDDEN).with(Effects::MAY_BIND),
        ),
        (
            "do language plpgsql 'begin set role x; end'",
            Effects::UNKNOWN_SETTINGS.with(Effects::HIDDEN).with(Effects::MAY_BIND),
        ),
        ("insert into t (a) values (lower('X'))", Effects::default()),
        ("select lo_export(1, '/x')", Effects::EXTERNAL),
        ("select nextval('s')", Effects::SEQUENCE),
        ("insert into t values (nextval('s'))", Effects::SEQUENCE),
        ("set a = 1; listen x", Effects::SETTINGS.with(Effects::LISTEN)),
    ] {
        assert_eq!(effects(sql), expected, "{sql}");
    }
}

#[test]
fn settings_that_differ_between_servers() {
    assert_read("select current_setting('App.Tenant')");
    assert_read("select current_setting('TimeZone')");
    assert_primary("select current_setting('transaction_read_only')", Reason::SessionState);
    assert_primary("select current_setting($1)", Reason::SessionState);
    assert_primary("select ('data_directory').current_setting", Reason::SessionState);
    assert_primary("select current_setting('data_' || 'directory')", Reason::SessionState);
    assert_primary("select current_setting(x.y) from x", Reason::SessionState);
}

#[test]
fn the_strongest_reason_is_told() {
    assert_primary("select f_write(), * from t_unlogged for update", Reason::Lock);
    assert_primary("with a as (delete from t returning *) select unheard_of() from a", Reason::Write);
    assert_primary("select unheard_of(), f_write()", Reason::UnknownFunction);
    assert_primary("select set_config('a', 'b', true)", Reason::SessionState);
}
