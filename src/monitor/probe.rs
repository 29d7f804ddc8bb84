//! The connection that polls a node, and the SQL of a poll.
//!
//! A poll is one constant request and an answer that is read where it lies: it comes every 2 ms from each node.

use std::io;

use bytes::{Buf, BufMut, BytesMut};

use super::answer::{self, Answer, AnswerError, Found};
use crate::auth::Credential;
use crate::config::settings::NodeSettings;
use crate::lsn::{Timeline, WalGeometry};
use crate::net::{Connector, Stream};
use crate::server::DialError;
use crate::server::login::{Account, LoggedIn, login};
use crate::topology::Report;
use crate::wire::build;
use crate::wire::client::{SYNC_MESSAGE, TERMINATE_MESSAGE, tag};

/// Role and position of any node. The functions that a standby refuses stand in a CASE, which evaluates only the
/// branch it takes.
/// The timeline of a primary is that of its current WAL file: `pg_control_checkpoint()` lags behind a promotion.
const POLL: &str = "\
SELECT r,
  CASE WHEN r THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END,
  CASE WHEN r THEN NULL ELSE pg_current_wal_flush_lsn() END,
  CASE WHEN r THEN NULL ELSE substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END
FROM (SELECT pg_is_in_recovery() AS r OFFSET 0) AS s";

/// The same of a node that was a standby just now: the server has two thirds of the work with it.
const POLL_STANDBY: &str = "SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn()";

/// The timeline that a standby receives; NULL without `pg_read_all_stats`, and no row while it is disconnected. Then
/// the one that it has to recover to, which moves with restart points.
const RECEIVED_TIMELINE: &str = "SELECT COALESCE((SELECT received_tli FROM pg_stat_wal_receiver), \
  (SELECT NULLIF(min_recovery_end_timeline, 0) FROM pg_control_recovery()))";

/// Settings of the connection, and what does not change while a server runs.
const BEGIN: &str = "SET synchronous_commit = local; SET statement_timeout = 0; \
  SELECT system_identifier, current_setting('wal_block_size'), \
  (SELECT setting FROM pg_settings WHERE name = 'wal_segment_size') FROM pg_control_system()";

/// Makes everybody's WAL up to here reach the standbys: see FACTS 1.5.
const NUDGE: &str = "SELECT pg_logical_emit_message(true, 'tidegate', '')";

/// Every how many polls a standby is asked for its timeline.
const TIMELINE_EVERY: u32 = 50;

/// The least room to read into.
const ROOM: usize = 1024;

/// Why a node cannot be polled.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The connection broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The login failed.
    #[error("{0}")]
    Dial(#[from] DialError),
    /// The server has refused the question, or given no proper answer.
    #[error("{0}")]
    Answer(#[from] AnswerError),
}

/// A poll connection.
pub struct Probe {
    link: Link,
    requests: Requests,
    /// What the last poll found.
    in_recovery: bool,
    system: u64,
    geometry: WalGeometry,
    received_timeline: Timeline,
    polls: u32,
}

/// What is sent anew and anew.
struct Requests {
    poll: BytesMut,
    poll_standby: BytesMut,
    received_timeline: BytesMut,
}

impl Probe {
    /// Connects.
    ///
    /// # Errors
    /// The node cannot be reached, or refuses the login.
    pub async fn connect(node: &NodeSettings, connector: &Connector) -> Result<Self, ProbeError> {
        let said = [("client_encoding", "UTF8"), ("application_name", "tidegate monitor")];
        let account = Account {
            user: &node.user,
            database: &node.database,
            parameters: &said.map(|(name, value)| (name.to_owned(), value.to_owned())),
            credential: node.password.clone().map(Credential::Password),
        };
        let LoggedIn { stream, rest, .. } = login(connector, &account).await?;
        Self::begin(Link { stream, input: rest }).await
    }

    async fn begin(mut link: Link) -> Result<Self, ProbeError> {
        let mut request = BytesMut::new();
        build::query(&mut request, BEGIN.as_bytes());
        let identity = link.ask(&request, answer::numbers).await?;
        let [system, block, segment] = identity.ok_or(AnswerError::NotOneRow)?;
        let geometry = block.zip(segment).and_then(|(block, segment)| WalGeometry::new(block, segment));
        request.clear();
        let requests = Requests {
            poll: prepare(&mut request, "poll", POLL),
            poll_standby: prepare(&mut request, "poll_standby", POLL_STANDBY),
            received_timeline: prepare(&mut request, "received_timeline", RECEIVED_TIMELINE),
        };
        request.put_slice(&SYNC_MESSAGE);
        link.run(&request).await?;
        Ok(Self {
            link,
            requests,
            in_recovery: false,
            system: system.unwrap_or_default(),
            geometry: geometry.unwrap_or_default(),
            received_timeline: Timeline::default(),
            polls: 0,
        })
    }

    /// Polls.
    ///
    /// # Errors
    /// The connection is of no use any more.
    pub async fn poll(&mut self) -> Result<Report, ProbeError> {
        let mut found = Found::default();
        if self.in_recovery {
            found = self.link.ask_one(&self.requests.poll_standby, answer::replayed).await?;
        }
        // Not known yet, or promoted meanwhile.
        if !found.in_recovery {
            found = self.link.ask_one(&self.requests.poll, answer::found).await?;
        }
        self.in_recovery = found.in_recovery;
        if found.in_recovery {
            if self.polls.is_multiple_of(TIMELINE_EVERY) {
                let received = self.link.ask_one(&self.requests.received_timeline, answer::received).await?;
                // A standby that is cut off still replays the timeline that it received last.
                self.received_timeline = received.unwrap_or(self.received_timeline);
            }
            self.polls = self.polls.wrapping_add(1);
            found.timeline = self.received_timeline;
        }
        Ok(Report {
            in_recovery: found.in_recovery,
            lsn: found.lsn,
            flushed: found.flushed,
            timeline: found.timeline,
            system: self.system,
            geometry: self.geometry,
        })
    }

    /// Asks the standby for its timeline with the next poll.
    pub fn ask_timeline(&mut self) {
        self.polls = 0;
    }

    /// Writes and flushes a record behind whatever stands unflushed in the WAL. A server that was demoted meanwhile
    /// refuses that, and the next poll will tell.
    ///
    /// # Errors
    /// The connection is of no use any more.
    pub async fn nudge(&mut self) -> Result<(), ProbeError> {
        let mut request = BytesMut::new();
        build::query(&mut request, NUDGE.as_bytes());
        match self.link.run(&request).await {
            Err(ProbeError::Answer(AnswerError::Refused { fatal: false, .. })) => Ok(()),
            other => other,
        }
    }
}

/// Writes a Parse to `request`; gives what runs that statement, with all results in binary format.
fn prepare(request: &mut BytesMut, name: &str, text: &str) -> BytesMut {
    build::parse(request, name.as_bytes(), text.as_bytes(), &[0; 2]);
    let mut run = BytesMut::new();
    // No formats of parameters, no parameters, one format for all results: binary.
    build::bind(&mut run, b"", name.as_bytes(), &[0, 0, 0, 0, 0, 1, 0, 1]);
    // The unnamed portal, all rows.
    build::message(&mut run, tag::EXECUTE, |b| b.put_slice(&[0; 5]));
    run.put_slice(&SYNC_MESSAGE);
    run
}

/// The connection itself.
struct Link {
    stream: Stream,
    /// What has come and is not read yet.
    input: BytesMut,
}

impl Link {
    /// Sends a request, and reads the answer up to ReadyForQuery: its row, if it has one. After an error other than a
    /// refusal that is not fatal, or when this was not awaited to its end, the connection is of no use any more.
    async fn ask<T>(
        &mut self,
        request: &[u8],
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, ProbeError> {
        let mut answer = Answer::new(read);
        // A server that has hung up may have said why.
        let sent = self.stream.write_all(request).await;
        loop {
            let (used, done) = answer.take(&self.input)?;
            self.input.advance(used);
            if done {
                sent?;
                return Ok(answer.finish()?);
            }
            self.input.reserve(ROOM);
            let broken = match self.stream.read(&mut self.input).await {
                Ok(0) => sent.err().unwrap_or_else(hung_up),
                Ok(_) => continue,
                Err(error) => error,
            };
            return Err(answer.refusal().map_or(ProbeError::Io(broken), ProbeError::Answer));
        }
    }

    /// Asks what has exactly one row for an answer.
    async fn ask_one<T>(
        &mut self,
        request: &[u8],
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<T, ProbeError> {
        self.ask(request, read).await?.ok_or(AnswerError::NotOneRow.into())
    }

    /// Runs what has no answer, or none that matters.
    async fn run(&mut self, request: &[u8]) -> Result<(), ProbeError> {
        self.ask(request, |_| Some(())).await.map(|_| ())
    }
}

fn hung_up() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")
}

impl Drop for Link {
    /// Says good-bye, if that goes without waiting.
    fn drop(&mut self) {
        let _ = self.stream.try_write(&TERMINATE_MESSAGE);
    }
}
