//! What must never reach a replica, however it is dressed.

use super::{assert_primary, assert_read, catalog, class_of};
use crate::sql::{Access, Catalog, Dialect, Reason, classify};

#[test]
fn writes_in_every_place() {
    for sql in [
        "insert into t values (1)",
        "INSERT INTO t SELECT * FROM u",
        "/* select */ update t set a = 1",
        "-- select\rdelete from t",
        "merge into t using u on (true) when not matched then do nothing",
        "with a as (select 1) insert into t select * from a",
        "with a as (select 1), b as (select 2) update t set x = 1",
        "with a as (select 1) delete from t",
        "with a as (insert into t values (1) returning *) select * from a",
        "with a as materialized (delete from t returning *) select * from a",
        "with a(x) as not materialized (update only t set x = 1 returning x) select * from a",
        "with a as (with b as (delete from t returning *) select * from b) select * from a",
        "with a as (/* x */ -- y\n insert into t values (1)) select 1",
        "select * into n from t",
        "select 1 into temp n",
        "with a as (select 1) select * into n from a",
        "explain insert into t values (1)",
        "explain (analyze) with a as (delete from t returning *) select * from a",
        "explain analyze verbose update t set a = 1",
        "explain create table n as select 1",
        "copy (insert into t values (1) returning *) to stdout",
        "copy (with a as (delete from t returning *) select * from a) to stdout",
        "copy t from stdin",
        "copy t (a, b) from stdin with (format csv)",
        "copy t from '/tmp/x'",
        "copy t to '/tmp/x'",
        "copy t to program 'cat'",
        "copy (select 1) to '/tmp/x'",
        "COPY t TO E'/tmp/x'",
        "call p()",
        "do $$ begin end $$",
        "do language plpgsql 'begin end'",
        "truncate t",
        "vacuum",
        "refresh materialized view mv",
        "notify ch",
        "create table n (a int)",
        "alter table t add b int",
        "drop table t",
        "grant select on t to x",
        "commit prepared 'x'",
        "((with a as (delete from t returning 1) select * from a))",
    ] {
        assert_primary(sql, Reason::Write);
    }
}

#[test]
fn locks() {
    for sql in [
        "select * from t for update",
        "select * from t for no key update",
        "select * from t for share nowait",
        "select * from t for key share skip locked",
        "select * from t for /* x */ update of t",
        "table t for update",
        "select * from (select * from t for update) x",
        "with a as (select * from t for share) select * from a",
        "explain select * from t for update",
        "copy (select * from t for update) to stdout",
        "lock t",
        "select pg_advisory_lock(1)",
        "select pg_catalog.pg_try_advisory_xact_lock(1) from t",
        "select case when true then PG_ADVISORY_LOCK(1) end",
        "declare c cursor for select * from t for update",
        "select (1::bigint).pg_advisory_lock",
    ] {
        assert_primary(sql, Reason::Lock);
    }
}

#[test]
fn calls_are_found_wherever_they_stand() {
    for sql in [
        "select f_write()",
        "select public.f_write()",
        "select \"f_write\" ( )",
        "select F_Write /* x */ -- y\n ()",
        "select * from f_write() as x(a int)",
        "select * from t, f_write() as x(a int)",
        "select * from t, lateral f_write() x",
        "select * from rows from (f_write()) as x(a)",
        "select distinct on (a) f_write() from t",
        "select distinct on ((a)) f_write() from t",
        "select all f_write()",
        "select a operator(pg_catalog.+) f_write() from t",
        "select operator(pg_catalog.-) f_write()",
        "select 1 where not f_write()",
        "select a from t order by f_write()",
        "select a from t order by a, f_write()",
        "select a from t limit f_write()",
        "select a from t where a like f_write()",
        "select a from t where a between f_write() and 1",
        "select a at time zone f_write() from t",
        "select (f_write())",
        "select array[f_write()], (array[1])[f_write()]",
        "select count(*) filter (where f_write()) from t",
        "select sum(f_write()) over (partition by f_write()) from t",
        "select coalesce(null, f_write())",
        "select cast(f_write() as int)",
        "select f_write()::int",
        "select x.a from t x where x.b = any (array(select f_write()))",
        "values (1), (f_write())",
        "with a as (select 1) select f_write()",
        "with a(x, y) as (select 1, f_write()) select 1",
        "with a as (select 1) (select 1) order by 1, f_write()",
        "with a as (select 1) table a order by 1, f_write()",
        "with a as (select 1) values (1) order by 1, f_write()",
        "with recursive a(x) as (select 1) cycle x set c using p (select 1) order by 1, f_write()",
        "explain select f_write()",
        "copy (select f_write()) to stdout",
        "select a, f_write() as update from t",
        "select interval '1' + f_write()",
        "select t.a, t.f_write from t",
        "select (t).f_write from t",
        "select t.\"Odd\" from t",
        "select (1).f_write, (array[1])[1].f_write, $1.f_write",
        "select ('t_seq'::regclass).nextval",
        "select (select 't_seq'::regclass).\"nextval\"",
        "select \"Odd\"(1)",
        "select * from t tablesample f_write(1)",
        "select a <<~ b from t",
        "select a operator(public.<<~) b from t",
        "select pg_catalog.nextval('s')",
        "select pg_is_in_recovery()",
        "select query_to_xml('select 1', true, true, '')",
    ] {
        assert_primary(sql, Reason::Function);
    }
}

#[test]
fn what_is_not_known_is_no_read() {
    for sql in [
        "select unheard_of(1)",
        "select app.unheard_of(1)",
        "select odd(1)",
        "select \"Lower\"('x')",
        "select treat(1 as nextval)",
        "select distinct on (1) filter (1)",
        "select filter(1)",
        "select over(1), (select 1)",
        "select join(1)",
        "select materialized(1)",
        "select * from t x(a)",
        "select by(1)",
        "select varying(1)",
        "select 1 where varying(1)",
    ] {
        assert_primary(sql, Reason::UnknownFunction);
    }
    for sql in ["frobnicate t", "1", "'x'", "\"select\" 1", ")", "select 1)", "(insert into t)"] {
        let access = class_of(sql).access;
        assert!(matches!(access, Access::Primary(_)), "{sql}: {access:?}");
    }
    let names = Catalog::builtin();
    let class = classify(b"select f_stable(1)", &names, Dialect::default());
    assert_eq!(class.access, Access::Primary(Reason::UnknownFunction));
}

#[test]
fn relations_that_replicas_do_not_have() {
    for sql in [
        "select * from t_unlogged",
        "select * from public.t_unlogged",
        "select * from \"t_unlogged\"",
        "select * from T_Unlogged as x",
        "table t_id_seq",
        "select last_value from t_id_seq",
        "select * from a join v_write on true",
        "with x as (select * from t_unlogged) select * from x",
        "copy t_unlogged to stdout",
        "copy public.t_unlogged (a) to stdout",
        "select * from pg_temp.t",
        "select pg_temp.f()",
        "select * from pg_temp_3.t",
        "select * from pg_stat_activity",
        "select * from pg_catalog.pg_locks",
        "select 1::hot_domain",
        "select cast(1 as public.hot_domain)",
        "select 1::hot_domain(3)",
    ] {
        assert_primary(sql, Reason::Relation);
    }
    assert_read("select * from t_unlogged2, \"T_UNLOGGED\", seq");
}

#[test]
fn text_that_cannot_be_read_to_its_end() {
    for sql in [
        "select 'x",
        "select E'x\\'",
        "select \"x",
        "select \"\"",
        "select /* x /* y */",
        "select $a$ x $b$",
        "select $x",
        "select (1",
        "select 1)",
        "select (1; delete from t)",
        "select 1 \\ 2",
        "select {1}",
        "select 1\0; delete from t",
        "select U&\"d\\0061t\" from t",
        "select 1INTO n from t",
        "select 1from t",
        "select 0xINTO n",
        "select $1into n",
        "copy t",
        "explain",
        "select 1; select 'x",
        "select a[1 from t",
    ] {
        assert_primary(sql, Reason::Unrecognised);
    }
}

#[test]
fn backslashes_follow_the_session() {
    let old = Dialect { standard_conforming_strings: false };
    // One string to an old server, a string and a write to a new one.
    let sql = br"select '\', f_write(), ' from t --'";
    assert_eq!(classify(sql, &catalog(), old).access, Access::Read);
    let new = classify(sql, &catalog(), Dialect::default()).access;
    assert_eq!(new, Access::Primary(Reason::Function));
    let sql = br"select 'x\'', f_write(), '' from t";
    let seen = classify(sql, &catalog(), old).access;
    assert_eq!(seen, Access::Primary(Reason::Function));
    // A continued E string keeps its escapes.
    let sql = b"select E'a'\n'\\', f_write(), '' --'\n from t";
    assert_eq!(classify(sql, &catalog(), Dialect::default()).access, Access::Read);
    let sql = b"select E'a'  '\\', f_write(), '' --'\n from t";
    let seen = classify(sql, &catalog(), Dialect::default()).access;
    assert_eq!(seen, Access::Primary(Reason::Function));
}

#[test]
fn deep_nesting_loses_only_the_benefit_of_the_doubt() {
    let deep =
        |depth: usize, inner: &str| format!("select {}{inner}{}", "(".repeat(depth), ")".repeat(depth));
    assert_read(&deep(10, "with t(a) as (select 1) select a from t"));
    assert_read(&deep(100_000, "1"));
    assert_read(&deep(100, "select lower('x')"));
    assert_primary(&deep(100, "with t(a) as (select 1) select a"), Reason::Unrecognised);
    assert_primary(&deep(100_000, "f_write()"), Reason::Function);
    assert_primary(&deep(300, "delete from t"), Reason::Write);
    let sum = format!("select 1{}", "+1".repeat(100_000));
    assert_read(&sum);
}
