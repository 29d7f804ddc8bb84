//! The SQL that asks for a role, and how its answers and errors are read.

use std::time::Duration;

use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Client, Error, Row, Statement};

use super::login::{self, describe};
use crate::auth::RoleSecret;
use crate::auth::role_secret::MAX_PASSWORD;
use crate::auth::verifier_cache::Known;
use crate::config::settings::NodeSettings;
use crate::net::Connector;
use crate::net::timers::timeout;

/// With no search path every name that is not qualified is PostgreSQL's own.
const PREPARE_SESSION: &str = "SET application_name = 'tidegate logins'; SET search_path = ''; \
  SET statement_timeout = '3s'; SET lock_timeout = '3s'";

/// How long one question may take; longer than its `statement_timeout`.
const ASK_LIMIT: Duration = Duration::from_secs(4);

/// Whether we may read `pg_authid`, and whether there is a `tidegate.verifier(text)` that we may call. Only one that a
/// superuser owns, in a superuser's schema, is taken without being named: others may be anybody's who may create a schema.
const WAYS: &str = "SELECT \
  (SELECT bool_and(has_column_privilege('pg_catalog.pg_authid', c, 'SELECT')) \
     FROM unnest(ARRAY['rolname', 'rolpassword', 'rolcanlogin', 'rolvaliduntil']) AS c), \
  EXISTS (SELECT FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace \
     JOIN pg_roles AS po ON po.oid = p.proowner JOIN pg_roles AS no ON no.oid = n.nspowner \
     WHERE n.nspname = 'tidegate' AND p.proname = 'verifier' AND p.proargtypes = '25'::oidvector \
       AND po.rolsuper AND no.rolsuper \
       AND has_schema_privilege(n.oid, 'USAGE') AND has_function_privilege(p.oid, 'EXECUTE'))";

/// Infinities cannot be subtracted from before PostgreSQL 17.
const FROM_PG_AUTHID: &str = "SELECT rolpassword, rolcanlogin, \
  CASE rolvaliduntil WHEN 'infinity' THEN NULL WHEN '-infinity' THEN '-infinity'::float8 \
    ELSE extract(epoch FROM rolvaliduntil - now())::float8 END, oid \
  FROM pg_catalog.pg_authid WHERE rolname = $1";

const FROM_FUNCTION: &str = "SELECT password, can_login, seconds_left, role FROM tidegate.verifier($1)";

/// What went wrong. No text holds anything that a client has sent, or a password.
#[derive(Debug)]
pub(super) enum Fault {
    /// The connection, or the server behind it.
    Broken(String),
    /// The answer took too long.
    Late(String),
    /// The database does not let us ask in this way.
    Refused(String),
    /// The question for this name.
    Failed(String),
}

/// A connection with the question prepared on it.
pub(super) struct RoleQuery {
    client: Client,
    statement: Statement,
}

impl RoleQuery {
    /// Connects, and finds out how to ask: by the configured text, else from `pg_authid`, else by
    /// `tidegate.verifier(text)`.
    pub(super) async fn open(
        node: &NodeSettings,
        connector: &Connector,
        limit: Duration,
        query: Option<&str>,
    ) -> Result<Self, Fault> {
        let client = login::connect(node, connector, None, limit)
            .await
            .map_err(|failure| Fault::Broken(failure.to_string()))?;
        client.batch_execute(PREPARE_SESSION).await.map_err(|e| fault(&e))?;
        let query = match query {
            Some(query) => query,
            None => way(&client).await?,
        };
        // No data is read yet, so that what the database says about the text holds no secret.
        let statement = client.prepare_typed(query, &[Type::TEXT]).await.map_err(|e| match fault(&e) {
            fault @ (Fault::Broken(_) | Fault::Late(_)) => fault,
            Fault::Refused(_) | Fault::Failed(_) => Fault::Refused(describe(&e)),
        })?;
        check(query, &statement)?;
        Ok(Self { client, statement })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Asks for a role. `asked` is the time now.
    pub(super) async fn ask(&self, user: &str, asked: Duration) -> Result<Known, Fault> {
        let rows = match timeout(ASK_LIMIT, self.client.query(&self.statement, &[&user])).await {
            Ok(Ok(rows)) => rows,
            Ok(Err(error)) if is_no_name(&error) => return Ok(None),
            Ok(Err(error)) => return Err(fault(&error)),
            Err(_) => return Err(Fault::Late(format!("no answer within {ASK_LIMIT:?}"))),
        };
        match rows.as_slice() {
            [] => Ok(None),
            [row] => secret(row, asked).map(Some),
            _ => Err(Fault::Failed("the query returned several rows for one role".to_owned())),
        }
    }
}

async fn way(client: &Client) -> Result<&'static str, Fault> {
    let row = client.query_one(WAYS, &[]).await.map_err(|e| fault(&e))?;
    let may = |at: usize| row.try_get::<_, Option<bool>>(at).ok().flatten() == Some(true);
    if may(0) {
        return Ok(FROM_PG_AUTHID);
    }
    if may(1) {
        return Ok(FROM_FUNCTION);
    }
    Err(Fault::Refused(
        "the monitor's role may neither read pg_authid nor call a superuser's tidegate.verifier(text)"
            .to_owned(),
    ))
}

/// Whether parameters and columns are those that we can use.
fn check(query: &str, statement: &Statement) -> Result<(), Fault> {
    let refuse = |what: &str| Err(Fault::Refused(what.to_owned()));
    // The type that we give makes a parameter even where the text has none, and everybody would have one password.
    if statement.params().len() != 1 || !query.contains("$1") {
        return refuse("the query must take one parameter, $1: the role's name");
    }
    let kinds: Vec<_> = statement.columns().iter().map(|c| c.type_()).collect();
    if kinds.is_empty() || kinds.len() > 4 {
        return refuse(
            "the query must return password, can_login, seconds_left and the role's oid, or the first of these",
        );
    }
    if !kinds.first().is_some_and(|t| <&str as FromSql>::accepts(t)) {
        return refuse("the query's first column is the stored password, and must be text");
    }
    if kinds.get(1).is_some_and(|t| **t != Type::BOOL) {
        return refuse("the query's second column tells whether the role can log in, and must be boolean");
    }
    if kinds.get(2).is_some_and(|t| **t != Type::FLOAT8) {
        return refuse("the query's third column is the seconds left, and must be double precision");
    }
    if kinds.get(3).is_some_and(|t| **t != Type::OID) {
        return refuse("the query's fourth column is the role's oid, and must be oid");
    }
    Ok(())
}

/// Reads a row. Where it leaves open whether the role can log in, it cannot.
fn secret(row: &Row, asked: Duration) -> Result<RoleSecret, Fault> {
    // What cannot be read may hold a password: the error does not say it.
    let unreadable = |_| Fault::Failed("the query's row cannot be read".to_owned());
    let password: Option<&str> = row.try_get(0).map_err(unreadable)?;
    if password.is_some_and(|p| p.len() > MAX_PASSWORD) {
        return Err(Fault::Failed(format!("a stored password is longer than {MAX_PASSWORD} bytes")));
    }
    let can_login: Option<bool> = match row.len() {
        1 => Some(true),
        _ => row.try_get(1).map_err(unreadable)?,
    };
    let seconds_left: Option<f64> = match row.len() {
        1 | 2 => None,
        _ => row.try_get(2).map_err(unreadable)?,
    };
    let oid: Option<u32> = match row.len() {
        1..=3 => None,
        _ => row.try_get(3).map_err(unreadable)?,
    };
    Ok(RoleSecret::new(password, can_login == Some(true), seconds_left, asked).of(oid))
}

/// The name cannot be written in the database's encoding, so that no role has it.
fn is_no_name(error: &Error) -> bool {
    error.code().is_some_and(|code| matches!(code.code(), "22021" | "22P05"))
}

/// What an error means, by its SQLSTATE's class. Its text may quote data, and is left out.
fn fault(error: &Error) -> Fault {
    let Some(code) = error.code().map(|code| code.code()) else {
        return Fault::Broken(describe(error));
    };
    let said = format!("the query failed with SQLSTATE {code}");
    if code == "57014" {
        return Fault::Late(said);
    }
    match code.get(..2).unwrap_or_default() {
        // Connection, transaction rollback (a conflict with replay), resources, objects in use, operator, system.
        "08" | "40" | "53" | "55" | "57" | "58" => Fault::Broken(said),
        // Privileges and names, and plans that have become invalid.
        "0A" | "3F" | "42" => Fault::Refused(said),
        _ => Fault::Failed(said),
    }
}
