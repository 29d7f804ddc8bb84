SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::bigint
FROM pg_catalog.pg_stat_sys_tables
WHERE schemaname = 'pg_catalog'
  AND relname IN ('pg_proc', 'pg_rewrite', 'pg_policy', 'pg_class', 'pg_operator', 'pg_aggregate',
                  'pg_cast', 'pg_constraint', 'pg_inherits')
