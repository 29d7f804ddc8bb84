-- Makes src/sql/builtin_functions.txt: what PostgreSQL's own functions mean to a replica.
--
--   psql -XAtq -f docs/catalog/builtin_functions.sql > /tmp/generated.txt
--
-- on a fresh server of the newest version at hand (last run: 15). One name per line; `!` in front
-- of a name that must not run on a replica. Then keep the part of the old file under its
-- `# By hand` line: names that newer or older versions have.
--
-- A name is safe if every function of that name is. A function is safe if it is immutable or
-- stable and not on the deny list, or volatile and on the allow list. Left out, and so unknown:
-- what no query can call (trigger functions, handlers, anything that takes `internal`).
--
-- The allow and deny list are those of src/sql/catalog_query.sql; a test compares them. Two
-- volatile groups that a standby would run are not allowed, on purpose: functions that run SQL
-- hidden in a string or behind a table's name (query_to_xml, ts_stat, table_to_xml), as nobody looks
-- at that SQL, and the status of transactions, which a replica learns late.
WITH callable AS (
    SELECT p.proname::text AS name, p.provolatile
    FROM pg_proc p
    WHERE p.pronamespace = 'pg_catalog'::regnamespace
      AND p.prokind IN ('f', 'a', 'w')
      AND p.prorettype NOT IN (
          'internal'::regtype, 'trigger'::regtype, 'event_trigger'::regtype,
          'language_handler'::regtype, 'fdw_handler'::regtype, 'index_am_handler'::regtype,
          'table_am_handler'::regtype, 'tsm_handler'::regtype, 'cstring'::regtype)
      AND NOT p.proargtypes::oid[] && ARRAY['internal'::regtype::oid, 'cstring'::regtype::oid]
), judged AS (
    SELECT name,
           bool_and(CASE
               WHEN provolatile = 'v' THEN name IN (
                   'clock_timestamp', 'timeofday', 'random', 'gen_random_uuid', 'pg_sleep',
                   'pg_sleep_for', 'pg_sleep_until', 'pg_relation_size', 'pg_table_size',
                   'pg_indexes_size', 'pg_total_relation_size', 'pg_database_size',
                   'pg_tablespace_size', 'pg_partition_tree', 'pg_partition_ancestors',
                   'pg_collation_actual_version', 'pg_database_collation_actual_version',
                   'pg_xact_commit_timestamp', 'pg_xact_commit_timestamp_origin',
                   'current_query', 'pg_jit_available', 'amvalidate')
               ELSE NOT (name LIKE 'pg\_stat\_get\_%' OR name LIKE 'binary\_upgrade\_%'
                   OR name LIKE 'pg\_event\_trigger\_%' OR name IN (
                   'txid_current', 'pg_current_xact_id', 'txid_current_if_assigned',
                   'pg_current_xact_id_if_assigned', 'txid_current_snapshot',
                   'pg_current_snapshot', 'pg_backend_pid', 'inet_client_addr',
                   'inet_client_port', 'pg_postmaster_start_time', 'pg_conf_load_time',
                   'pg_listening_channels', 'pg_my_temp_schema', 'pg_prepared_statement',
                   'pg_cursor', 'pg_trigger_depth', 'pg_walfile_name', 'pg_walfile_name_offset', 'pg_get_replication_slots',
                   'pg_show_all_settings', 'pg_stop_making_pinned_objects',
                   'table_to_xml', 'table_to_xml_and_xmlschema', 'table_to_xmlschema',
                   'schema_to_xml', 'schema_to_xml_and_xmlschema', 'schema_to_xmlschema',
                   'database_to_xml', 'database_to_xml_and_xmlschema', 'database_to_xmlschema'))
           END) AS safe
    FROM callable
    GROUP BY name
)
SELECT CASE WHEN safe THEN '' ELSE '!' END || name
FROM judged
ORDER BY name COLLATE "C";
