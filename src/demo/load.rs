//! Sessions that read and write at random, and check every read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::RngExt;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage, Statement};

use super::checker::{Checker, Stale};

/// The protocol that a session speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Query messages.
    Simple,
    /// Unnamed statements.
    Extended,
    /// Named statements, prepared once.
    Prepared,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Simple, Self::Extended, Self::Prepared];
}

/// Where a session's statements go.
#[derive(Clone, Debug)]
pub enum Target {
    /// All to one place, which sees to the rest.
    Proxy(String),
    /// Writes to the first, reads to the others in turn: a router that knows nothing of freshness, to show that
    /// the checker would catch it.
    Naive {
        /// The primary.
        primary: String,
        /// The replicas.
        replicas: Vec<String>,
    },
}

/// What the load is like.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where statements go.
    pub target: Target,
    /// Sessions at once; they take the modes in turn.
    pub sessions: usize,
    /// Percentage of writes.
    pub writes: u32,
    /// Rows.
    pub keys: i64,
    /// Statements per session; `None` for no end.
    pub operations: Option<u64>,
    /// The pause after each statement.
    pub pause: Duration,
    /// Statements for each session to begin with.
    pub prelude: String,
    /// Reads that go back count as stale, too: not promised below the level `session`.
    pub monotonic: bool,
    /// The modes that sessions take in turn.
    pub modes: Vec<Mode>,
}

/// What the load has seen so far.
#[derive(Debug, Default)]
pub struct Seen {
    /// Reads that were answered.
    pub reads: AtomicU64,
    /// Writes that were answered.
    pub writes: AtomicU64,
    /// Reads of too old data.
    pub stale: AtomicU64,
    /// Statements that failed.
    pub errors: AtomicU64,
    /// Reads by the port of the server that answered, the first texts of what went wrong, and the time that
    /// reads took, in microseconds.
    details: Mutex<Details>,
}

/// What is too large to count.
#[derive(Clone, Debug, Default)]
pub struct Details {
    /// Reads by the port of the server that answered.
    pub by_port: BTreeMap<i32, u64>,
    /// The first texts of what went wrong.
    pub complaints: Vec<String>,
    /// How long reads took, in microseconds; the last ones.
    pub read_micros: Vec<u32>,
}

/// The most texts and times that are kept.
const MAX_COMPLAINTS: usize = 20;
const MAX_TIMES: usize = 200_000;

impl Seen {
    /// A copy of the details.
    pub fn details(&self) -> Details {
        self.details.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn with_details(&self, change: impl FnOnce(&mut Details)) {
        change(&mut self.details.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn complain(&self, text: String) {
        self.with_details(|d| {
            if d.complaints.len() < MAX_COMPLAINTS {
                d.complaints.push(text);
            }
        });
    }

    fn failed(&self, error: &tokio_postgres::Error) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        let text = error
            .as_db_error()
            .map_or_else(|| error.to_string(), |db| format!("{}: {}", db.code().code(), db.message()));
        self.complain(text);
    }

    fn judged(&self, key: i64, judgement: Result<(), Stale>, port: i32, took: Duration) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if let Err(stale) = judgement {
            self.stale.fetch_add(1, Ordering::Relaxed);
            self.complain(format!("key {key} on port {port}: {stale:?}"));
        }
        self.with_details(|d| {
            *d.by_port.entry(port).or_default() += 1;
            if d.read_micros.len() < MAX_TIMES {
                d.read_micros.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
            }
        });
    }
}

/// Makes the table, on a connection to the primary or through the proxy.
///
/// # Errors
/// As `tokio_postgres` says.
pub async fn prepare(url: &str, keys: i64) -> Result<(), tokio_postgres::Error> {
    let client = connect(url).await?;
    client
        .batch_execute(&format!(
            "CREATE TABLE IF NOT EXISTS tidegate_load (k bigint PRIMARY KEY, v bigint NOT NULL);
             INSERT INTO tidegate_load SELECT n, 0 FROM generate_series(0, {keys} - 1) AS n ON CONFLICT DO NOTHING"
        ))
        .await
}

async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Runs the load until its operations are done or `stop` is set.
pub async fn run(plan: Plan, seen: Arc<Seen>, stop: Arc<AtomicBool>) {
    let tasks: Vec<_> = (0..plan.sessions)
        .map(|n| {
            let mode = plan.modes.get(n % plan.modes.len().max(1)).copied().unwrap_or(Mode::Simple);
            let (plan, seen, stop) = (plan.clone(), seen.clone(), stop.clone());
            tokio::spawn(async move {
                if let Err(error) = session(&plan, mode, &seen, &stop).await {
                    seen.failed(&error);
                }
            })
        })
        .collect();
    for task in tasks {
        // A session that panics has failed its assertion already.
        let _ = task.await;
    }
}

/// One connection and its statements.
struct Link {
    client: Client,
    mode: Mode,
    read: Option<Statement>,
    write: Option<Statement>,
}

const READ: &str = "SELECT v, inet_server_port() FROM tidegate_load WHERE k = $1";
const WRITE: &str = "UPDATE tidegate_load SET v = v + 1 WHERE k = $1 RETURNING v";

impl Link {
    async fn new(url: &str, mode: Mode, prelude: &str) -> Result<Self, tokio_postgres::Error> {
        let client = connect(url).await?;
        if !prelude.is_empty() {
            client.batch_execute(prelude).await?;
        }
        Ok(Self { client, mode, read: None, write: None })
    }

    /// Runs the statement for a key: the value, and the second column.
    async fn ask(&mut self, write: bool, key: i64) -> Result<(i64, i32), tokio_postgres::Error> {
        let text = if write { WRITE } else { READ };
        match self.mode {
            Mode::Simple => {
                let text = text.replace("$1", &key.to_string());
                let messages = self.client.simple_query(&text).await?;
                let row = messages.iter().find_map(|m| match m {
                    SimpleQueryMessage::Row(row) => Some(row),
                    _ => None,
                });
                let number = |at: usize| {
                    row.and_then(|r| r.try_get(at).ok().flatten()).and_then(|t| t.parse::<i64>().ok())
                };
                let port = if write { None } else { number(1) };
                Ok((
                    number(0).unwrap_or_default(),
                    port.and_then(|p| i32::try_from(p).ok()).unwrap_or_default(),
                ))
            }
            Mode::Extended => {
                let rows = self.client.query_typed(text, &[(&key, Type::INT8)]).await?;
                Ok(columns(rows.first(), write))
            }
            Mode::Prepared => {
                let place = if write { &mut self.write } else { &mut self.read };
                let statement = match place {
                    Some(statement) => statement.clone(),
                    None => place.insert(self.client.prepare(text).await?).clone(),
                };
                let rows = self.client.query(&statement, &[&key]).await?;
                Ok(columns(rows.first(), write))
            }
        }
    }
}

fn columns(row: Option<&tokio_postgres::Row>, write: bool) -> (i64, i32) {
    let value = row.and_then(|r| r.try_get(0).ok()).unwrap_or_default();
    let port = if write { None } else { row.and_then(|r| r.try_get(1).ok()) };
    (value, port.unwrap_or_default())
}

async fn session(
    plan: &Plan,
    mode: Mode,
    seen: &Seen,
    stop: &AtomicBool,
) -> Result<(), tokio_postgres::Error> {
    let (first, others) = match &plan.target {
        Target::Proxy(url) => (url, &[][..]),
        Target::Naive { primary, replicas } => (primary, &replicas[..]),
    };
    let mut writer = Link::new(first, mode, &plan.prelude).await?;
    let mut readers = Vec::new();
    for url in others {
        readers.push(Link::new(url, mode, &plan.prelude).await?);
    }
    let mut checker = Checker::default();
    let mut done = 0;
    let mut touched = None;
    while !stop.load(Ordering::Relaxed) && plan.operations.is_none_or(|n| done < n) {
        done += 1;
        let (key, write) = {
            let mut random = rand::rng();
            let write = random.random_range(0..100) < plan.writes;
            // Half of the reads ask for what the session knows best: there a stale read shows soonest.
            let again = touched.filter(|_| !write && random.random_bool(0.5));
            (again.unwrap_or_else(|| random.random_range(0..plan.keys)), write)
        };
        touched = Some(key);
        let turn = usize::try_from(done).unwrap_or_default();
        let link = match readers.len() {
            0 => &mut writer,
            _ if write => &mut writer,
            n => &mut readers[turn % n],
        };
        let began = Instant::now();
        match link.ask(write, key).await {
            Ok((value, _)) if write => {
                seen.writes.fetch_add(1, Ordering::Relaxed);
                checker.wrote(key, value);
            }
            Ok((value, port)) => {
                let judgement = match checker.read(key, value) {
                    Err(Stale::WentBack { .. }) if !plan.monotonic => Ok(()),
                    judgement => judgement,
                };
                seen.judged(key, judgement, port, began.elapsed());
            }
            Err(error) if error.is_closed() => return Err(error),
            Err(error) => seen.failed(&error),
        }
        if !plan.pause.is_zero() {
            tokio::time::sleep(plan.pause).await;
        }
    }
    Ok(())
}
