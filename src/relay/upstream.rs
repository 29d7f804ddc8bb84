//! Goes through what the client adds to a unit that is under way: the rest of a pipeline, or COPY data.

use bytes::Buf;

use super::exchange::{Exchange, Feed};
use super::outcome::Broken;
use super::plan::translator;
use crate::net::buffers::consume;
use crate::session::collect::MAX_TEXT;
use crate::session::pins::Pins;
use crate::session::{Expect, SettingsMap};
use crate::sql::{Catalog, Effects, classify};
use crate::wire::Frame;
use crate::wire::client::{self, Bind, MAX_NAMES, Parse, tag};

/// With this many bytes waiting for the server no more are read from the client.
const HIGH_WATER: usize = 64 * 1024;

/// So much for the server is written at once, rather than put with what may follow.
const WORTH_A_WRITE: usize = 4 * 1024;

impl Exchange<'_, '_> {
    /// Takes what has come from the client as long as the unit is open.
    pub(super) fn upstream(&mut self) -> Result<(), Broken> {
        while self.is_fed() && !self.client.input.is_empty() {
            if self.client_pass > 0 {
                let n = self.client_pass.min(self.client.input.len());
                self.take(n)?;
                self.client_pass -= n;
                continue;
            }
            let Some(frame) = Frame::peek(self.client.input).map_err(|_| Broken::Client)? else { break };
            let taken = match self.feed {
                Feed::Copy { simple } => self.copy_message(frame, simple)?,
                _ => self.pipeline_message(frame)?,
            };
            if !taken {
                break;
            }
        }
        Ok(())
    }

    /// Whether more is to be read from the client.
    pub(super) fn takes_more(&self) -> bool {
        match self.feed {
            // What the kernel has taken keeps the server busy; more would only be copied here and wait.
            Feed::Copy { .. } => !self.has_unsent(),
            _ => self.to_server.len() < HIGH_WATER,
        }
    }

    /// Passes the first `n` bytes of the client's input on as they are.
    fn take(&mut self, n: usize) -> Result<(), Broken> {
        let bytes = self.client.input.get(..n).unwrap_or_default();
        // What the server takes at once need not be copied. Little may go with what comes behind it.
        let sent = if n >= WORTH_A_WRITE && self.to_server.is_empty() {
            self.server.stream.try_write(bytes).map_err(Broken::Server)?
        } else {
            0
        };
        self.to_server.extend_from_slice(bytes.get(sent..).unwrap_or_default());
        consume(self.client.input, n);
        Ok(())
    }

    fn pass_frame(&mut self, frame: Frame) {
        self.client_pass = frame.len;
    }

    fn copy_message(&mut self, frame: Frame, simple: bool) -> Result<bool, Broken> {
        match frame.tag {
            tag::COPY_DATA => self.client_pass = Frame::run(frame.tag, self.client.input),
            tag::FLUSH | tag::SYNC => self.pass_frame(frame),
            tag::COPY_DONE | tag::COPY_FAIL => {
                if frame.len > HIGH_WATER {
                    return Err(Broken::Client);
                }
                if self.client.input.len() < frame.len {
                    return Ok(false);
                }
                self.take(frame.len)?;
                self.feed = if simple { Feed::Closed } else { Feed::Pipeline };
            }
            tag::TERMINATE => return Err(Broken::Client),
            // PostgreSQL says so, and ends the connection: nobody knows where the data would go on.
            _ => {
                self.server.replies.expect(Expect::Ready);
                self.pass_frame(frame);
                self.feed = Feed::Closed;
            }
        }
        Ok(true)
    }

    fn pipeline_message(&mut self, frame: Frame) -> Result<bool, Broken> {
        let here = self.client.input.len();
        match frame.tag {
            tag::TERMINATE => return Err(Broken::Client),
            tag::QUERY if frame.len > MAX_TEXT && !self.any_sent => {
                self.client.session.pins.add(Pins::SETTINGS);
                self.server.replies.expect(Expect::Ready);
                self.pass_frame(frame);
                self.feed = Feed::Closed;
            }
            // The server has failed, and skips it.
            tag::QUERY | tag::FUNCTION_CALL if self.server.replies.is_skipping() => self.pass_frame(frame),
            tag::QUERY if frame.len > MAX_TEXT => return Err(Broken::Client),
            tag::FUNCTION_CALL | tag::COPY_DATA if here < frame.len => {
                if frame.tag == tag::FUNCTION_CALL {
                    self.server.replies.expect(Expect::Ready);
                    self.feed = Feed::Closed;
                }
                self.pass_frame(frame);
            }
            tag::PARSE if frame.len > MAX_TEXT => {
                // Too long to be kept: only as the unnamed statement of this very pipeline.
                if here <= crate::wire::frame::HEADER {
                    return Ok(false);
                }
                if self.client.input.get(crate::wire::frame::HEADER) != Some(&0) {
                    return Err(Broken::TooManyStatements);
                }
                self.client.session.pins.add(Pins::SETTINGS);
                // Neither here nor there is it kept: its Bind is passed on.
                self.client.session.statements.drop_unnamed();
                self.server.statements.unnamed = 0;
                self.server.replies.expect(Expect::Parse { own: false, statement: None, before: None });
                self.pass_frame(frame);
            }
            tag::BIND if here < frame.len && (here >= MAX_NAMES || frame.len > HIGH_WATER) => {
                let message = &self.client.input[..];
                let mut table = self.table.borrow_mut();
                let mut translator = translator(self.client.session, self.server, &mut table, self.plan);
                let Some(used) = translator.bind_head(frame, message, &mut self.to_server) else {
                    return if here >= MAX_NAMES { Err(Broken::Client) } else { Ok(false) };
                };
                self.client.input.advance(used);
                self.client_pass = frame.len - used;
            }
            tag::PARSE | tag::QUERY if here < frame.len => {
                self.client.input.reserve(frame.len.saturating_sub(here));
                return Ok(false);
            }
            _ if here < frame.len && frame.len > HIGH_WATER => return Err(Broken::Client),
            _ if here < frame.len => {
                self.client.input.reserve(frame.len.saturating_sub(here));
                return Ok(false);
            }
            kind => {
                self.note_effects(frame);
                self.translate(frame)?;
                if matches!(kind, tag::SYNC | tag::FUNCTION_CALL | tag::QUERY) {
                    self.feed = Feed::Closed;
                    self.mixed = kind != tag::SYNC;
                }
            }
        }
        Ok(true)
    }

    fn translate(&mut self, frame: Frame) -> Result<(), Broken> {
        let message = self.client.input.get(..frame.len).unwrap_or_default();
        let mut table = self.table.borrow_mut();
        let mut translator = translator(self.client.session, self.server, &mut table, self.plan);
        translator.translate(message, &mut self.to_server).map_err(|_| Broken::TooManyStatements)?;
        self.client.input.advance(frame.len);
        if self.pass == 0 {
            self.server.replies.say(&mut self.to_client);
        }
        Ok(())
    }

    /// In a pipeline that is not judged as a whole, whatever leaves state behind binds the session to
    /// this server: which statement completes when is not followed there.
    fn note_effects(&mut self, frame: Frame) {
        let Some(body) = frame.body(self.client.input) else { return };
        let text = match frame.tag {
            tag::PARSE => Parse::read(body).map(|parse| parse.text),
            tag::QUERY => client::query(body),
            tag::BIND => {
                Bind::read(body).and_then(|bind| self.client.session.statements.text(bind.statement))
            }
            _ => None,
        };
        let Some(text) = text else { return };
        let class = classify(text, &Catalog::builtin(), self.client.session.dialect());
        self.client.session.pins.add(Pins::of(class.effects));
        if class.effects.has(Effects::SETTINGS.with(Effects::SQL_PREPARE).with(Effects::LISTEN)) {
            self.client.session.pins.add(Pins::SETTINGS);
            self.server.settings = std::rc::Rc::new(SettingsMap::default());
        }
    }
}
