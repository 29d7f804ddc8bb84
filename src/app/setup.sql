-- Lets Tidegate see what it needs: lag, and the stored passwords of roles that log in through it.
-- Run by a superuser with psql, on the primary, in the database {database}; as often as you like.
-- Where the nodes' URLs name a superuser, none of this is needed.{others}
\set ON_ERROR_STOP on
SET search_path = pg_catalog, pg_temp;
BEGIN;

-- The role that Tidegate itself logs in as. Give it a password with \password, and put that into the nodes' URLs.
SELECT format('CREATE ROLE %I LOGIN', {name})
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {name}) \gexec

-- Which timeline a standby receives. All else that is polled, PUBLIC may see; whoever has taken that away gives it back
-- to this role: EXECUTE on pg_control_system(), pg_control_recovery() and pg_logical_emit_message(boolean, text, text),
-- and CONNECT on every database that clients use.
GRANT pg_monitor TO {role};

-- Where this schema was somebody else's, that role could put another function in the place of ours.
CREATE SCHEMA IF NOT EXISTS tidegate;
ALTER SCHEMA tidegate OWNER TO CURRENT_USER;
REVOKE ALL ON SCHEMA tidegate FROM PUBLIC;
GRANT USAGE ON SCHEMA tidegate TO {role};

-- A function that is replaced keeps its owner and grants, which is right only where a superuser has made it.
SELECT 'DROP FUNCTION tidegate.verifier(text)'
  FROM pg_proc AS p JOIN pg_roles AS o ON o.oid = p.proowner
 WHERE p.oid = to_regprocedure('tidegate.verifier(text)') AND NOT o.rolsuper \gexec

-- The stored password of a role, whether it may log in, and the seconds until VALID UNTIL (null: never).
--
-- It tells them for every role, as PgBouncer's documented function does: a superuser can log in through Tidegate as he
-- can without it. Whoever has the monitor's password can then read what is stored of theirs: a SCRAM verifier, good for
-- guessing and no more, but an md5 hash is as good as the password. To keep superusers out, take the line with rolsuper
-- in.
CREATE OR REPLACE FUNCTION tidegate.verifier(name text)
  RETURNS TABLE(password text, can_login boolean, seconds_left double precision, role oid)
  LANGUAGE sql STABLE STRICT SECURITY DEFINER ROWS 1
  SET search_path = pg_catalog, pg_temp
AS $verifier$
  SELECT r.rolpassword, r.rolcanlogin,
    CASE r.rolvaliduntil
      WHEN 'infinity' THEN NULL
      WHEN '-infinity' THEN '-infinity'::double precision
      ELSE extract(epoch FROM r.rolvaliduntil - now())::double precision
    END, r.oid
  FROM pg_catalog.pg_authid AS r
  WHERE r.rolname = $1
    -- AND NOT r.rolsuper
$verifier$;
REVOKE ALL ON FUNCTION tidegate.verifier(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tidegate.verifier(text) TO {role};

COMMIT;
