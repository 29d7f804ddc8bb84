-- What the names of this database mean to a replica: rows (kind, name).
--
-- pg_depend does not record that a view needs one of PostgreSQL's own functions, so the stored
-- parse trees of views and policies are searched for the functions and relations they use. For
-- PostgreSQL's own views, three quarters of that work, this is done once per connection: the rows
-- ('system_relation', oid) of the first time ($1 null) are given back as $1 from then on.
WITH RECURSIVE
-- Functions that must not run on a replica. The two lists are those of
-- docs/catalog/builtin_functions.sql, but for pg_my_temp_schema: the views of information_schema
-- use it, and a session with temporary tables reads from the primary anyway.
bad_function AS (
    SELECT p.oid
    FROM pg_catalog.pg_proc p
    WHERE CASE
        WHEN p.pronamespace <> 'pg_catalog'::regnamespace THEN p.provolatile = 'v'
            -- Random numbers need no primary; pgcrypto brings its own gen_random_uuid().
            AND NOT EXISTS (
                SELECT FROM pg_catalog.pg_depend d
                JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
                WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid
                  AND d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.deptype = 'e'
                  AND e.extname IN ('pgcrypto', 'uuid-ossp')
                  AND p.proname = ANY (ARRAY[
                      'gen_random_uuid', 'gen_random_bytes', 'gen_salt', 'pgp_sym_encrypt',
                      'pgp_sym_encrypt_bytea', 'pgp_pub_encrypt', 'pgp_pub_encrypt_bytea',
                      'uuid_generate_v1', 'uuid_generate_v1mc', 'uuid_generate_v4']::name[]))
        WHEN p.provolatile = 'v' THEN p.proname <> ALL (ARRAY[
            'clock_timestamp', 'timeofday', 'random', 'gen_random_uuid', 'pg_sleep',
            'pg_sleep_for', 'pg_sleep_until', 'pg_relation_size', 'pg_table_size',
            'pg_indexes_size', 'pg_total_relation_size', 'pg_database_size',
            'pg_tablespace_size', 'pg_partition_tree', 'pg_partition_ancestors',
            'pg_collation_actual_version', 'pg_database_collation_actual_version',
            'pg_xact_commit_timestamp', 'pg_xact_commit_timestamp_origin',
            'current_query', 'pg_jit_available', 'amvalidate',
            'random_normal', 'uuidv4', 'uuidv7', 'array_sample', 'array_shuffle']::name[])
        ELSE p.proname LIKE 'pg\_stat\_get\_%' OR p.proname = ANY (ARRAY[
            'txid_current', 'pg_current_xact_id', 'txid_current_if_assigned',
            'pg_current_xact_id_if_assigned', 'txid_current_snapshot',
            'pg_current_snapshot', 'pg_backend_pid', 'inet_client_addr',
            'inet_client_port', 'pg_postmaster_start_time', 'pg_conf_load_time',
            'pg_listening_channels', 'pg_prepared_statement', 'pg_cursor',
            'pg_trigger_depth', 'pg_walfile_name', 'pg_walfile_name_offset',
            'pg_get_replication_slots', 'pg_show_all_settings',
            'table_to_xml', 'table_to_xml_and_xmlschema', 'table_to_xmlschema',
            'schema_to_xml', 'schema_to_xml_and_xmlschema', 'schema_to_xmlschema',
            'database_to_xml', 'database_to_xml_and_xmlschema',
            'database_to_xmlschema']::name[])
    END
),
-- Aggregates are immutable by their own label; what counts is what they call.
bad_aggregate AS (
    SELECT p.oid
    FROM pg_catalog.pg_aggregate a
    JOIN pg_catalog.pg_proc p ON p.oid = a.aggfnoid,
         LATERAL unnest(ARRAY[a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn,
                              a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn,
                              a.aggmfinalfn]::oid[]) f (oid)
    JOIN bad_function b ON b.oid = f.oid
    WHERE p.pronamespace <> 'pg_catalog'::regnamespace
),
bad AS (
    SELECT oid FROM bad_function
    UNION
    SELECT oid FROM bad_aggregate
),
-- Stored parse trees by the relation whose readers run them. A materialised view is read like a
-- table, and the views of information_schema are known to be safe.
tree AS (
    SELECT r.ev_class AS relation, r.ev_action::text AS body
    FROM pg_catalog.pg_rewrite r
    JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'v' AND r.ev_type = '1' AND n.nspname <> 'information_schema'
      -- Those that initdb makes have smaller numbers (FirstNormalObjectId).
      AND ($1::oid[] IS NULL OR c.oid >= 16384)
    UNION ALL
    SELECT p.polrelid, p.polqual::text
    FROM pg_catalog.pg_policy p
    JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
    WHERE p.polcmd IN ('r', '*') AND p.polqual IS NOT NULL AND c.relrowsecurity
),
used AS MATERIALIZED (
    SELECT DISTINCT t.relation, m[1] AS field, m[2]::oid AS target
    FROM tree t,
         LATERAL regexp_matches(
             t.body, ':(funcid|opfuncid|aggfnoid|winfnoid|relid|tsmhandler) (\d+)', 'g') m
),
-- Relations that replicas do not have or answer otherwise: unlogged, sequences, foreign.
bad_relation (oid) AS (
    SELECT c.oid
    FROM pg_catalog.pg_class c
    WHERE c.relkind IN ('S', 'f') OR (c.relpersistence = 'u' AND c.relkind IN ('r', 'p'))
    UNION
    SELECT unnest($1::oid[])
    UNION
    SELECT u.relation
    FROM used u
    JOIN bad b ON b.oid = u.target AND u.field <> 'relid'
    UNION
    SELECT edge.relation
    FROM bad_relation b
    JOIN (
        SELECT u.relation, u.target FROM used u WHERE u.field = 'relid'
        UNION ALL
        -- Who reads a parent reads its children.
        SELECT i.inhparent, i.inhrelid FROM pg_catalog.pg_inherits i
    ) edge ON edge.target = b.oid
),
-- Types that a cast, or the check of a domain, makes run such a function.
bad_type AS (
    SELECT t.oid, t.typname, t.typnamespace
    FROM pg_catalog.pg_cast c
    JOIN bad b ON b.oid = c.castfunc,
         LATERAL unnest(ARRAY[c.castsource, c.casttarget]) s (oid)
    JOIN pg_catalog.pg_type t ON t.oid = s.oid
    UNION
    SELECT t.oid, t.typname, t.typnamespace
    FROM pg_catalog.pg_constraint c
    JOIN pg_catalog.pg_type t ON t.oid = c.contypid,
         LATERAL regexp_matches(c.conbin::text, ':(?:funcid|opfuncid) (\d+)', 'g') m
    JOIN bad b ON b.oid = m[1]::oid
),
code AS MATERIALIZED (
    -- Keywords are ASCII, whatever the database makes of letters.
    SELECT p.oid, p.proname, pg_catalog.lower(p.prosrc COLLATE "C") AS body
    FROM pg_catalog.pg_proc p
    WHERE p.pronamespace <> 'pg_catalog'::regnamespace
),
-- Code that sets something for good, as far as its text shows it.
setting AS MATERIALIZED (
    SELECT c.oid, c.proname
    FROM code c
    WHERE c.body ~ ('set_config|\mset\s+(session\s+)?(role|authorization|search_path|schema|time\s*zone|names'
                    '|[a-z_]+\.[a-z_.]+\s*(=|to\M)|row_security|session_replication_role|application_name'
                    '|client_encoding|datestyle|intervalstyle|work_mem|[a-z_]*_timeout|default_transaction_\w+)')
),
-- Names of code that may leave what binds a session to its server, by its text or by that of code which it mentions.
binding_name (proname) AS (
    SELECT c.proname
    FROM code c
    WHERE c.body ~ ('advisory_(un)?lock|\m(create|into)\s+(or\s+replace\s+)?((local|global)\s+)?temp(orary)?\M|\mpg_temp'
                    '|\m(listen|prepare)\M|\mwith\s+hold\M')
    UNION
    SELECT c.proname
    FROM binding_name b
    JOIN code c ON CASE
        WHEN pg_catalog.strpos(c.body, pg_catalog.lower(b.proname::text COLLATE "C")) = 0 THEN false
        -- As a word, where a pattern can say so.
        WHEN b.proname ~ '^\w+$' THEN c.body ~ ('\m' || pg_catalog.lower(b.proname::text COLLATE "C") || '\M')
        ELSE true
    END
),
binding AS MATERIALIZED (
    SELECT c.oid, c.proname FROM code c WHERE c.proname IN (SELECT b.proname FROM binding_name b)
),
leaving AS MATERIALIZED (
    SELECT s.oid FROM setting s
    UNION
    SELECT b.oid FROM binding b
),
-- Relations whose writers run such code: in triggers, defaults and checks, also those of partitions.
hiding (oid) AS (
    (
        SELECT t.tgrelid FROM pg_catalog.pg_trigger t JOIN leaving l ON l.oid = t.tgfoid
        UNION ALL
        SELECT e.relation
        FROM (
            SELECT d.adrelid, d.adbin::text FROM pg_catalog.pg_attrdef d
            UNION ALL
            SELECT c.conrelid, c.conbin::text FROM pg_catalog.pg_constraint c WHERE c.contype = 'c' AND c.conrelid <> 0
        ) e (relation, body),
        LATERAL regexp_matches(e.body, ':(?:funcid|opfuncid) (\d+)', 'g') m
        JOIN leaving l ON l.oid = m[1]::oid
    )
    UNION
    SELECT i.inhparent FROM hiding h JOIN pg_catalog.pg_inherits i ON i.inhrelid = h.oid
)
SELECT DISTINCT kind, name::text
FROM (
    SELECT CASE WHEN EXISTS (SELECT FROM bad b WHERE b.oid = p.oid)
                THEN 'unsafe_function' ELSE 'safe_function' END AS kind,
           p.proname AS name
    FROM pg_catalog.pg_proc p
    WHERE p.pronamespace <> 'pg_catalog'::regnamespace
      AND p.prokind <> 'p'
      AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
    UNION ALL
    SELECT 'binding_function', b.proname
    FROM binding b
    UNION ALL
    SELECT 'setting_function', s.proname
    FROM setting s
    UNION ALL
    SELECT 'hiding_relation', c.relname
    FROM hiding h
    JOIN pg_catalog.pg_class c ON c.oid = h.oid
    UNION ALL
    SELECT 'unsafe_relation', c.relname
    FROM bad_relation b
    JOIN pg_catalog.pg_class c ON c.oid = b.oid
    WHERE c.relpersistence <> 't'
      AND c.relnamespace NOT IN (
          SELECT n.oid FROM pg_catalog.pg_namespace n
          WHERE n.nspname IN ('pg_catalog', 'information_schema'))
    UNION ALL
    SELECT 'system_relation', b.oid::text::name
    FROM bad_relation b
    WHERE $1::oid[] IS NULL AND b.oid < 16384
    UNION ALL
    SELECT 'unsafe_relation', t.typname
    FROM bad_type t
    WHERE t.typnamespace <> 'pg_catalog'::regnamespace
    UNION ALL
    SELECT 'unsafe_operator', o.oprname
    FROM pg_catalog.pg_operator o
    JOIN bad b ON b.oid = o.oprcode
) names (kind, name)
