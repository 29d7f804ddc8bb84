//! The SQL of a poll.

use std::time::Duration;

use tokio_postgres::{Client, Statement};

use super::login;
use crate::config::settings::NodeSettings;
use crate::lsn::{Lsn, Timeline, WalGeometry};
use crate::net::Connector;
use crate::topology::Report;

/// One poll. The functions that a standby refuses stand in a CASE, which evaluates only the branch it takes.
/// The timeline of a primary is that of its current WAL file: `pg_control_checkpoint()` lags behind a promotion.
const POLL: &str = "\
SELECT r,
  (CASE WHEN r THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END)::text,
  (CASE WHEN r THEN NULL ELSE pg_current_wal_flush_lsn() END)::text,
  (CASE WHEN r THEN NULL ELSE substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END)
FROM (SELECT pg_is_in_recovery() AS r OFFSET 0) AS s";

/// The timeline that a standby receives; NULL without `pg_read_all_stats`, and no row while it is disconnected. Then
/// the one that it has to recover to, which moves with restart points.
const RECEIVED_TIMELINE: &str = "SELECT COALESCE((SELECT received_tli FROM pg_stat_wal_receiver), \
  (SELECT NULLIF(min_recovery_end_timeline, 0) FROM pg_control_recovery()))";

/// What does not change while a server runs.
const IDENTITY: &str = "SELECT system_identifier::text, current_setting('wal_block_size'), \
  (SELECT setting FROM pg_settings WHERE name = 'wal_segment_size') FROM pg_control_system()";

/// Makes everybody's WAL up to here reach the standbys: see FACTS 1.5.
const NUDGE: &str = "SELECT pg_logical_emit_message(true, 'tidegate', '')";

/// Every how many polls a standby is asked for its timeline.
const TIMELINE_EVERY: u32 = 50;

/// A poll connection.
pub struct Probe {
    client: Client,
    poll: Statement,
    received: Statement,
    system: u64,
    geometry: WalGeometry,
    received_timeline: Timeline,
    polls: u32,
}

impl Probe {
    /// Connects.
    ///
    /// # Errors
    /// What went wrong, for a log.
    pub async fn connect(
        node: &NodeSettings,
        connector: &Connector,
        limit: Duration,
    ) -> Result<Self, String> {
        let client =
            login::connect(node, connector, None, limit).await.map_err(|failure| failure.to_string())?;
        Self::begin(client).await.map_err(|error| describe(&error))
    }

    async fn begin(client: Client) -> Result<Self, tokio_postgres::Error> {
        client.batch_execute("SET synchronous_commit = local; SET statement_timeout = 0").await?;
        let identity = client.query_one(IDENTITY, &[]).await?;
        let number = |at: usize| identity.try_get::<_, &str>(at).ok().and_then(|t| t.parse::<u64>().ok());
        let geometry = number(1).zip(number(2)).and_then(|(block, segment)| WalGeometry::new(block, segment));
        Ok(Self {
            poll: client.prepare(POLL).await?,
            received: client.prepare(RECEIVED_TIMELINE).await?,
            system: number(0).unwrap_or_default(),
            geometry: geometry.unwrap_or_default(),
            received_timeline: Timeline::default(),
            polls: 0,
            client,
        })
    }

    /// Polls.
    ///
    /// # Errors
    /// As `tokio_postgres` says.
    pub async fn poll(&mut self) -> Result<Report, tokio_postgres::Error> {
        let row = self.client.query_one(&self.poll, &[]).await?;
        let in_recovery = row.try_get(0)?;
        let lsn = |at: usize| -> Result<Lsn, tokio_postgres::Error> {
            let text: Option<&str> = row.try_get(at)?;
            Ok(text.and_then(|t| t.parse().ok()).unwrap_or(Lsn::ZERO))
        };
        let (position, flushed) = (lsn(1)?, lsn(2)?);
        let timeline = if in_recovery {
            if self.polls.is_multiple_of(TIMELINE_EVERY) {
                let row = self.client.query_opt(&self.received, &[]).await?;
                let received: Option<i32> = row.and_then(|r| r.try_get(0).ok()).flatten();
                // A standby that is cut off still replays the timeline that it received last.
                if let Some(received) = received.and_then(|t| u32::try_from(t).ok()) {
                    self.received_timeline = Timeline(received);
                }
            }
            self.polls = self.polls.wrapping_add(1);
            self.received_timeline
        } else {
            let text: Option<&str> = row.try_get(3)?;
            Timeline(text.and_then(|t| u32::from_str_radix(t, 16).ok()).unwrap_or_default())
        };
        Ok(Report {
            in_recovery,
            lsn: position,
            flushed,
            timeline,
            system: self.system,
            geometry: self.geometry,
        })
    }

    /// Asks the standby for its timeline with the next poll.
    pub fn ask_timeline(&mut self) {
        self.polls = 0;
    }

    /// Writes and flushes a record behind whatever stands unflushed in the WAL.
    ///
    /// # Errors
    /// As `tokio_postgres` says.
    pub async fn nudge(&self) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute(NUDGE).await
    }
}

/// What an error of `tokio_postgres` says, with its cause.
#[must_use]
pub fn describe(error: &tokio_postgres::Error) -> String {
    use std::error::Error as _;
    match (error.as_db_error(), error.source()) {
        (Some(db), _) => db.to_string(),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}
