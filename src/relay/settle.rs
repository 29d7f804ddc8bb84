//! Gives a server connection the settings of a session, and waits until it has them.

use std::io;
use std::rc::Rc;

use bytes::{Buf, BytesMut};

use crate::net::invalid_data;
use crate::server::Connection;
use crate::session::pins::Pins;
use crate::session::{SettingsMap, Shared, SharedStatement};
use crate::wire::Frame;
use crate::wire::build;
use crate::wire::client::{SYNC_MESSAGE, tag as tag_of};
use crate::wire::server::{Fields, Status, row, row_shape, tag};

/// Why a server does not have the settings.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// It refused one of them.
    #[error("{message}")]
    Refused {
        /// Its SQLSTATE.
        sqlstate: String,
        /// Its message.
        message: String,
    },
    /// The connection broke.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Takes away all that anything may have set or left behind. The first one, as no standby takes a serializable
/// transaction. Prepared statements stay: nobody runs one but by a name that is its own.
const RESET: &[u8] =
    b"SET TRANSACTION ISOLATION LEVEL READ COMMITTED;RESET SESSION AUTHORIZATION;RESET ROLE;RESET ALL;\
    CLOSE ALL;UNLISTEN *;SELECT pg_catalog.pg_advisory_unlock_all();DISCARD TEMP;";

/// So many bytes of notifications are kept that come while messages of ours are answered.
const MAX_HEARD: usize = 16 * 1024 * 1024;

/// What binds a session to its server, in the order of [`TOLD`]. All objects of a schema depend on it, and so those of the
/// temporary one, if the session has one.
const BONDS: &[u8] = b"SELECT EXISTS (SELECT FROM pg_catalog.pg_depend d \
      WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass \
        AND d.refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()), \
    EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory' \
        AND l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()), \
    EXISTS (SELECT FROM pg_catalog.pg_listening_channels()), \
    EXISTS (SELECT FROM pg_catalog.pg_cursors c WHERE c.is_holdable)";

const TOLD: [Pins; 4] = [Pins::TEMPORARY, Pins::ADVISORY_LOCK, Pins::LISTEN, Pins::HOLD_CURSOR];

/// Makes `target` the settings in force on the connection, which has no unit under way; `user` is the process id of the
/// client that is to have it.
///
/// # Errors
/// The server refused, or broke off. The connection must not be used for anything else then.
pub async fn settle(server: &mut Connection, target: &Rc<SettingsMap>, user: u32) -> Result<(), SettleError> {
    let mut sql = Vec::new();
    if server.unsure.is_some_and(|last| last != user) {
        sql.extend_from_slice(RESET);
        SettingsMap::default().difference(target, &mut sql);
    } else {
        server.settings.difference(target, &mut sql);
    }
    if sql.is_empty() {
        server.settings = target.clone();
        return Ok(());
    }
    query(server, &sql, Status::Idle).await?;
    server.unsure = server.unsure.filter(|last| *last == user);
    server.settings = target.clone();
    Ok(())
}

/// Begins a transaction on the connection, which has no unit under way.
///
/// # Errors
/// As [`settle`].
pub async fn begin(server: &mut Connection, sql: &str) -> Result<(), SettleError> {
    query(server, sql.as_bytes(), Status::Transaction).await?;
    server.status = Status::Transaction;
    Ok(())
}

/// Prepares a statement of the client's under the client's own name, for SQL to find it there. Whether that succeeded.
///
/// # Errors
/// The connection broke.
pub async fn reveal(server: &mut Connection, name: &[u8], statement: &Shared) -> Result<bool, SettleError> {
    let mut messages = BytesMut::new();
    build::parse(&mut messages, name, &statement.text, &statement.types);
    messages.extend_from_slice(&SYNC_MESSAGE);
    // It fails in a transaction that has failed, or where what it speaks of is gone.
    Ok(unless_refused(run(server, &messages, None).await)?.is_some())
}

/// Prepares a statement under our name for it, and asks for the shape of its result ([`row_shape`]); `None` if the
/// server refuses it. It is not among those that the connection knows yet.
///
/// # Errors
/// The connection broke.
pub async fn describe(
    server: &mut Connection,
    statement: &SharedStatement,
) -> Result<Option<u64>, SettleError> {
    let mut messages = BytesMut::new();
    build::parse(&mut messages, &statement.name, &statement.text, &statement.types);
    build::describe_statement(&mut messages, &statement.name);
    messages.extend_from_slice(&SYNC_MESSAGE);
    unless_refused(run(server, &messages, None).await)
}

/// Takes back what [`describe`] has prepared: nobody may run it.
///
/// # Errors
/// The connection broke.
pub async fn forget(server: &mut Connection, statement: &SharedStatement) -> Result<(), SettleError> {
    let mut messages = BytesMut::new();
    build::close_statement(&mut messages, &statement.name);
    messages.extend_from_slice(&SYNC_MESSAGE);
    run(server, &messages, None).await.map(|_| ())
}

/// What of [`Pins::TOLD_BY_SERVER`] there is on the connection, which has no transaction under way; `None` if the server
/// refuses to tell.
///
/// # Errors
/// The connection broke.
pub async fn what_binds(server: &mut Connection) -> Result<Option<Pins>, SettleError> {
    let mut query = BytesMut::with_capacity(BONDS.len() + 16);
    build::query(&mut query, BONDS);
    server.statements.unnamed = 0;
    let Some(told) = unless_refused(answer(server, &query, None).await)? else { return Ok(None) };
    let Some(there) = told.bonds else { return Ok(None) };
    let mut found = Pins::default();
    for (pin, _) in TOLD.into_iter().zip(there).filter(|(_, there)| *there) {
        found.add(pin);
    }
    Ok(Some(found))
}

/// Whether the role of the session owns that database, as a superuser owns all.
///
/// # Errors
/// The connection broke.
pub async fn owns(server: &mut Connection, database: &str) -> Result<bool, SettleError> {
    const OWNED: &[u8] = b"SELECT FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) $1 \
        AND pg_catalog.pg_has_role(d.datdba, 'USAGE')";
    let mut messages = BytesMut::new();
    build::parse(&mut messages, b"", OWNED, b"\0\0");
    let len = u32::try_from(database.len()).unwrap_or(u32::MAX).to_be_bytes();
    let rest = [&[0, 0, 0, 1][..], &len, database.as_bytes(), &[0, 0]].concat();
    build::bind(&mut messages, b"", b"", &rest);
    build::message(&mut messages, tag_of::EXECUTE, |body| body.extend_from_slice(&[0; 5]));
    messages.extend_from_slice(&SYNC_MESSAGE);
    server.statements.unnamed = 0;
    Ok(unless_refused(answer(server, &messages, None).await)?.is_some_and(|told| told.rows > 0))
}

/// Makes the transaction under way fail, as an error of a statement does.
///
/// # Errors
/// The connection broke.
pub async fn fail_transaction(server: &mut Connection) -> Result<(), SettleError> {
    let mut messages = BytesMut::new();
    build::describe_statement(&mut messages, b"tidegate: no such statement");
    messages.extend_from_slice(&SYNC_MESSAGE);
    unless_refused(run(server, &messages, None).await).map(|_| ())
}

/// `None` for what the server has refused: the connection goes on.
fn unless_refused<T>(result: Result<T, SettleError>) -> Result<Option<T>, SettleError> {
    match result {
        Ok(told) => Ok(Some(told)),
        Err(SettleError::Refused { .. }) => Ok(None),
        Err(broken) => Err(broken),
    }
}

/// Runs a Query of ours, after which the server must be in that state.
async fn query(server: &mut Connection, sql: &[u8], after: Status) -> Result<(), SettleError> {
    let mut query = BytesMut::with_capacity(sql.len() + 16);
    build::query(&mut query, sql);
    // A Query ends the life of the unnamed statement.
    server.statements.unnamed = 0;
    run(server, &query, Some(after)).await.map(|_| ())
}

async fn run(server: &mut Connection, messages: &[u8], after: Option<Status>) -> Result<u64, SettleError> {
    answer(server, messages, after).await.map(|told| told.shape)
}

/// What a server has said to messages of ours.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    /// The shape of the last result that was described.
    shape: u64,
    /// How many rows came.
    rows: u32,
    /// The last row, if it was an answer to [`BONDS`].
    bonds: Option<[bool; TOLD.len()]>,
}

/// Sends messages of ours and waits for ReadyForQuery, which must tell that state; without one, any will do.
async fn answer(
    server: &mut Connection,
    messages: &[u8],
    after: Option<Status>,
) -> Result<Told, SettleError> {
    let tainted = std::mem::replace(&mut server.tainted, true);
    server.stream.write_all(messages).await?;
    let (mut refused, mut told) = (None, Told::default());
    let mut heard = BytesMut::new();
    loop {
        while let Some(frame) = Frame::peek(&server.input).map_err(invalid_data)? {
            let Some(body) = frame.body(&server.input) else { break };
            match frame.tag {
                tag::ERROR_RESPONSE => {
                    let error = Fields::new(body);
                    refused = Some(SettleError::Refused {
                        sqlstate: String::from_utf8_lossy(error.sqlstate()).into_owned(),
                        message: String::from_utf8_lossy(error.message()).into_owned(),
                    });
                }
                tag::ROW_DESCRIPTION => told.shape = row_shape(body),
                tag::DATA_ROW => {
                    told.rows = told.rows.saturating_add(1);
                    told.bonds = row(body).map(|values| values.map(|value| value == Some(b"t")));
                }
                // They are the session's, and passed on as if they had come behind our answer.
                tag::NOTIFICATION_RESPONSE if heard.len() < MAX_HEARD => {
                    heard.extend_from_slice(server.input.get(..frame.len).unwrap_or_default());
                }
                tag::NOTIFICATION_RESPONSE => {
                    return Err(invalid_data("more notifications than are kept").into());
                }
                tag::PARAMETER_STATUS => {
                    server.parameters.take_in(body);
                }
                tag::READY_FOR_QUERY => {
                    let status = body.first().copied().and_then(Status::from_byte);
                    server.input.advance(frame.len);
                    if !heard.is_empty() {
                        heard.extend_from_slice(&server.input);
                        server.input = heard;
                    }
                    let (Some(after), None) = (after, &refused) else {
                        server.tainted = tainted || after.is_some();
                        server.status = status.unwrap_or(server.status);
                        return refused.map_or(Ok(told), Err);
                    };
                    if status != Some(after) {
                        return Err(invalid_data("a server is in a transaction that was not begun").into());
                    }
                    server.tainted = tainted;
                    return Ok(told);
                }
                _ => {}
            }
            server.input.advance(frame.len);
        }
        server.input.reserve(crate::net::buffers::SIZE);
        if server.stream.read(&mut server.input).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}
