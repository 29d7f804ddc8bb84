create table t (id int primary key, v text);
insert into t select n, 'v' || n from generate_series(1, 10) n;
select * from t order by id;
\d t
\copy (select id from t order by id limit 3) to stdout
\copy t from stdin with (format csv)
11,eleven
12,twelve
\.
select count(*) from t;
begin;
update t set v = 'changed' where id = 1;
savepoint s;
update t set v = 'undone' where id = 1;
rollback to s;
commit;
select v from t where id = 1;
select 1/0;
select id, v from t where id = 2 \gdesc
prepare p as select v from t where id = $1;
execute p(3);
deallocate p;
set work_mem = '3MB';
show work_mem;
explain (costs off) select * from t where id = 1;
with moved as (delete from t where id > 10 returning id) select count(*) from moved;
select count(*) from t;
\dt
