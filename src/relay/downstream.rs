//! Goes through what the server says: looks at the heads, and into the few bodies that matter.

use super::exchange::{Exchange, Feed};
use super::heal::{Refusal, is_servers_end, refusal};
use super::outcome::{Broken, Farewell};
use super::plan::Asks;
use bytes::BytesMut;

use crate::lsn::Lsn;
use crate::session::prepared::{ClientStatements, PREFIX};
use crate::session::state::ServerChange;
use crate::session::{Event, Stands};
use crate::wire::Frame;
use crate::wire::client::SYNC_MESSAGE;
use crate::wire::frame::HEADER;
use crate::wire::server::{Fields, Status, parameter_status, row_shape, tag};
use crate::wire::sqlstate;

/// An answer that is held back may take this many bytes; beyond it, it is no longer held back.
const MAX_HELD: usize = 64 * 1024;

/// The longest ErrorResponse or other message that is looked into; PostgreSQL's own are far shorter.
const MAX_LOOK: usize = 16 * 1024 * 1024;

impl Exchange<'_, '_> {
    /// Goes through the server's input as far as it has come.
    pub(super) fn downstream(&mut self) -> Result<(), Broken> {
        loop {
            let left = self.server.input.len() - self.at;
            if self.pass > 0 {
                let n = self.pass.min(left);
                self.at += n;
                self.pass -= n;
                if self.pass > 0 {
                    return Ok(());
                }
                continue;
            }
            // What a server says behind the end of the unit is not part of its answer: a server that dies says so
            // to whoever has it next.
            if self.server.replies.ready_to_come() == 0 && !self.is_fed() {
                return Ok(());
            }
            let rest = self.server.input.get(self.at..).unwrap_or_default();
            let Some(frame) = Frame::peek(rest).map_err(|e| Broken::Protocol(e.to_string()))? else {
                return Ok(());
            };
            match frame.tag {
                tag::DATA_ROW | tag::COPY_DATA if !self.server.replies.are_ours() => {
                    self.pass = Frame::run(frame.tag, rest);
                    self.release();
                }
                _ if rest.len() >= frame.len => self.message(frame)?,
                // Long, and nothing that we must know of.
                tag::ROW_DESCRIPTION | tag::NOTICE_RESPONSE | tag::FUNCTION_RESULT
                    if frame.len > MAX_HELD && self.server.replies.is_passed_on() =>
                {
                    self.release();
                    self.server.replies.on_message(frame.tag);
                    self.pass = frame.len;
                }
                _ if frame.len > MAX_LOOK => {
                    return Err(Broken::Protocol("a server sent a message that is too long".to_owned()));
                }
                _ => {
                    if self.holding && rest.len() > MAX_HELD {
                        self.release();
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Messages that are complete are many, too: notices, before the first row.
    pub(super) fn hold_no_more_than_may_be(&mut self) {
        if self.holding && self.at - self.run + self.to_client.len() > MAX_HELD {
            self.release();
        }
    }

    /// From here on the client sees the answer, so that nobody else can give it.
    fn release(&mut self) {
        if self.refused.is_none() && !self.server.replies.are_ours() {
            self.holding = false;
        }
    }

    /// A whole message.
    fn message(&mut self, frame: Frame) -> Result<(), Broken> {
        let end = self.at + frame.len;
        let body = self.server.input.get(self.at + crate::wire::frame::HEADER..end).unwrap_or_default();
        let ours = self.server.replies.are_ours();
        let mut ready = None;
        match frame.tag {
            tag::ERROR_RESPONSE if self.server.replies.position().is_some() => {
                let fields = Fields::new(body);
                self.server.tainted |= fields.is_fatal();
                // Who may not ask need not try again. All else (a cancel, say) has to do with this time only.
                self.server.mute |= fields.sqlstate() == b"42501";
                self.is_at(None);
            }
            tag::ERROR_RESPONSE if ours => {
                self.setup_failed = Some(String::from_utf8_lossy(Fields::new(body).message()).into());
            }
            tag::ERROR_RESPONSE => {
                if self.holding && self.refused.is_none() {
                    self.refused = refusal(Fields::new(body));
                }
                // A statement that should be there is not: SQL DEALLOCATE has taken it away behind our back.
                let lost_statement =
                    Fields::new(body).sqlstate() == sqlstate::INVALID_STATEMENT_NAME.as_bytes();
                self.server.tainted |= Fields::new(body).is_fatal() || lost_statement;
                if self.refused.is_none() {
                    self.holding = false;
                }
                self.failed = true;
                self.notes.clear();
                if let Feed::Copy { simple } = self.feed {
                    self.feed = if simple { Feed::Closed } else { Feed::Pipeline };
                }
                let skips_query = self.mixed && self.server.replies.is_before_query();
                let renamed = with_own_names(Fields::new(body), &self.client.session.statements);
                let (session, statements) = (&mut *self.client.session, &mut self.server.statements);
                self.server.replies.on_error(|undone| undone.undo(&mut session.statements, statements));
                if skips_query {
                    self.to_server.extend_from_slice(&SYNC_MESSAGE);
                    self.server.replies.end_by_sync();
                }
                if Fields::new(body).is_fatal() && self.client_goes_on(Fields::new(body)) {
                    let run = self.server.input.get(self.run..self.at).unwrap_or_default();
                    self.to_client.extend_from_slice(run);
                    Fields::new(body).write_as_error(&mut self.to_client);
                    (self.at, self.run, self.farewell) = (end, end, Farewell::Reason);
                    return Ok(());
                }
                if Fields::new(body).is_fatal() && self.refused.is_none() {
                    self.farewell = Farewell::Fatal;
                }
                if let Some(renamed) = renamed {
                    let run = self.server.input.get(self.run..self.at).unwrap_or_default();
                    self.to_client.extend_from_slice(run);
                    self.to_client.extend_from_slice(&renamed);
                    (self.at, self.run) = (end, end);
                    return Ok(());
                }
            }
            tag::COMMAND_COMPLETE | tag::EMPTY_QUERY | tag::PORTAL_SUSPENDED if !ours => {
                if self.refused.is_none() {
                    self.holding = false;
                }
                if !self.notes.is_empty() {
                    let command = body.split(|b| *b == 0).next().unwrap_or_default();
                    let command: Vec<u8> = command.to_vec();
                    self.completed(&command);
                }
            }
            tag::READY_FOR_QUERY => {
                let (session, statements) = (&mut *self.client.session, &mut self.server.statements);
                self.server.replies.on_skipped(|undone| undone.undo(&mut session.statements, statements));
                let status = body.first().copied().and_then(Status::from_byte);
                ready = Some(
                    status.ok_or_else(|| Broken::Protocol("a server is in an unknown state".to_owned()))?,
                );
            }
            tag::PARAMETER_STATUS => {
                if let Some((name, value)) = parameter_status(body) {
                    self.server.parameters.note(name, value);
                    if !ours && self.refused.is_none() {
                        self.client.session.reported.report(name, value);
                    }
                }
            }
            tag::COPY_IN | tag::COPY_BOTH if !ours => {
                self.holding = false;
                if !self.ends_copy {
                    if !self.simple {
                        self.server.replies.forget_syncs();
                    }
                    self.feed = Feed::Copy { simple: self.simple };
                }
            }
            tag::ROW_DESCRIPTION | tag::NO_DATA => {
                if let Some(statement) = self.server.replies.described().filter(|_| self.refused.is_none()) {
                    let shape = if frame.tag == tag::NO_DATA { 0 } else { row_shape(body) };
                    // What differs was asked for anew by a client that has to know: it is told.
                    statement.describe(shape, self.plan.generation);
                }
            }
            tag::FUNCTION_RESULT if self.server.replies.position().is_some() => {
                self.is_at(function_result(body))
            }
            tag::COPY_OUT => self.release(),
            tag::NOTIFICATION_RESPONSE => {
                // Whoever hears of something is to see it, though it came behind what the server has just told.
                if self.server.replies.position() == Some(Stands::Behind) {
                    self.server.told = None;
                }
                let message = self.server.input.get_mut(self.at..end).unwrap_or_default();
                own_notification(message, self.server.pid, self.plan.user);
            }
            _ => {}
        }
        let event = self.pass_on(frame.tag, end);
        if let Some(status) = ready {
            if event == Event::Swallow {
                if let Some(message) = self.setup_failed.take_if(|_| self.plan.is_read) {
                    return Err(self.settings_refused(message));
                }
            } else {
                self.server.status = status;
                if self.refused.is_none() {
                    self.client.session.ready(status, self.failed, &mut self.server.settings);
                    // The client waits with its Sync until it has heard of the error; all before that is void.
                    self.client.session.skipping |= event == Event::QuietReady && self.failed;
                }
                self.failed = false;
            }
        }
        Ok(())
    }

    /// The server has told how far it is, or that it does not tell.
    fn is_at(&mut self, lsn: Option<Lsn>) {
        match (self.server.replies.position(), self.plan.asks) {
            // In a transaction, it would be a position before its end.
            (Some(Stands::Behind), _) => {
                self.server.told = lsn.filter(|_| self.server.status == Status::Idle);
            }
            (_, Asks::Proof(proof)) => {
                self.server.told = lsn;
                if !proof.is_given(lsn) {
                    self.refused = Some(Refusal::NotThereYet);
                    // What is prepared there now may be of tables as they were before the session has changed them.
                    self.server.tainted |= self.server.replies.parses();
                    self.server.statements.unnamed = 0;
                }
            }
            _ => {}
        }
    }

    /// Whether the client's session can go on after this fatal error of its server.
    fn client_goes_on(&self, error: Fields<'_>) -> bool {
        let holds_nothing = self.client.session.pins.is_empty() && !self.server.replies.are_ours();
        holds_nothing && matches!(self.feed, Feed::Closed) && is_servers_end(error)
    }

    /// Puts the message that ends at `end` where it belongs.
    fn pass_on(&mut self, tag: u8, end: usize) -> Event {
        if self.server.replies.is_plain() {
            self.at = end;
            return self.server.replies.on_message(tag);
        }
        // What is ours to say goes behind this message, so what is before it goes first.
        let run = self.server.input.get(self.run..self.at).unwrap_or_default();
        self.to_client.extend_from_slice(run);
        let event = self.server.replies.on_message(tag);
        if event == Event::Forward {
            self.to_client.extend_from_slice(self.server.input.get(self.at..end).unwrap_or_default());
        }
        self.server.replies.say(&mut self.to_client);
        self.at = end;
        self.run = end;
        event
    }

    /// A statement has completed: what it changed in the session is so from now on.
    fn completed(&mut self, command: &[u8]) {
        let number = self.completed;
        self.completed += 1;
        while let Some(note) = self.notes.take(number) {
            match self.client.session.note(note, command, &mut self.server.settings) {
                ServerChange::None => {}
                ServerChange::NoStatements => self.server.statements.clear(),
                ServerChange::Bare => {
                    self.server.statements.clear();
                    self.server.settings = std::rc::Rc::default();
                }
            }
        }
    }
}

/// The position that a FunctionCall of ours has brought.
fn function_result(body: &[u8]) -> Option<Lsn> {
    let value = body.strip_prefix(&8_i32.to_be_bytes())?;
    Some(Lsn(u64::from_be_bytes(value.try_into().ok()?)))
}

/// A notification that the session has sent itself, to come from the process that the client was told is its own.
pub fn own_notification(message: &mut [u8], server: u32, told: u32) {
    if let Some(pid) = message.get_mut(HEADER..HEADER + 4)
        && *pid == server.to_be_bytes()
    {
        pid.copy_from_slice(&told.to_be_bytes());
    }
}

/// An error that mentions a prepared statement by our name for it, with the client's name in its place.
fn with_own_names(error: Fields<'_>, statements: &ClientStatements) -> Option<BytesMut> {
    let message = error.message();
    let start = message.windows(PREFIX.len()).position(|window| window == PREFIX)?;
    let (before, rest) = message.split_at(start);
    let end = rest.iter().position(|b| *b == b'"')?;
    let (ours, after) = rest.split_at(end);
    let name = statements.client_name(ours)?;
    let mut out = BytesMut::new();
    error.write_with_message(&[before, name, after].concat(), &mut out);
    Some(out)
}
