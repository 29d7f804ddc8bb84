//! Statements that Tidegate itself answers: `SET`, `RESET` and `SHOW` of `tidegate.` parameters, and
//! `DEALLOCATE` of statements that the client prepared by messages, whose names servers do not know.

use std::collections::HashMap;
use std::time::Duration;

use bytes::BytesMut;
use foldhash::fast::RandomState;

use super::pins::Pins;
use super::prepared::{MAX_PER_CLIENT, Statements, fold_statement_name};
use super::settings::fold_name;
use super::state::Session;
use crate::route::{Level, RouteHint};
use crate::sql::{Command, Names, classify};
use crate::topology::{Role, Topology};
use crate::wire::Frame;
use crate::wire::build::{self, Report};
use crate::wire::client::{self, Bind, Parse, Target, tag};
use crate::wire::server::{Status, tag as server_tag};
use crate::wire::sqlstate;

/// The most bytes of text that one unit may have us read by the names of statements. Beyond that a server gets it, which
/// reads a text once.
pub(super) const MAX_WORK: usize = 1024 * 1024;

/// A statement of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Local {
    Set(String, String),
    Reset(String),
    Show(String),
    Deallocate(Box<[u8]>),
    DeallocateAll,
    /// The end of a transaction whose server is gone.
    EndLost,
    /// Anything else in it.
    Refused,
}

/// What became of a unit in a transaction whose server is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostAnswer {
    /// It was answered.
    Given,
    /// The transaction has ended, and the unit has more to it: a server must run all of it.
    Over,
}

/// The nodes at one moment, for those who ask.
#[derive(Clone, Copy, Debug)]
pub struct Nodes<'a> {
    /// What is known of them.
    pub topology: &'a Topology,
    /// The time since the process started.
    pub now: Duration,
}

fn recognise(text: &[u8], names: &dyn Names, session: &Session) -> Option<Local> {
    let class = classify(text, names, session.dialect());
    if session.lost.is_some() {
        let ends = matches!(
            class.first,
            Command::Commit { chain: false, .. } | Command::Rollback { chain: false, .. }
        );
        return match class.statements {
            0 => None,
            1 if ends => Some(Local::EndLost),
            _ => Some(Local::Refused),
        };
    }
    if class.statements != 1 {
        return None;
    }
    let own = |name: &[u8]| fold_name(name).strip_prefix("tidegate.").map(str::to_owned);
    match class.first {
        Command::Set(setting) | Command::SetLocal(setting) => {
            let value = String::from_utf8_lossy(setting.value);
            let value = value.trim_matches(['\'', '"']).to_ascii_lowercase();
            own(setting.name).map(|name| Local::Set(name, value))
        }
        Command::Reset(setting) => own(setting.name).map(Local::Reset),
        Command::Show(setting) => own(setting.name).map(Local::Show),
        Command::Deallocate(Some(name)) => {
            let folded = fold_statement_name(name);
            session.statements.get(&folded).is_some().then(|| Local::Deallocate(folded.into()))
        }
        // With SQL-level statements about, the server has to hear of it, too; and in a transaction it counts as a query.
        Command::Deallocate(None)
            if session.status == Status::Idle && !session.pins.has(Pins::SQL_PREPARE) =>
        {
            Some(Local::DeallocateAll)
        }
        _ => None,
    }
}

/// Answers a unit whose every text is a statement of ours; `None` if there is any other. `unit` holds
/// complete messages. The answer goes to `out`.
pub fn answer(
    unit: &[u8],
    session: &mut Session,
    names: &dyn Names,
    nodes: Nodes<'_>,
    table: &mut Statements,
    out: &mut BytesMut,
) -> Option<()> {
    let mut rest = unit;
    let mut any = false;
    // How long the texts are that the unit itself prepares.
    let mut here: HashMap<&[u8], usize, RandomState> = HashMap::default();
    let mut work = 0;
    while let Ok(Some(frame)) = Frame::peek(rest) {
        let body = frame.body(rest)?;
        let mut named = None;
        match frame.tag {
            tag::QUERY => {
                recognise(client::query(body)?, names, session)?;
                any = true;
            }
            tag::PARSE => {
                let parse = Parse::read(body)?;
                // The server must refuse a second statement of that name.
                if !parse.name.is_empty() && session.statements.get(parse.name).is_some() {
                    return None;
                }
                recognise(parse.text, names, session)?;
                here.insert(parse.name, parse.text.len());
                any = true;
            }
            tag::BIND => {
                named = Some(Bind::read(body)?.statement);
                any = true;
            }
            tag::DESCRIBE => {
                if let Target::Statement(name) = client::target(body)? {
                    named = Some(name);
                }
            }
            tag::EXECUTE | tag::SYNC | tag::FLUSH => {}
            tag::CLOSE => {
                client::target(body)?;
            }
            _ => return None,
        }
        if let Some(name) = named {
            let own = here.get(name);
            let text = if own.is_some() { None } else { Some(session.statements.text(name)?) };
            work += own.copied().or(text.map(<[u8]>::len)).unwrap_or_default();
            if work > MAX_WORK {
                return None;
            }
            if let Some(text) = text {
                recognise(text, names, session)?;
            }
        }
        rest = rest.get(frame.len..)?;
    }
    if !any {
        return None;
    }
    Answer { session, names, nodes, table, bound: None, failed: false, work: 0 }.run(unit, out);
    Some(())
}

/// Answers a unit of a transaction whose server is gone: PostgreSQL's own answers to a transaction that has failed.
pub fn answer_lost(
    unit: &[u8],
    session: &mut Session,
    names: &dyn Names,
    table: &mut Statements,
    out: &mut BytesMut,
) -> LostAnswer {
    if ends_and_goes_on(unit, session, names) {
        session.end_lost();
        return LostAnswer::Over;
    }
    let topology = Topology::default();
    let nodes = Nodes { topology: &topology, now: Duration::ZERO };
    Answer { session, names, nodes, table, bound: None, failed: false, work: 0 }.run(unit, out);
    LostAnswer::Given
}

/// Whether a unit ends its transaction first, and has more to be run behind that.
fn ends_and_goes_on(unit: &[u8], session: &Session, names: &dyn Names) -> bool {
    let first_ends = |text: &[u8]| {
        let class = classify(text, names, session.dialect());
        let ends = matches!(class.first, Command::Commit { .. } | Command::Rollback { .. });
        ends.then_some(class.statements)
    };
    let mut ended = false;
    let mut work = 0;
    let mut rest = unit;
    while let Ok(Some(frame)) = Frame::peek(rest) {
        let body = frame.body(rest).unwrap_or_default();
        let text = match frame.tag {
            tag::QUERY => client::query(body),
            tag::PARSE => Parse::read(body).map(|parse| parse.text),
            // One that this very unit prepares has no text yet.
            tag::BIND => Bind::read(body).and_then(|bind| session.statements.text(bind.statement)),
            _ => None,
        };
        if frame.tag == tag::BIND {
            work += text.map_or(0, <[u8]>::len);
        }
        match (ended, text, frame.tag) {
            (false, _, _) if work > MAX_WORK => return false,
            (true, _, tag::QUERY | tag::PARSE | tag::BIND | tag::DESCRIBE | tag::EXECUTE) => return true,
            // All that comes before the first Execute must belong to the end.
            (false, Some(text), _) => match first_ends(text) {
                Some(statements) if frame.tag == tag::QUERY => return statements > 1,
                Some(_) => {}
                None => return false,
            },
            (false, None, tag::EXECUTE) => ended = true,
            _ => {}
        }
        rest = rest.get(frame.len..).unwrap_or_default();
    }
    false
}

fn aborted() -> Report {
    Report::error(
        sqlstate::IN_FAILED_TRANSACTION,
        "current transaction is aborted, commands ignored until end of transaction block",
    )
}

struct Answer<'a> {
    session: &'a mut Session,
    names: &'a dyn Names,
    nodes: Nodes<'a>,
    table: &'a mut Statements,
    bound: Option<Local>,
    failed: bool,
    /// How many bytes of text were read by the names of their statements.
    work: usize,
}

impl Answer<'_> {
    fn run(mut self, unit: &[u8], out: &mut BytesMut) {
        let mut rest = unit;
        while let Ok(Some(frame)) = Frame::peek(rest) {
            let Some(body) = frame.body(rest) else { return };
            if frame.tag == tag::SYNC {
                self.failed = false;
                build::ready_for_query(out, self.status());
            } else if !self.failed
                && let Err(report) = self.message(frame.tag, body, out)
            {
                report.write(out);
                self.failed = true;
            }
            if matches!(frame.tag, tag::QUERY | tag::FUNCTION_CALL) {
                self.failed = false;
                build::ready_for_query(out, self.status());
            }
            rest = rest.get(frame.len..).unwrap_or_default();
        }
        self.session.skipping = self.failed;
    }

    fn status(&self) -> Status {
        self.session.status
    }

    fn local(&mut self, statement: &[u8]) -> Option<Local> {
        let text = self.session.statements.text(statement)?;
        self.work += text.len();
        if self.work > MAX_WORK {
            return Some(Local::Refused);
        }
        recognise(text, self.names, self.session)
    }

    fn message(&mut self, kind: u8, body: &[u8], out: &mut BytesMut) -> Result<(), Report> {
        match kind {
            tag::QUERY => {
                let local = client::query(body).and_then(|text| recognise(text, self.names, self.session));
                match local {
                    Some(local) => {
                        describe(&local, out, false);
                        self.execute(&local, out)?;
                    }
                    None => build::bare(out, server_tag::EMPTY_QUERY),
                }
            }
            tag::FUNCTION_CALL => return Err(aborted()),
            tag::PARSE => {
                if let Some(parse) = Parse::read(body) {
                    if recognise(parse.text, self.names, self.session) == Some(Local::Refused) {
                        return Err(aborted());
                    }
                    self.parse(parse)?;
                    build::bare(out, server_tag::PARSE_COMPLETE);
                }
            }
            tag::BIND => {
                let bind = Bind::read(body);
                self.bound = bind.and_then(|bind| self.local(bind.statement));
                if self.bound == Some(Local::Refused) || (self.bound.is_none() && self.session.lost.is_some())
                {
                    return Err(aborted());
                }
                build::bare(out, server_tag::BIND_COMPLETE);
            }
            tag::DESCRIBE => match client::target(body) {
                Some(Target::Statement(name)) => {
                    if self.session.lost.is_some() && self.local(name) != Some(Local::EndLost) {
                        return Err(aborted());
                    }
                    build::message(out, server_tag::PARAMETER_DESCRIPTION, |b| b.extend_from_slice(&[0, 0]));
                    if let Some(local) = self.local(name) {
                        describe(&local, out, true);
                    }
                }
                _ => {
                    if let Some(local) = &self.bound {
                        describe(local, out, true);
                    }
                }
            },
            tag::EXECUTE => {
                if let Some(local) = self.bound.take() {
                    self.execute(&local, out)?;
                    self.bound = Some(local);
                }
            }
            tag::CLOSE => {
                if let Some(Target::Statement(name)) = client::target(body) {
                    self.session.statements.remove(name);
                }
                build::bare(out, server_tag::CLOSE_COMPLETE);
            }
            _ => {}
        }
        Ok(())
    }

    fn parse(&mut self, parse: Parse<'_>) -> Result<(), Report> {
        if parse.name.is_empty() {
            let number = self.table.number();
            self.session.statements.set_unnamed(number, parse.text, parse.types);
            return Ok(());
        }
        let statement = self.table.own(parse.text, parse.types);
        self.session.statements.insert(parse.name, statement).map_err(|_| too_many())
    }

    fn execute(&mut self, local: &Local, out: &mut BytesMut) -> Result<(), Report> {
        match local {
            Local::Set(name, value) => {
                self.set(name, value)?;
                build::command_complete(out, "SET");
            }
            Local::Reset(name) => {
                match name.as_str() {
                    "consistency" => self.session.level = self.session.default_level,
                    "route" => self.session.route = None,
                    _ => return Err(unknown(name)),
                }
                build::command_complete(out, "RESET");
            }
            Local::Show(name) => {
                self.show(name, out)?;
                build::command_complete(out, "SHOW");
            }
            Local::Deallocate(name) => {
                self.session.statements.remove(name);
                build::command_complete(out, "DEALLOCATE");
            }
            Local::DeallocateAll => {
                self.session.statements.clear();
                build::command_complete(out, "DEALLOCATE ALL");
            }
            Local::EndLost => {
                self.session.end_lost();
                build::command_complete(out, "ROLLBACK");
            }
            Local::Refused => return Err(aborted()),
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Report> {
        let bad = |allowed: &str| {
            Report::error(
                sqlstate::INVALID_PARAMETER_VALUE,
                format!("invalid value for parameter \"tidegate.{name}\": \"{value}\""),
            )
            .hint(format!("Available values: {allowed}."))
        };
        match name {
            "consistency" => {
                self.session.level = match value {
                    "default" => self.session.default_level,
                    _ => Level::parse(value).ok_or_else(|| bad("eventual, read_your_writes, session"))?,
                };
            }
            "route" => {
                self.session.route = match value {
                    "auto" | "default" => None,
                    "primary" => Some(RouteHint::Primary),
                    "replica" => Some(RouteHint::Replica),
                    _ => return Err(bad("primary, replica, auto")),
                };
            }
            _ => return Err(unknown(name)),
        }
        Ok(())
    }

    fn show(&self, name: &str, out: &mut BytesMut) -> Result<(), Report> {
        match name {
            "last_route" => {
                if let Some(last) = self.session.last {
                    let name = self.nodes.topology.node(last.node).map_or("", |n| &n.name);
                    build::text_row(out, &[name, last.role.label(), last.why.label()]);
                }
            }
            "lag" => {
                let seconds = |time: Duration| format!("{:.3}", time.as_secs_f64());
                for node in &self.nodes.topology.nodes {
                    let lag = node.lag(self.nodes.now).filter(|_| node.role == Role::Replica);
                    let age = node.position.map(|p| self.nodes.now.saturating_sub(p.sent));
                    let sure = [&*node.name, node.role.label(), if node.up { "t" } else { "f" }];
                    let known = [
                        node.position.map(|p| p.lsn.to_string()),
                        node.lag_bytes.map(|b| b.to_string()),
                        lag.map(seconds),
                        age.map(seconds),
                    ];
                    let row: Vec<_> =
                        sure.into_iter().map(Some).chain(known.iter().map(Option::as_deref)).collect();
                    build::nullable_row(out, row.into_iter());
                }
            }
            "consistency" => build::text_row(out, &[self.session.level.label()]),
            "route" => build::text_row(
                out,
                &[match self.session.route {
                    None => "auto",
                    Some(RouteHint::Primary) => "primary",
                    Some(RouteHint::Replica) => "replica",
                }],
            ),
            "token" => build::text_row(out, &[&self.session.token().to_string()]),
            "pins" => build::text_row(out, &[&self.session.pins.names().collect::<Vec<_>>().join(",")]),
            _ => return Err(unknown(name)),
        }
        Ok(())
    }
}

/// What `SHOW tidegate.lag` tells of each node; null is what is not known.
const LAG_COLUMNS: [&str; 7] =
    ["node", "role", "up", "position", "lag_bytes", "lag_seconds", "sample_age_seconds"];

/// The client has as many prepared statements as it may have.
#[must_use]
pub fn too_many() -> Report {
    Report::error(
        sqlstate::LIMIT_EXCEEDED,
        format!("a client may have at most {MAX_PER_CLIENT} prepared statements"),
    )
    .hint("Close or DEALLOCATE those that are no longer used.")
}

fn unknown(name: &str) -> Report {
    Report::error(
        sqlstate::UNDEFINED_OBJECT,
        format!("unrecognized configuration parameter \"tidegate.{name}\""),
    )
    .hint("There are tidegate.consistency, .route, .last_route, .lag, .token and .pins.")
}

fn describe(local: &Local, out: &mut BytesMut, extended: bool) {
    match local {
        Local::Show(name) if name == "last_route" => build::text_columns(out, &["node", "role", "why"]),
        Local::Show(name) if name == "lag" => build::text_columns(out, &LAG_COLUMNS),
        Local::Show(name) => build::text_columns(out, &[name]),
        _ if extended => build::bare(out, server_tag::NO_DATA),
        _ => {}
    }
}
