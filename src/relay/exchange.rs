//! Runs one unit on one server connection.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::task::Poll;

use bytes::{Buf, BytesMut};

use super::heal::Refusal;
use super::intake::Filled;
use super::settle::{SettleError, settle};
use crate::net::buffers::consume;
use crate::net::{Buffers, Stream};
use crate::server::Connection;
use crate::session::collect::End;
use crate::session::notes::Notes;
use crate::session::settings::SettingsMap;
use crate::session::translate::{Sharing, Translator};
use crate::session::{Expect, Session, Statements, Unit};
use crate::wire::build;
use crate::wire::client::SYNC_MESSAGE;
use crate::wire::frame::HEADER;
use crate::wire::server::Status;

/// What a client has heard of the end of its server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Farewell {
    /// Nothing.
    #[default]
    None,
    /// The server's own reason, as an error after which the session goes on.
    Reason,
    /// The server's own words, after which PostgreSQL closes the connection.
    Fatal,
}

/// How far a unit has come on a server whose connection broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// Nothing of it was sent: it has not run, whatever it is.
    Nobody,
    /// It was sent, and may have run, but the client has seen nothing of the answer.
    Server,
    /// The client has seen some of the answer, or has handed over what it would take to run the unit again.
    Client,
}

/// How a unit ended.
#[derive(Debug)]
pub enum Outcome {
    /// The server is ready for the next one.
    Done(Status),
    /// A replica refused it, and the client has seen nothing: it can run elsewhere.
    Refused(Refusal),
    /// The server connection broke.
    ServerLost {
        /// What the operating system says.
        error: io::Error,
        /// How far the unit has come.
        reached: Reached,
        /// Whether the client has seen a message only in part, so that no other can follow.
        torn: bool,
        /// What the client has heard of it.
        farewell: Farewell,
    },
    /// The server does not keep to the protocol, or did not take our own settings.
    ServerFailed {
        /// What happened.
        message: String,
        /// Whether the client has seen a message only in part.
        torn: bool,
    },
    /// The client went away, or does not keep to the protocol.
    ClientGone,
    /// The client has too many prepared statements: nothing was sent.
    TooManyStatements,
    /// A prepared statement would give other columns than its client was told: nothing was run.
    PlanChanged,
    /// It was cancelled before the server was told anything for it.
    Cancelled,
}

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

/// How a unit is to be run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The client may be answered by another node instead, as long as it has seen nothing.
    pub may_heal: bool,
    /// The unit is proven to be a read: what is pipelined behind a failed setting does no harm.
    pub is_read: bool,
    /// The most prepared statements per server connection.
    pub statement_limit: usize,
    /// The client's process id.
    pub user: u32,
    /// The generation of the database's definitions.
    pub generation: u64,
    /// With whom the unit's prepared statements are shared.
    pub sharing: Sharing,
}

/// What the client still adds to the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    pub(super) feed: Feed,
    pub(super) refused: Option<Refusal>,
    pub(super) failed: bool,
    pub(super) setup_failed: Option<String>,
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
            holding: plan.may_heal,
            seen: false,
            torn: false,
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

    /// The buffers that [`Self::new`] was given.
    pub fn into_scratch(self) -> (BytesMut, BytesMut) {
        (self.to_server, self.to_client)
    }

    /// How a unit ended that [`Self::run`] has run.
    pub fn outcome(&self, ran: Result<Outcome, Broken>) -> Outcome {
        match ran {
            Ok(outcome) => outcome,
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
    /// end means. (Not in one: each future around another takes its room in every client's task.)
    ///
    /// The unit leaves the client's input unless it was refused or nothing of its answer was seen.
    ///
    /// # Errors
    /// The unit cannot go on.
    pub async fn run(&mut self, unit: &Unit) -> Result<Outcome, Broken> {
        self.simple = unit.simple;
        self.ends_copy = unit.ends_copy;
        self.mixed = unit.mixed;
        self.any_sent = unit.len > 0;
        if unit.end == End::Open {
            self.feed = Feed::Pipeline;
        }
        self.set_up().await?;
        self.sent = true;
        self.hand_over(unit)?;
        if !self.holding {
            self.take_unit(unit);
        }
        if self.is_fed() {
            self.upstream()?;
        }
        loop {
            self.push()?;
            if self.is_over() {
                break;
            }
            if self.is_fed() && !self.to_client.is_empty() {
                // What is ours to say may be all that the client waits for.
                self.deliver().await?;
            }
            if !self.has_unsent() && !self.is_fed() {
                self.make_server_room();
                let Connection { stream, input, .. } = &mut *self.server;
                let read = poll_fn(|cx| stream.poll_read_into(cx, input)).await;
                came(read)?;
                self.pass_down(unit).await?;
                continue;
            }
            // Not matched on where it is awaited, as it would keep its room in the task through the awaits below.
            let ready = self.wait().await?;
            match ready {
                Ready::Server => {
                    self.make_server_room();
                    let read = self.server.stream.try_read(&mut self.server.input).transpose();
                    let Some(read) = read else { continue };
                    came(read)?;
                    self.pass_down(unit).await?;
                }
                Ready::ServerRoom => {}
                Ready::Client => {
                    self.make_client_room();
                    let read = self.client.stream.try_read(self.client.input);
                    if matches!(read, Ok(Some(0)) | Err(_)) {
                        return Err(Broken::Client);
                    }
                    self.note_client_read();
                    self.upstream()?;
                }
            }
        }
        if let Some(refusal) = self.refused {
            return Ok(Outcome::Refused(refusal));
        }
        Ok(Outcome::Done(self.server.status))
    }

    fn is_over(&self) -> bool {
        !self.is_fed() && self.server.replies.ready_to_come() == 0 && self.pass == 0 && !self.has_unsent()
    }

    /// Whether the server has not been sent all that it is to be sent.
    pub(super) fn has_unsent(&self) -> bool {
        !self.to_server.is_empty() || self.server.stream.has_unsent()
    }

    /// Whether more of the client's bytes belong to this unit.
    pub(super) fn is_fed(&self) -> bool {
        self.feed != Feed::Closed || self.client_pass > 0
    }

    /// Gives the server the session's settings, if it has others.
    async fn set_up(&mut self) -> Result<(), Broken> {
        if self.server.status != Status::Idle {
            // In the midst of the session's own transaction.
            return Ok(());
        }
        let unsure = self.server.unsure.is_some_and(|user| user != self.plan.user);
        let target = &self.client.session.settings;
        if !unsure && std::rc::Rc::ptr_eq(&self.server.settings, target) {
            return Ok(());
        }
        if !unsure && *self.server.settings == **target {
            // All who have equal settings come to share one map, so that the next look is a short one.
            if std::rc::Rc::as_ptr(&self.server.settings) < std::rc::Rc::as_ptr(target) {
                self.client.session.share_settings(&self.server.settings);
            } else {
                self.server.settings = target.clone();
            }
            return Ok(());
        }
        if unsure || !self.plan.is_read {
            // A write must not run with another's settings: it is sent only once the server has these.
            let target = target.clone();
            return match Box::pin(settle(self.server, &target, self.plan.user)).await {
                Ok(()) => Ok(()),
                Err(SettleError::Io(error)) => Err(Broken::Server(error)),
                Err(SettleError::Refused { message, .. }) => Err(self.settings_refused(message)),
            };
        }
        let mut sql = Vec::new();
        self.server.settings.difference(target, &mut sql);
        if sql.is_empty() {
            self.server.settings = target.clone();
            return Ok(());
        }
        self.server.settings = target.clone();
        build::query(&mut self.to_server, &sql);
        // A Query of ours ends the life of the unnamed statement as well.
        self.server.statements.unnamed = 0;
        self.server.replies.expect(Expect::Setup);
        Ok(())
    }

    pub(super) fn settings_refused(&mut self, message: String) -> Broken {
        self.server.settings = std::rc::Rc::new(SettingsMap::default());
        self.server.tainted = true;
        Broken::Protocol(format!("a server did not take the settings of this session: {message}"))
    }

    /// Gives the server the unit: as it stands where that is possible.
    fn hand_over(&mut self, unit: &Unit) -> Result<(), Broken> {
        let messages = self.client.input.get(..unit.len).unwrap_or_default();
        let mut table = self.table.borrow_mut();
        let mut translator = translator(self.client.session, self.server, &mut table, self.plan);
        translator.evict(&mut self.to_server);
        if unit.named || unit.end != End::Closed {
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
            return Ok(());
        }
        if let Some((start, end)) = unit.unnamed {
            translator.passed_unnamed(messages.get(start..end).unwrap_or_default());
        }
        if unit.simple {
            // A Query ends the life of the unnamed statement (manual, "Extended Query").
            self.client.session.statements.drop_unnamed();
            self.server.statements.unnamed = 0;
        }
        self.server.replies.expect_plain(unit.unnamed.is_some());
        let sent = if self.to_server.is_empty() {
            self.server.stream.try_write(messages).map_err(Broken::Server)?
        } else {
            0
        };
        self.to_server.extend_from_slice(messages.get(sent..).unwrap_or_default());
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
    async fn pass_down(&mut self, unit: &Unit) -> Result<(), Broken> {
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
        self.deliver().await?;
        if was_holding {
            self.holding = false;
            self.take_unit(unit);
        }
        if self.is_fed() {
            self.upstream()?;
        }
        Ok(())
    }

    /// Writes to the client what has been looked at.
    async fn deliver(&mut self) -> Result<(), Broken> {
        let mut bytes = self.server.input.get(self.run..self.at).unwrap_or_default();
        if !self.to_client.is_empty() {
            self.to_client.extend_from_slice(bytes);
            bytes = &self.to_client;
        }
        if !bytes.is_empty() {
            self.seen = true;
            self.torn = self.pass > 0;
            self.client.stream.write_all(bytes).await.map_err(|_| Broken::Client)?;
        }
        self.to_client.clear();
        consume(&mut self.server.input, self.at);
        (self.at, self.run) = (0, 0);
        Ok(())
    }

    async fn wait(&self) -> Result<Ready, Broken> {
        let feed = self.is_fed() && self.takes_more();
        let (client, server) = (&*self.client.stream, &self.server.stream);
        let room = self.has_unsent();
        poll_fn(|cx| {
            if let Poll::Ready(result) = server.poll_readable(cx) {
                return Poll::Ready(result.map(|()| Ready::Server).map_err(Broken::Server));
            }
            if room && let Poll::Ready(result) = server.poll_writable(cx) {
                return Poll::Ready(result.map(|()| Ready::ServerRoom).map_err(Broken::Server));
            }
            if feed && let Poll::Ready(result) = client.poll_readable(cx) {
                return Poll::Ready(result.map(|()| Ready::Client).map_err(|_| Broken::Client));
            }
            Poll::Pending
        })
        .await
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

/// What turns the session's messages into the server's.
pub(super) fn translator<'a>(
    session: &'a mut Session,
    server: &'a mut Connection,
    table: &'a mut Statements,
    plan: Plan,
) -> Translator<'a> {
    Translator {
        client: &mut session.statements,
        server: &mut server.statements,
        table,
        replies: &mut server.replies,
        limit: plan.statement_limit,
        settings: &session.settings,
        sharing: plan.sharing,
        generation: plan.generation,
        aborted: server.status == Status::Failed,
    }
}

/// What can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ready {
    Server,
    ServerRoom,
    Client,
}

/// Why a unit cannot go on.
#[derive(Debug)]
pub enum Broken {
    /// The client went away.
    Client,
    /// The server's connection broke.
    Server(io::Error),
    /// The server does not keep to the protocol, or did not take our own settings.
    Protocol(String),
    /// The client has too many prepared statements.
    TooManyStatements,
}
