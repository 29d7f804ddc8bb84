#!/usr/bin/env bash
# psql, pgbench -i, pg_dump and pg_restore: what an administrator does. Prints what it sees.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export PGOPTIONS=

# Each command is a session of its own, and what another one has written is not promised to be seen at once: before it, the
# standbys replay all.
settled() {
  command psql -X -q -c 'do $$ declare here pg_lsn := pg_current_wal_flush_lsn(); begin
    while exists (select from pg_stat_replication where replay_lsn is null or replay_lsn < here) loop
      perform pg_sleep(0.005); end loop; end $$' </dev/null
}
psql() { settled; command psql -X "$@" 2>&1; }
for tool in pgbench pg_dump pg_restore vacuumdb reindexdb clusterdb; do eval "$tool() { settled; command $tool \"\$@\"; }"; done

echo "== meta-commands"
psql -v ON_ERROR_STOP=0 <<'SQL'
create table t (id int primary key, v text, at date default '2020-01-01');
insert into t(id, v) select n, 'v' || n from generate_series(1, 5000) n;
\copy (select id, v from t order by id) to 't.csv' with (format csv, header)
\copy t(id, v) from program 'sed "1d; s/^/9000/" t.csv | head -n 100' with (format csv)
select count(*) from t;
\copy t(id, v) from 't.csv' with (format csv, header)
select count(*) from t;
\copy (select id from t order by id limit 3) to program 'cat >&2' csv
begin;
\copy t(id, v) from pstdin
100001	in a transaction
\.
rollback;
select 1 as a, 'x'::text as b, now() as c, array[1, 2] as d \gdesc
update t set v = 'gdesc' where id = 1 \gdesc
selekt \gdesc
select count(*) as n, max(id) as largest from t where id < 1000 \gset seen_
\echo :seen_n :seen_largest
select v from t where id = :seen_largest;
select 1 from t limit 2 \gset
select v from t where id = -1 \gset
select format('create index on t(%I)', c) from unnest(array['v', 'at']) c order by 1 \gexec
select format('select count(*) as %s from t where id %% 2 = %s', n, i) from (values (0, 'even'), (1, 'odd')) x(i, n) order by i
\gexec
select id % 3 as row, id % 2 as col, count(*) from t where id <= 100 group by 1, 2 order by 1, 2 \crosstabview row col
\pset format unaligned
select id, v from t where id < 4 order by id \g (format=csv)
\x on
select * from t where id = 2;
\x off
\set FETCH_COUNT 100
select id from t where id <= 1000 and id % 250 = 0 order by id;
select count(*) from (select * from t) s;
select 1 / (id - 150) from t where id < 400 order by id \g 'ends-in-an-error.txt'
\set FETCH_COUNT 0
\set AUTOCOMMIT off
insert into t(id, v) values (200000, 'no autocommit');
select v from t where id = 200000;
rollback;
select count(*) from t where id = 200000;
commit;
\set AUTOCOMMIT on
\set ON_ERROR_ROLLBACK on
begin;
insert into t(id, v) values (200001, 'kept');
insert into t(id, v) values (200001, 'again');
select 1/0;
commit;
select v from t where id = 200001;
\set ON_ERROR_ROLLBACK off
select :VERSION_NUM >= 160000 as binds \gset
\if :binds
select $1::int + $2::int as sum \bind 2 3 \g
select v from t where id = $1 \bind 7 \g
\endif
begin \; insert into t(id, v) values (200002, 'several') \; commit \; select v from t where id = 200002;
select 1 as one \; select 2 as two \; select 1/0 \; select 3 as never;
\set SHOW_ALL_RESULTS off
select 1 as one \; select 2 as two;
\set VERBOSITY verbose
select nonsense from t;
\set VERBOSITY sqlstate
select nonsense from t;
\errverbose
\set VERBOSITY default
prepare q(int) as select v from t where id = $1;
execute q(3);
execute q(4);
execute q(200001);
deallocate q;
execute q(3);
begin;
declare c scroll cursor for select id from t order by id;
fetch 2 from c;
move 10 in c;
fetch backward 1 from c;
commit;
\d t
\d+ t
\di
\df
\dn
\dT
\l nothing
\sf not_there
\encoding LATIN1
select 'ü' = chr(252);
\encoding UTF8
set client_min_messages = debug1;
reset client_min_messages;
do $$ begin raise notice 'said'; raise info 'told'; end $$;
create function f(n int) returns int language sql as 'select n * 2';
\sf f
create view w as select * from t where id < 10;
\sv w
select * from w where id = f(2);
create temporary table scratch(n int);
insert into scratch select generate_series(1, 10);
select sum(n) from scratch;
discard all;
select sum(n) from scratch;
vacuum t;
analyze t;
explain (costs off, analyze off) select * from t where id = 1;
SQL

echo "== single transactions, variables, several commands"
psql -1 -q -c "create table one(n int)" -c "insert into one values (1)" -c "insert into one values ('x')" || true
psql -c "select count(*) from pg_class where relname = 'one'"
psql -v word="it's" -v table=t -Atq <<'SQL'
select :'word', count(*) from :"table" where id < 5;
SQL
printf '100\n200\n' | psql -c "create table fed(n int)" -c "copy fed from stdin" -c "select sum(n) from fed"
psql -At -c "copy (select generate_series(1, 100000)) to stdout" | awk '{s += $1} END {print s}'
psql -At -c "copy (select generate_series(1, 100000)) to stdout" | head -n 1 || true
psql -At -v ON_ERROR_STOP=1 -c "select 1/0" || echo "status $?"

echo "== \\watch, until an error ends it"
psql -q <<'SQL'
create sequence turns;
create table watched(n int);
insert into watched values (0);
\t on
select 12 / (4 - nextval('turns')) \watch 0.05
select nextval('turns');
select 1 as again \; select 12 / (9 - nextval('turns')) \watch 0.05
select nextval('turns');
begin;
create unique index on watched((n % 3));
insert into watched select count(*) from watched returning n \watch 0.05
select count(*) from watched;
rollback;
select count(*) from watched;
SQL
# A read, until another session's write has come to be seen.
psql -Atq <<<'select 1 / (1 - n) from watched \watch 0.05' | {
  read -r seen
  echo "$seen"
  psql -q -c "update watched set n = 1"
  grep ERROR
}

echo "== pgbench -i"
pgbench -i -q -s 2 --foreign-keys >/dev/null 2>&1
psql -At -c "select count(*), sum(abalance) from pgbench_accounts"
pgbench -i -q -I dtGvpf --partitions=4 --unlogged-tables >/dev/null 2>&1
psql -At -c "select count(*) from pgbench_accounts" -c "select count(*) from pg_inherits"
cat >own.sql <<'SQL'
\set n random(1, 100000)
\startpipeline
update pgbench_accounts set abalance = abalance + 1 where aid = :n;
select abalance from pgbench_accounts where aid = :n;
\endpipeline
begin;
select abalance as before from pgbench_accounts where aid = :n for update \gset
update pgbench_accounts set abalance = :before + 1 where aid = :n;
end;
SQL
pgbench -n -M extended -c 4 -j 2 -t 50 -f own.sql 2>&1 | grep failed
sed '/pipeline/d' own.sql >plain.sql
for mode in simple prepared; do pgbench -n -M $mode -c 4 -j 2 -t 50 -f plain.sql 2>&1 | grep failed; done
psql -At -c "select sum(abalance) from pgbench_accounts"

echo "== pg_dump and pg_restore"
psql -q <<'SQL'
drop table if exists pgbench_accounts, pgbench_branches, pgbench_history, pgbench_tellers;
create type mood as enum ('good', 'bad');
create table parent(id serial primary key, m mood default 'good', big text, bin bytea, doc jsonb);
create table child(id bigint generated always as identity, parent int references parent on delete cascade, unique (parent, id));
create materialized view sums as select count(*) from parent;
create function touched() returns trigger language plpgsql as 'begin new.big := coalesce(new.big, ''touched''); return new; end';
create trigger touch before insert on parent for each row execute function touched();
insert into parent(big, bin, doc) select repeat('x', n), decode(repeat('00ff', n), 'hex'), jsonb_build_object('n', n)
  from generate_series(1, 500) n;
insert into parent(big) values (null), (E'tab\t, newline\n, \\. and ü');
insert into child(parent) select id from parent;
refresh materialized view sums;
select lo_from_bytea(4711, '\x0102ff') > 0;
comment on table parent is 'it''s a comment';
SQL
summary() {
  psql -At <<'SQL'
select count(*), md5(string_agg(p::text, ',' order by id)) from parent p;
select count(*), sum(parent) from child;
select * from sums;
select count(*), sum(id) from t;
select encode(lo_get(4711), 'hex');
select relname, relkind from pg_class where relnamespace = 'public'::regnamespace order by 1;
select nextval('parent_id_seq');
insert into child(parent) values (1) returning id;
SQL
}
# Newer versions write a random word there.
text() { grep -v -e '^.restrict' -e '^.unrestrict'; }
pg_dump -Fc -f all.dump
pg_dump --inserts --rows-per-insert=50 -t parent | text | md5sum
pg_dump -s | text
pg_dump -Fd -j 3 -f all.folder
pg_restore -l all.dump | grep -c -v '^;'
psql -q -c "drop schema public cascade" -c "create schema public" -c "select lo_unlink(4711)" 2>/dev/null >/dev/null
pg_restore -d "$PGDATABASE" --exit-on-error --single-transaction all.dump
summary
psql -q -c "drop schema public cascade" -c "create schema public" -c "select lo_unlink(4711)" 2>/dev/null >/dev/null
pg_restore -d "$PGDATABASE" --exit-on-error -j 3 all.folder
summary
pg_restore -d "$PGDATABASE" --clean --if-exists all.dump
summary
pg_dump -Fc | command pg_restore --clean --if-exists -d "$PGDATABASE"
summary
vacuumdb -q -z -j 2
reindexdb -q
clusterdb -q
echo done
