//! Reads must be found to be reads, or replicas stand idle.

use proptest::prelude::*;

use super::{assert_read, catalog};
use crate::sql::{Access, Dialect, classify};

#[test]
fn plain_queries() {
    for sql in [
        "select 1",
        "SELECT abalance FROM pgbench_accounts WHERE aid = 5;",
        "select * from t where a in (1, 2, 3) and b = any (array[1, 2]) or not exists (select 1)",
        "values (1), (2) order by 1 limit 1 offset 0",
        "table t",
        "(select 1)",
        "((select 1) union all (select 2)) order by 1",
        "select",
        "select distinct on (a, b) a, b, c from t order by a, b desc nulls last",
        "select all a from only (t)",
        "select count(*) filter (where a > 1) over (partition by b order by c rows between \
         unbounded preceding and 1 following) from t",
        "select percentile_cont(0.5) within group (order by a) from t",
        "select sum(a) over w from t window w as (partition by b), w2 as (order by c)",
        "select a, b from t group by grouping sets ((a, b), (a), ()), rollup (a, b), cube (a)",
        "select grouping(a), a from t group by (a) having (count(*) > 1)",
        "select * from t for read only",
        "select f_stable(1), safe_agg(a) from t",
        "select public.f_stable(1), pg_catalog.lower('X'), \"lower\"('Y'), LOWER('Z')",
        "select $1::int, $2::text[], a[1], a[1:2], (b).c, (d[1]).e from t",
        "/* a /* nested */ comment */ select -- to the end\n 1 /**/",
        "fetch_it; select 1".trim_start_matches("fetch_it; "),
    ] {
        assert_read(sql);
    }
}

#[test]
fn names_that_look_like_verbs() {
    for sql in [
        "select updated_at, deleted, insert_time, created from t",
        "select \"update\", \"delete\", \"insert\", \"into\", \"for update\" from t",
        "select x.delete, x.update, x.into, x.select from x",
        "select a as update, b as into, c as delete, d as select from t",
        "select (update), (delete) from t",
        "select coalesce(update, insert, delete) from t",
        "select a update from t",
        "with update as (select 1), delete as (select 2) select * from update, delete",
        "select 'insert into t values (1); delete from t; for update'",
        "select $$ for update $$, $x$ insert $$ into $x$, E'\\'; delete from t; --'",
        "select lock, share, key, no, move, load, copy, set, show, start, begin from t",
        "select merge from t where merge = 1",
        "select values from t",
        "select substring(a from 1 for 3), overlay(a placing 'x' from 1 for 2) from t",
    ] {
        assert_read(sql);
    }
}

#[test]
fn names_in_front_of_parentheses() {
    for sql in [
        "with t(a, b) as (select 1, 2) select * from t",
        "with recursive t(n) as (values (1) union all select n + 1 from t where n < 9), u(m) as \
         (select n from t) select * from u",
        "with a as materialized (select 1), b as not materialized (select 2) select * from a, b",
        "with a as (select 1) (select * from a) order by 1, lower('x')",
        "with a as (with b as (select 1) select * from b) select * from a",
        "with recursive t(a, b) as (select 1, 2) search depth first by a, b set o select * from t",
        "with recursive t(a, b) as (select 1, 2) cycle a, b set c to true default false using p \
         select * from t",
        "with t as (values (1)) values (2)",
        "with t as (select 1) table t",
        "select * from (values (1, 2)) t(a, b)",
        "select * from (select 1) as t(a) join (select 2) u(a) on (t.a = u.a)",
        "select * from generate_series(1, 3) g(n), unnest(array[1]) with ordinality o(a, b)",
        "select * from unnest(array[1]) with ordinality as o(a, b)",
        "select * from json_to_record('{}') as x(a numeric(10, 2), b varchar(5), c interval(3))",
        "select * from rows from (generate_series(1, 2), generate_series(1, 3)) as t(a, b)",
        "select a::numeric(10, 2), b::varchar(20), cast(c as character varying(3)), d::bit(3), \
         e::timestamp(3) with time zone, f::public.my_type(4), g::character varying(3) from t",
        "select interval '1' second(3), interval(3) '1 day', timestamp(3) '2020-01-01'",
        "select * from a left join (b inner join c on b.x = c.x) on a.x = b.x",
        "select * from a join (b join c using (x)) using (x)",
        "select * from a cross join (select 1) s natural join b",
        "select * from a, lateral (select a.x) s(y)",
        "select * from t tablesample bernoulli(10) repeatable (5)",
        "select * from t tablesample system (1)",
        "select a operator(pg_catalog.+) b, operator(pg_catalog.-) 1 from t",
        "select c.relname from pg_catalog.pg_class c where c.relname operator(pg_catalog.~) \
         '^(t)$' collate pg_catalog.default",
        "select case (a) when (1) then (2) else (3) end from t",
        "select a between (1) and (2), a not in (1), a like (b), a not ilike (b), a is null from t",
        "select (a, b) overlaps (c, d), row(1, 2) = (1, 2), row (a) from t",
        "select a at time zone ('utc'), a at time zone (select 'utc') from t",
        "select greatest(a, b), least(a), nullif(a, b), coalesce(a), extract(epoch from a), \
         position('a' in b), trim(both 'x' from a), normalize(a), collation for (a) from t",
        "select array(select 1), array[(1)], exists (select 1), a = some (array[1]) from t",
        "select a from t order by (a), (b) limit (1) offset (2)",
        "select a from t fetch first 3 rows only",
        "select xmlelement(name a, xmlattributes(b as c), xmlforest(d)), xmlagg(x) from t",
        "select xmlparse(content '<a/>'), xmlserialize(content a as text), xmlroot(x, version '1')",
        "select * from xmltable('/a' passing x columns b int path 'b', n for ordinality)",
        "select json_object('a': 1), json_array(1), json_value('{}', '$.a' returning numeric(3, 1))",
        "select * from json_table('[]', '$[*]' columns (a int path '$.a', nested path '$' columns \
         (b int path '$.b'))) as jt",
        "select current_timestamp(3), localtime(0), current_user, session_user, current_schema, \
         current_schema(), current_date, user, current_catalog, current_role",
        "select count(distinct a), string_agg(a, ',' order by b), array_agg(a) from t",
        "select left('abc', 1), right('abc', 1), replace('a', 'b', 'c'), char_length('x')",
    ] {
        assert_read(sql);
    }
}

#[test]
fn explain_and_copy() {
    for sql in [
        "explain select 1",
        "explain analyze verbose select 1",
        "explain (analyze, buffers, format json) with a as (select 1) select * from a",
        "explain (costs off) (select 1)",
        "explain (select 1)",
        "explain ((select 1) union (select 2))",
        "explain verbose table t",
        "explain values (1)",
        "copy t to stdout",
        "copy public.t (a, b) to stdout with (format csv, header true, force_quote (a, b))",
        "copy (select * from t) to stdout csv header",
        "copy (values (1)) to stdout",
        "copy (with a as (select 1) table a) to stdout with (format 'binary')",
        "COPY t TO STDOUT (FORMAT csv, FORCE_QUOTE *)",
    ] {
        assert_read(sql);
    }
}

#[test]
fn what_tools_and_orms_ask() {
    for sql in [
        // psql's \d
        "SELECT n.nspname as \"Schema\", c.relname as \"Name\", CASE c.relkind WHEN 'r' THEN \
         'table' END as \"Type\", pg_catalog.pg_get_userbyid(c.relowner) as \"Owner\" FROM \
         pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace LEFT \
         JOIN pg_catalog.pg_am am ON am.oid = c.relam WHERE c.relkind IN ('r','p','') AND \
         n.nspname <> 'pg_catalog' AND n.nspname !~ '^pg_toast' AND \
         pg_catalog.pg_table_is_visible(c.oid) ORDER BY 1,2",
        // Rails, Django, SQLAlchemy
        "SELECT a.attname, format_type(a.atttypid, a.atttypmod), pg_get_expr(d.adbin, \
         d.adrelid), a.attnotnull, col_description(a.attrelid, a.attnum) AS comment FROM \
         pg_attribute a LEFT JOIN pg_attrdef d ON a.attrelid = d.adrelid AND a.attnum = d.adnum \
         WHERE a.attrelid = '\"t\"'::regclass AND a.attnum > 0 AND NOT a.attisdropped",
        "SELECT table_name FROM information_schema.tables WHERE table_schema = ANY \
         (current_schemas(false)) AND table_type = 'BASE TABLE'",
        "SELECT \"t\".\"id\", \"t\".\"name\" FROM \"t\" WHERE (\"t\".\"id\" IN ($1, $2) AND \
         UPPER(\"t\".\"name\"::text) LIKE UPPER($3)) ORDER BY \"t\".\"id\" ASC LIMIT 21",
        "select pg_catalog.version()",
        "SELECT current_setting('server_version_num'), current_setting('app.tenant', true)",
        "SELECT EXISTS(SELECT 1 FROM pg_type WHERE typname = 'hstore')",
        "SELECT setting FROM pg_db_role_setting".replace("setting FROM", "* FROM").as_str(),
    ] {
        assert_read(sql);
    }
}

fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("1".to_owned()),
        Just("a".to_owned()),
        Just("t.updated_at".to_owned()),
        Just("\"Insert\"".to_owned()),
        Just("'it''s; delete'".to_owned()),
        Just("$1".to_owned()),
        Just("$q$ into $q$".to_owned()),
        Just("now()".to_owned()),
        Just("current_user".to_owned()),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        let i = inner.clone();
        prop_oneof![
            (inner.clone(), i.clone()).prop_map(|(a, b)| format!("{a} + {b}")),
            (inner.clone(), i.clone()).prop_map(|(a, b)| format!("coalesce({a}, {b})")),
            (inner.clone(), i.clone()).prop_map(|(a, b)| format!("({a}) in ({b})")),
            (inner.clone(), i.clone()).prop_map(|(a, b)| format!("case when {a} then {b} end")),
            (inner.clone(), i.clone()).prop_map(|(a, b)| format!("{a} between {b} and {b}")),
            inner.clone().prop_map(|a| format!("pg_catalog.lower({a})")),
            inner.clone().prop_map(|a| format!("({a})::numeric(10,2)")),
            inner.clone().prop_map(|a| format!("cast({a} as varchar(3))")),
            inner.clone().prop_map(|a| format!("array[{a}]")),
            inner.clone().prop_map(|a| format!("exists (select {a})")),
            inner.clone().prop_map(|a| format!("count(*) filter (where {a}) over (order by {a})")),
            inner.prop_map(|a| format!("-({a})/* c */")),
        ]
    })
}

fn query() -> impl Strategy<Value = String> {
    let core = (expression(), expression(), 0..6_u8).prop_map(|(a, b, shape)| match shape {
        0 => format!("select {a} from t where {b}"),
        1 => format!("select distinct on ({a}) {b} as x from t u join v on ({b})"),
        2 => format!("values ({a}, {b})"),
        3 => format!("select * from (values ({a})) t(x), generate_series(1, 2) as g(n)"),
        4 => format!("select {a} from t group by {b} having {a} order by {b} limit 1"),
        _ => format!("with q(a) as (select {a}), r as (values ({b})) select * from q, r"),
    });
    core.prop_recursive(3, 16, 2, |inner| {
        let i = inner.clone();
        prop_oneof![
            (inner.clone(), i.clone()).prop_map(|(a, b)| format!("({a}) union all ({b})")),
            (inner.clone(), i.clone())
                .prop_map(|(a, b)| format!("with q as ({a}), r(x) as ({b}) select * from q")),
            inner.clone().prop_map(|a| format!("select * from ({a}) s(a, b)")),
            inner.prop_map(|a| format!("select ({a}), array({a})")),
        ]
    })
}

proptest! {
    #[test]
    fn generated_reads_are_reads(sql in query(), form in 0..5_u8) {
        let sql = match form {
            0 => format!("explain (analyze, costs off) {sql}"),
            1 => format!("copy ({sql}) to stdout"),
            2 => format!("({sql});"),
            3 => sql.to_uppercase().replace("$Q$", "$q$"),
            _ => sql,
        };
        let class = classify(sql.as_bytes(), &catalog(), Dialect::default());
        prop_assert_eq!(class.access, Access::Read, "{}", sql);
        prop_assert_eq!(class.statements, 1);
    }
}
