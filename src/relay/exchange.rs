//! Runs one unit on one server connection.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};

use super::heal::Refusal;
use super::intake::Filled;
use super::outcome::{Broken, Farewell, Outcome, Reached};
use super::plan::{Asks, INSERTED, Plan, REPLAYED, translator};
use super::settle::{SettleError, settle};
use crate::net::buffers::consume;
use crate::net::executor::poll_step;
use crate::net::{Buffers, Stream};
use crate::server::Connection;
use crate::session::collect::End;
use crate::session::notes::Notes;
use crate::session::settings::SettingsMap;
use crate::session::{Expect, Session, Stands, Statements, Unit};
use crate::wire::build;
use crate::wire::client::SYNC_MESSAGE;
use crate::wire::frame::HEADER;
use crate::wire::server::Status;

/// What the client's side of an exchange consists of.
#[derive(Debug)]
pub struct ClientSide<'a> {
    /// Its socket.
    pub stream: &'a mut Stream,
    /// What has come from it; starts with the unit.
    pub input: &'a mut BytesMut,
    /// Its session.
    pub session: &'a mut Session,
}

/// What the client still adds to the unit.
#[derive(Clone, Copy, Debug)]
pub(super) enum Feed {
    /// Nothing: the unit is complete.
    Closed,
    /// Messages up to a Sync.
    Pipeline,
    /// COPY data; then whatever `simple` says: nothing, or more up to a Sync.
    Copy {
        /// The COPY came in a Query.
        simple: bool,
    },
}

/// One unit under way.
pub struct Exchange<'a, 'b> {
    pub(super) client: ClientSide<'a>,
    pub(super) server: &'a mut Connection,
    pub(super) table: &'a RefCell<Statements>,
    pub(super) buffers: &'a RefCell<Buffers>,
    pub(super) plan: Plan,
    pub(super) notes: &'b mut Notes,
    /// Bytes for the server that it has not taken yet.
    pub(super) to_server: BytesMut,
    /// Bytes for the client that do not come from the server's input as they stand.
    pub(super) to_client: BytesMut,
    /// Up to here the server's input has been looked at.
    pub(super) at: usize,
    /// From here on it has not been passed on.
    pub(super) run: usize,
    /// Bytes of the server's current message that are still to come, and need no look.
    pub(super) pass: usize,
    /// The same for the client's current message.
    pub(super) client_pass: usize,
    /// The answer is held back until the first row or completion.
    pub(super) holding: bool,
    pub(super) seen: bool,
    /// What was last written to the client ends within a message.
    torn: bool,
    /// The client has not taken yet all that is to be delivered.
    delivering: bool,
    pub(super) feed: Feed,
    pub(super) refused: Option<Refusal>,
    pub(super) failed: bool,
    pub(super) setup_failed: Option<Box<str>>,
    pub(super) completed: u32,
    pub(super) simple: bool,
    /// What a COPY FROM STDIN asks for has been sent already.
    pub(super) ends_copy: bool,
    /// A Query or FunctionCall ends the unit behind messages that no Sync has ended.
    pub(super) mixed: bool,
    /// Part of the unit has been sent before what is fed now.
    pub(super) any_sent: bool,
    /// What the client has heard of its server's end.
    pub(super) farewell: Farewell,
    pub(super) filled: Filled,
    /// The server may have got something of the unit.
    sent: bool,
    taken: bool,
}

impl<'a, 'b> Exchange<'a, 'b> {
    /// Prepares to run the unit at the start of the client's input on `server`.
    pub fn new(
        client: ClientSide<'a>,
        server: &'a mut Connection,
        table: &'a RefCell<Statements>,
        buffers: &'a RefCell<Buffers>,
        plan: Plan,
        notes: &'b mut Notes,
        scratch: (BytesMut, BytesMut),
    ) -> Self {
        Self {
            client,
            server,
            table,
            buffers,
            plan,
            notes,
            to_server: scratch.0,
            to_client: scratch.1,
            at: 0,
            run: 0,
            pass: 0,
            client_pass: 0,
            holding: plan.may_heal || matches!(plan.asks, Asks::Proof(_)),
            seen: false,
            torn: false,
            delivering: false,
            feed: Feed::Closed,
            refused: None,
            failed: false,
            setup_failed: None,
            completed: 0,
            simple: false,
            ends_copy: false,
            mixed: false,
            any_sent: false,
            farewell: Farewell::None,
            filled: Filled::default(),
            sent: false,
            taken: false,
        }
    }

    /// Whether the unit has left the client's input.
    #[must_use]
    pub fn has_taken(&self) -> bool {
        self.taken
    }

    /// What the server was asked besides the unit.
    #[must_use]
    pub fn asked(&self) -> Asks {
        self.plan.asks
    }

    /// The buffers that [`Self::new`] was given.
    pub fn into_scratch(self) -> (BytesMut, BytesMut) {
        (self.to_server, self.to_client)
    }

    /// How a unit ended that [`Self::poll_run`] has run.
    pub fn outcome(&mut self, ran: Result<Outcome, Broken>) -> Outcome {
        match ran {
            Ok(outcome) => outcome,
            // The client has had all of the answer. Whoever has the connection next will see that it is broken.
            Err(Broken::Server(_) | Broken::Protocol(_)) if self.is_answered() => {
                self.server.replies.clear();
                self.server.tainted = true;
                Outcome::Done(self.server.status)
            }
            // A replica that is behind may know neither of a role, say, nor of anything else that a setting speaks of.
            Err(Broken::Protocol(_)) if matches!(self.plan.asks, Asks::Proof(_)) && !self.taken => {
                self.server.input.advance(std::mem::take(&mut self.at));
                Outcome::InVain { pass: self.pass }
            }
            Err(Broken::Client) => Outcome::ClientGone,
            Err(Broken::Server(error)) => Outcome::ServerLost {
                error,
                reached: match () {
                    () if !self.sent => Reached::Nobody,
                    () if self.seen || self.taken => Reached::Client,
                    () => Reached::Server,
                },
                torn: self.torn,
                farewell: self.farewell,
            },
            Err(Broken::Protocol(message)) => Outcome::ServerFailed { message, torn: self.torn },
            Err(Broken::TooManyStatements) => Outcome::TooManyStatements,
        }
    }

    /// Gives the server the session's settings and the unit, and the client the answer; [`Self::outcome`] says what the
    /// end means. Behind [`Self::set_up`].
    ///
    /// The unit leaves the client's input unless it was refused or nothing of its answer was seen.
    ///
    /// All steps are in one future by hand: each `async fn` within another would keep its arguments and its place in every
    /// berth, and copy them there and back with every unit.
    ///
    /// # Errors
    /// The unit cannot go on.
    pub fn poll_run(&mut self, cx: &mut Context<'_>, unit: &Unit) -> Poll<Result<Outcome, Broken>> {
        if !self.sent {
            self.begin(unit)?;
        }
        loop {
            if self.delivering {
                ready!(self.poll_deliver(cx))?;
                self.upstream()?;
            }
            self.push()?;
            if self.is_over() {
                break;
            }
            if self.is_fed() && !self.to_client.is_empty() {
                // What is ours to say may be all that the client waits for.
                self.deliver()?;
                if self.delivering {
                    continue;
                }
            }
            if !self.has_unsent() && !self.is_fed() {
                let read = self.poll_read_server(cx);
                if read.is_pending() && self.refused == Some(Refusal::NotThereYet) {
                    break;
                }
                let read = ready!(read);
                came(read)?;
                self.pass_down(unit)?;
                continue;
            }
            match ready!(self.poll_any(cx))? {
                Ready::Server => {
                    self.make_server_room();
                    let read = self.server.stream.try_read(&mut self.server.input).transpose();
                    let Some(read) = read else { continue };
                    came(read)?;
                    self.pass_down(unit)?;
                }
                Ready::ServerRoom => {}
                Ready::Client => {
                    self.make_client_room();
                    let read = self.client.stream.try_read(self.client.input);
                    if matches!(read, Ok(Some(0)) | Err(_)) {
                        return Poll::Ready(Err(Broken::Client));
                    }
                    self.note_client_read();
                    self.upstream()?;
                }
            }
        }
        Poll::Ready(Ok(match self.refused {
            Some(Refusal::NotThereYet) => Outcome::InVain { pass: self.pass },
            Some(refusal) => Outcome::Refused(refusal),
            None => Outcome::Done(self.server.status),
        }))
    }

    /// Gives the server the unit, or what has come of it.
    fn begin(&mut self, unit: &Unit) -> Result<(), Broken> {
        self.simple = unit.simple;
        self.ends_copy = unit.ends_copy;
        self.mixed = unit.mixed;
        self.any_sent = unit.len > 0;
        if unit.end == End::Open {
            self.feed = Feed::Pipeline;
        }
        self.sent = true;
        self.hand_over(unit)?;
        if !self.holding {
            self.take_unit(unit);
        }
        self.upstream()
    }

    /// Whether nothing is left to come but what the server was asked behind the unit.
    fn is_answered(&self) -> bool {
        let delivered = !self.delivering && self.to_client.is_empty() && self.run == self.at;
        delivered && self.server.replies.position() == Some(Stands::Behind)
    }

    fn is_over(&self) -> bool {
        self.server.replies.ready_to_come() == 0 && !self.is_fed() && self.pass == 0 && !self.has_unsent()
    }

    /// Whether the server has not been sent all that it is to be sent.
    pub(super) fn has_unsent(&self) -> bool {
        !self.to_server.is_empty() || self.server.stream.has_unsent()
    }

    /// Whether more of the client's bytes belong to this unit.
    pub(super) fn is_fed(&self) -> bool {
        !matches!(self.feed, Feed::Closed) || self.client_pass > 0
    }

    /// Sees to it that the server has the session's settings, or gets them in front of the unit, to be followed by
    /// [`Self::poll_run`] at once; `false` if it has to have them first, as [`Self::settle_and_run`] sees to.
    pub fn set_up(&mut self) -> bool {
        if self.server.status != Status::Idle {
            // In the midst of the session's own transaction.
            return true;
        }
        let unsure = self.server.unsure.is_some_and(|user| user != self.plan.user);
        let target = &self.client.session.settings;
        if !unsure && Rc::ptr_eq(&self.server.settings, target) {
            return true;
        }
        if !unsure && *self.server.settings == **target {
            // All who have equal settings come to share one map, so that the next look is a short one.
            if Rc::as_ptr(&self.server.settings) < Rc::as_ptr(target) {
                self.client.session.share_settings(&self.server.settings);
            } else {
                self.server.settings = target.clone();
            }
            return true;
        }
        if unsure || !self.plan.is_read {
            return false;
        }
        let mut sql = Vec::new();
        self.server.settings.difference(target, &mut sql);
        self.server.settings = target.clone();
        if !sql.is_empty() {
            build::query(&mut self.to_server, &sql);
            // A Query of ours ends the life of the unnamed statement as well.
            self.server.statements.unnamed = 0;
            self.server.replies.expect(Expect::Setup);
        }
        true
    }

    /// Gives the server the session's settings, waits until it has them, as a write must not run with another's, and then
    /// does what [`Self::poll_run`] does.
    ///
    /// # Errors
    /// It did not take them, its connection broke, or the unit cannot go on.
    pub async fn settle_and_run(&mut self, unit: &Unit) -> Result<Outcome, Broken> {
        let target = self.client.session.settings.clone();
        match settle(self.server, &target, self.plan.user).await {
            Ok(()) => poll_fn(|cx| self.poll_run(cx, unit)).await,
            Err(SettleError::Io(error)) => Err(Broken::Server(error)),
            Err(SettleError::Refused { message, .. }) => Err(self.settings_refused(message.into())),
        }
    }

    pub(super) fn settings_refused(&mut self, message: Box<str>) -> Broken {
        self.server.settings = Rc::new(SettingsMap::default());
        self.server.tainted = true;
        Broken::Protocol(format!("a server did not take the settings of this session: {message}"))
    }

    /// Gives the server the unit: as it stands where that is possible.
    fn hand_over(&mut self, unit: &Unit) -> Result<(), Broken> {
        if matches!(self.plan.asks, Asks::Proof(_)) {
            self.to_server.extend_from_slice(&REPLAYED);
            self.server.replies.expect(Expect::Position(Stands::InFront));
        }
        self.hand_over_unit(unit)?;
        if self.plan.asks == Asks::Position {
            self.to_server.extend_from_slice(&INSERTED);
            self.server.replies.expect_position_behind();
        }
        Ok(())
    }

    fn hand_over_unit(&mut self, unit: &Unit) -> Result<(), Broken> {
        let plain = !unit.named && matches!(unit.end, End::Closed);
        let full = self.server.statements.len() > self.plan.statement_limit as usize;
        if !plain || full || unit.unnamed.is_some() {
            self.translate_unit(unit, plain)?;
        }
        if !plain {
            return Ok(());
        }
        if unit.simple {
            // A Query ends the life of the unnamed statement (manual, "Extended Query").
            self.client.session.statements.drop_unnamed();
            self.server.statements.unnamed = 0;
        }
        self.server.replies.expect_plain(unit.unnamed.is_some());
        let messages = self.client.input.get(..unit.len).unwrap_or_default();
        let sent = if self.to_server.is_empty() && self.plan.asks == Asks::Nothing {
            self.server.stream.try_write(messages).map_err(Broken::Server)?
        } else {
            0
        };
        self.to_server.extend_from_slice(messages.get(sent..).unwrap_or_default());
        Ok(())
    }

    /// Closes what statements the server has too many of, and puts the unit into its terms, unless it is passed on `plain`.
    fn translate_unit(&mut self, unit: &Unit, plain: bool) -> Result<(), Broken> {
        let messages = self.client.input.get(..unit.len).unwrap_or_default();
        let mut table = self.table.borrow_mut();
        let mut translator = translator(self.client.session, self.server, &mut table, self.plan);
        translator.evict(&mut self.to_server);
        if plain {
            if let Some((start, end)) = unit.unnamed {
                translator.passed_unnamed(messages.get(start..end).unwrap_or_default());
            }
            return Ok(());
        }
        // Flush is not for the server: it answers at once to the Sync that stands in its place.
        let flush = if unit.end == End::Flushed { HEADER } else { 0 };
        let messages = messages.get(..unit.len - flush).unwrap_or_default();
        translator.translate(messages, &mut self.to_server).map_err(|_| Broken::TooManyStatements)?;
        if unit.end == End::Flushed {
            self.to_server.extend_from_slice(&SYNC_MESSAGE);
            self.server.replies.expect(Expect::QuietReady);
        }
        if unit.end == End::Closed && !self.mixed {
            self.server.replies.complete();
        }
        self.server.replies.say(&mut self.to_client);
        Ok(())
    }

    fn take_unit(&mut self, unit: &Unit) {
        consume(self.client.input, unit.len);
        self.taken = true;
    }

    /// Writes what the server takes without waiting.
    fn push(&mut self) -> Result<(), Broken> {
        while self.has_unsent() {
            let n = self.server.stream.try_write(&self.to_server).map_err(Broken::Server)?;
            if n == 0 {
                break;
            }
            self.to_server.advance(n);
        }
        Ok(())
    }

    /// Passes on what the client may see of what was read from the server.
    fn pass_down(&mut self, unit: &Unit) -> Result<(), Broken> {
        self.note_server_read();
        let was_holding = self.holding;
        self.downstream()?;
        self.hold_no_more_than_may_be();
        if self.refused.is_some() {
            // Nobody is to see this answer; what has been looked at can go.
            self.to_client.clear();
            self.server.input.advance(self.at);
            (self.at, self.run) = (0, 0);
            return Ok(());
        }
        if self.holding && !self.is_over() {
            return Ok(());
        }
        self.deliver()?;
        if was_holding {
            self.holding = false;
            self.take_unit(unit);
        }
        // What is to be said to the client now comes behind what it has not taken yet.
        if self.delivering { Ok(()) } else { self.upstream() }
    }

    /// Writes to the client what has been looked at; what it does not take at once is for [`Self::poll_deliver`].
    fn deliver(&mut self) -> Result<(), Broken> {
        let bytes = self.server.input.get(self.run..self.at).unwrap_or_default();
        if !self.to_client.is_empty() {
            self.to_client.extend_from_slice(bytes);
            self.run = self.at;
        }
        let bytes = if self.to_client.is_empty() { bytes } else { &self.to_client };
        if !bytes.is_empty() {
            self.seen = true;
            self.torn = self.pass > 0;
            let stream = &mut *self.client.stream;
            let taken = stream.try_write(bytes).map_err(|_| Broken::Client)?;
            if taken < bytes.len() || stream.has_unsent() {
                self.took(taken);
                self.delivering = true;
                return Ok(());
            }
        }
        self.forget_delivered();
        Ok(())
    }

    /// Writes the rest. Nothing more is read from either side before that, so that memory stays bounded.
    fn poll_deliver(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let bytes = match &self.to_client[..] {
            [] => self.server.input.get(self.run..self.at).unwrap_or_default(),
            ours => ours,
        };
        let mut taken = 0;
        let written = self.client.stream.poll_write_rest(cx, bytes, &mut taken);
        self.took(taken);
        ready!(written).map_err(|_| Broken::Client)?;
        self.delivering = false;
        self.forget_delivered();
        Poll::Ready(Ok(()))
    }

    /// The client has taken so many bytes of what is to be delivered.
    fn took(&mut self, n: usize) {
        if self.to_client.is_empty() {
            self.run += n;
        } else {
            self.to_client.advance(n);
        }
    }

    fn forget_delivered(&mut self) {
        self.to_client.clear();
        consume(&mut self.server.input, self.at);
        (self.at, self.run) = (0, 0);
    }

    /// Waits for whatever brings the unit on.
    fn poll_any(&self, cx: &mut Context<'_>) -> Poll<Result<Ready, Broken>> {
        // Of what both never stop to send.
        ready!(poll_step(cx));
        let (client, server) = (&*self.client.stream, &self.server.stream);
        if let Poll::Ready(result) = server.poll_readable(cx) {
            return Poll::Ready(result.map(|()| Ready::Server).map_err(Broken::Server));
        }
        if self.has_unsent()
            && let Poll::Ready(result) = server.poll_writable(cx)
        {
            return Poll::Ready(result.map(|()| Ready::ServerRoom).map_err(Broken::Server));
        }
        if self.is_fed()
            && self.takes_more()
            && let Poll::Ready(result) = client.poll_readable(cx)
        {
            return Poll::Ready(result.map(|()| Ready::Client).map_err(|_| Broken::Client));
        }
        Poll::Pending
    }
}

/// Whether anything was read from the server.
fn came(read: io::Result<usize>) -> Result<(), Broken> {
    match read {
        Ok(0) => Err(Broken::Server(io::ErrorKind::UnexpectedEof.into())),
        Ok(_) => Ok(()),
        Err(error) => Err(Broken::Server(error)),
    }
}

/// What can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ready {
    Server,
    ServerRoom,
    Client,
}
