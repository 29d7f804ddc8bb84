//! A client that is in, from one unit to the next.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{self, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};

use super::accept::Entrance;
use super::cancel::Handle;
use super::enter::{refuse, shutting_down};
use super::names::DatabaseNames;
use super::outcome::open;
use super::unit::TransactionKind;
use super::worker::Worker;
use crate::net::Stream;
use crate::net::buffers::make_room;
use crate::net::timers::timeout;
use crate::pool::{Lease, Member, PoolKey};
use crate::relay::own_notification;
use crate::session::collect::End;
use crate::session::collect::{self, Collected, Collector};
use crate::session::pins::Pins;
use crate::session::state::Lost;
use crate::session::{Session, Unit};
use crate::sql::command::Modes;
use crate::wire::build::{self, Report};
use crate::wire::client::tag;
use crate::wire::server::Status;
use crate::wire::sqlstate::{self, IDLE_TIMEOUT};

/// One client that is in.
pub(super) struct Client {
    pub(super) worker: Rc<Worker>,
    pub(super) stream: Stream,
    /// What has come from it and is not used yet.
    pub(super) input: BytesMut,
    pub(super) entrance: Entrance,
    pub(super) session: Session,
    pub(super) identity: Member,
    pub(super) key: PoolKey,
    pub(super) handle: Rc<Handle>,
    /// The names in its database.
    pub(super) names: Rc<DatabaseNames>,
    /// The server connection of its transaction, or the one that it is bound to.
    pub(super) lease: Option<Lease>,
    /// What the transaction that is under way counts as.
    pub(super) transaction: TransactionKind,
    /// The transaction under way has set something, perhaps for itself alone.
    pub(super) sets: bool,
    /// Its process id, as it is told.
    pub(super) pid: u32,
    /// The transaction under way changes definitions.
    pub(super) defines: bool,
    /// A server has not let its role ask for a position: none is asked any more.
    pub(super) mute: bool,
    /// The modes of a READ ONLY transaction on a replica in which nothing has run yet.
    pub(super) begun: Option<Modes>,
    /// The unit under way still stands at the start of the input.
    pub(super) pending_unit: bool,
    /// Bytes of a message still to be dropped: none has more than an `i32` counts.
    pub(super) skip: u32,
    /// What the session counts as bound to its server by.
    pub(super) counted_pins: Pins,
    /// What is known of it at rest.
    pub(super) found: Found,
}

/// Of what a client is made that has nothing under way.
pub(super) struct AtRest {
    pub(super) worker: Rc<Worker>,
    pub(super) stream: Stream,
    pub(super) entrance: Entrance,
    pub(super) session: Session,
    pub(super) identity: Member,
    pub(super) key: PoolKey,
    pub(super) handle: Rc<Handle>,
    pub(super) names: Rc<DatabaseNames>,
    pub(super) pid: u32,
}

impl From<AtRest> for Client {
    fn from(at_rest: AtRest) -> Self {
        let AtRest { worker, stream, entrance, session, identity, key, handle, names, pid } = at_rest;
        Self {
            worker,
            stream,
            input: BytesMut::new(),
            entrance,
            session,
            identity,
            key,
            handle,
            names,
            lease: None,
            transaction: TransactionKind::default(),
            sets: false,
            pid,
            defines: false,
            mute: false,
            begun: None,
            pending_unit: false,
            skip: 0,
            counted_pins: Pins::default(),
            found: Found::Here,
        }
    }
}

/// What is known of a client at rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing else.
    #[default]
    Here,
    /// It comes from another worker, and its task has had no turn yet.
    Arriving,
    /// Its connection has ended: TLS says so once.
    Gone,
}

/// Why a client's life goes on or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    GoesOn,
    /// There is nothing to do until it is woken.
    Rests,
    Ends,
}

/// Why a client that has lived for a while does so no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Rests,
    Ends,
}

/// What wakes a client between its units.
enum Woken {
    /// It has sent that many bytes; 0 is its end.
    Client(io::Result<usize>),
    Server,
    Leave,
    /// It has been idle for as long as its `idle_session_timeout` allows.
    Idle,
}

impl Client {
    /// From one unit to the next, for as long as there is something to do.
    pub(super) async fn live(&mut self) -> Stop {
        // Who rests has nothing in the input, and so nothing of a unit.
        let mut collector = Collector::default();
        loop {
            let life = match &self.next(&mut collector) {
                Some(Collected::Unit(unit)) => self.unit(unit).await,
                Some(Collected::More) => self.more().await,
                Some(odd) => Box::pin(self.answer_odd(*odd)).await,
                None => Box::pin(self.skip_to_sync()).await,
            };
            match life {
                Life::GoesOn => {}
                Life::Rests => {
                    debug_assert!(collector.is_idle());
                    return Stop::Rests;
                }
                Life::Ends => break,
            }
        }
        self.worker.metrics.pinned(self.counted_pins.kinds(), []);
        // Whatever is still open ends with its server connection.
        if let Some(lease) = self.lease.take() {
            self.handle.rests();
            lease.connection.close();
        }
        // A client that reads slowly is to have its last answer, too. Who is gone is known to be.
        let _ = self.stream.sent().await;
        Stop::Ends
    }

    /// What stands at the start of the input; `None` if it is to be skipped up to the next Sync.
    fn next(&mut self, collector: &mut Collector) -> Option<Collected> {
        if self.skip > 0 {
            let n = self.input.len().min(self.skip as usize);
            self.input.advance(n);
            self.skip -= n as u32;
        }
        if self.skip > 0 || self.input.is_empty() {
            return Some(Collected::More);
        }
        if self.session.skipping {
            return None;
        }
        let names = self.names.get();
        let context = collect::Context {
            names: &**names,
            dialect: self.session.dialect(),
            statements: &self.session.statements,
            known: &self.worker.known,
        };
        Some(collector.collect(&self.input, &context))
    }

    /// Something else than a unit.
    async fn answer_odd(&mut self, collected: Collected) -> Life {
        match collected {
            Collected::More | Collected::Unit(_) => Life::GoesOn,
            Collected::Terminate => Life::Ends,
            Collected::Stray(n) => {
                self.skip(n);
                Life::GoesOn
            }
            Collected::Unknown(tag) => {
                self.fatal(&Report::fatal(
                    sqlstate::PROTOCOL_VIOLATION,
                    format!("invalid frontend message type {tag}"),
                ))
                .await
            }
            Collected::Malformed(tag) => {
                self.fatal(&Report::fatal(
                    sqlstate::PROTOCOL_VIOLATION,
                    format!("invalid message format in a message of type {:?}", char::from(tag)),
                ))
                .await
            }
            Collected::Broken(error) => {
                self.fatal(&Report::fatal(sqlstate::PROTOCOL_VIOLATION, error.to_string())).await
            }
        }
    }

    /// Drops the next message, of so many bytes, as it comes.
    fn skip(&mut self, len: usize) {
        self.skip = u32::try_from(len).unwrap_or(u32::MAX);
    }

    /// Drops what follows in a pipeline that has failed, up to its Sync.
    async fn skip_to_sync(&mut self) -> Life {
        match crate::wire::Frame::peek(&self.input) {
            Ok(Some(frame)) if frame.tag == tag::TERMINATE => Life::Ends,
            Ok(Some(frame)) if frame.tag == tag::SYNC => {
                self.input.advance(frame.len);
                self.session.skipping = false;
                let mut out = BytesMut::new();
                build::ready_for_query(&mut out, self.session.status);
                self.say(&out).await
            }
            Ok(Some(frame)) => {
                self.skip(frame.len);
                Life::GoesOn
            }
            Ok(None) => self.more().await,
            Err(error) => self.fatal(&Report::fatal(sqlstate::PROTOCOL_VIOLATION, error.to_string())).await,
        }
    }

    /// Waits for more from the client. A client that has nothing to say holds no buffer, and rests unless something else may
    /// come than what its task is woken for.
    async fn more(&mut self) -> Life {
        if self.input.is_empty() {
            self.worker.buffers.borrow_mut().give(std::mem::take(&mut self.input));
        }
        if self.found == Found::Gone {
            return Life::Ends;
        }
        let idle = self.session.status == Status::Idle;
        let limit = self.session.settings.marks().idle_timeout.filter(|_| idle && self.input.is_empty());
        // Whoever has slept and is woken has most likely something to read: it is read without asking first.
        let mut slept = false;
        let woken = match limit {
            None if self.lease.is_none() && self.input.is_empty() => {
                match poll_fn(|cx| Poll::Ready(self.poll_woken(cx, &mut slept))).await {
                    Poll::Ready(woken) => woken,
                    Poll::Pending => return Life::Rests,
                }
            }
            None => poll_fn(|cx| self.poll_woken(cx, &mut slept)).await,
            Some(limit) => Box::pin(self.woken_within(limit)).await,
        };
        match woken {
            Woken::Client(Ok(n)) if n > 0 => Life::GoesOn,
            Woken::Client(_) => Life::Ends,
            woken => Box::pin(self.heed(woken)).await,
        }
    }

    /// Of the two ends of the connection the client's is the one that is idle: the server may serve others.
    async fn woken_within(&mut self, limit: Duration) -> Woken {
        let mut slept = false;
        let woken = poll_fn(|cx| self.poll_woken(cx, &mut slept));
        timeout(limit, woken).await.unwrap_or(Woken::Idle)
    }

    /// What a client that rests is woken for, if it is for anything: what it has sent has been read then. What else there is,
    /// [`Self::live`] finds again.
    pub(super) fn poll_roused(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        let Poll::Ready(woken) = self.poll_woken(cx, &mut true) else { return Poll::Pending };
        let is_gone = matches!(woken, Woken::Client(Ok(0) | Err(_)));
        self.found = if is_gone { Found::Gone } else { Found::Here };
        Poll::Ready(())
    }

    // One for those at rest and those who are not: what lies in few lines of the processor's cache costs least.
    #[inline(never)]
    fn poll_woken(&mut self, cx: &mut task::Context<'_>, slept: &mut bool) -> Poll<Woken> {
        if (std::mem::replace(slept, true) || self.stream.poll_readable(cx).is_ready())
            && let Poll::Ready(read) = self.poll_read(cx)
        {
            return Poll::Ready(Woken::Client(read));
        }
        if let Some(lease) = &self.lease
            && (lease.connection.has_message() || lease.connection.stream.poll_readable(cx).is_ready())
        {
            return Poll::Ready(Woken::Server);
        }
        if self.handle.is_leaving() && self.session.status == Status::Idle {
            return Poll::Ready(Woken::Leave);
        }
        Poll::Pending
    }

    /// Something else has come than more from the client.
    async fn heed(&mut self, woken: Woken) -> Life {
        match woken {
            Woken::Client(_) => Life::GoesOn,
            Woken::Server => self.hear_server().await,
            Woken::Leave => self.fatal(&shutting_down()).await,
            Woken::Idle => {
                let report =
                    Report::fatal(IDLE_TIMEOUT, "terminating connection due to idle-session timeout");
                self.fatal(&report).await
            }
        }
    }

    fn poll_read(&mut self, cx: &mut task::Context<'_>) -> Poll<io::Result<usize>> {
        if self.input.capacity() == 0 {
            self.input = self.worker.buffers.borrow_mut().take();
        }
        make_room(&mut self.input);
        let read = self.stream.poll_read_into(cx, &mut self.input);
        if read.is_pending() && self.input.is_empty() {
            self.worker.buffers.borrow_mut().give(std::mem::take(&mut self.input));
        }
        read
    }

    /// The leased server speaks between units: a notification, a notice, or its end.
    async fn hear_server(&mut self) -> Life {
        let Some(lease) = self.lease.as_mut() else { return Life::GoesOn };
        let server = &mut lease.connection;
        let mut out = BytesMut::new();
        let (mut lost, mut heard) = (false, false);
        // What came behind the last answer comes first.
        if !server.has_message() {
            server.input.reserve(1024);
            let read = server.stream.try_read(&mut server.input);
            lost = matches!(read, Ok(Some(0)) | Err(_));
            if server.input.is_empty() {
                // So little room is not for what it says next.
                server.input = BytesMut::new();
            }
        }
        while let Ok(Some(frame)) = crate::wire::Frame::peek(&server.input) {
            if server.input.len() < frame.len {
                break;
            }
            lost |= frame.tag == crate::wire::server::tag::ERROR_RESPONSE;
            if frame.tag == crate::wire::server::tag::NOTIFICATION_RESPONSE {
                heard = true;
                let message = server.input.get_mut(..frame.len).unwrap_or_default();
                own_notification(message, server.pid, self.pid);
            }
            out.extend_from_slice(&server.input.split_to(frame.len));
        }
        if heard {
            // Whoever is told of something may look for it at once.
            let open = open(&self.worker.polls, server);
            self.session.freshness.read_on(open, &self.worker.topology(), self.session.level);
            self.worker.polls.kick_if_resting(open.node);
        }
        if lost && out.is_empty() && self.session.pins.is_empty() {
            // It died without a word, between two statements of a transaction.
            if let Some(lease) = self.lease.take() {
                self.handle.rests();
                self.end_lease(lease);
            }
            // A transaction that has failed already can do no more than end.
            let told = self.session.status == Status::Failed;
            self.session.lose(if told { Lost::Told } else { Lost::Untold });
            return Life::GoesOn;
        }
        if lost {
            // PostgreSQL itself would close the connection: state that is lost cannot be made up for.
            if out.is_empty() {
                Report::fatal(sqlstate::CONNECTION_FAILURE, "the server connection broke").write(&mut out);
            }
            let _ = self.stream.write_last(&out).await;
            return Life::Ends;
        }
        match self.stream.write_all(&out).await {
            Ok(()) => Life::GoesOn,
            Err(_) => Life::Ends,
        }
    }

    /// Tells the client why its connection ends.
    pub(super) async fn fatal(&mut self, report: &Report) -> Life {
        refuse(&self.worker, &mut self.stream, report).await;
        Life::Ends
    }

    /// Tells the client that a unit failed, and that the next may come.
    pub(super) async fn fail(&mut self, unit: &Unit, report: &Report) -> Life {
        self.worker.count_error(report);
        if report.severity == build::Severity::Fatal {
            return self.fatal(report).await;
        }
        let mut out = BytesMut::new();
        report.write(&mut out);
        if self.say(&out).await == Life::Ends {
            return Life::Ends;
        }
        self.after_error(unit).await
    }

    /// Ends a unit whose error the client has had.
    pub(super) async fn after_error(&mut self, unit: &Unit) -> Life {
        if unit.end == End::Flushed {
            // The Sync is still to come, and brings ReadyForQuery.
            self.session.skipping = true;
            return Life::GoesOn;
        }
        let mut out = BytesMut::new();
        build::ready_for_query(&mut out, self.session.status);
        self.say(&out).await
    }

    /// Writes to the client.
    pub(super) async fn say(&mut self, bytes: &[u8]) -> Life {
        match self.stream.write_all(bytes).await {
            Ok(()) => Life::GoesOn,
            Err(_) => Life::Ends,
        }
    }
}
