//! What is known of the names in each database, read on a connection of our own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_postgres::Client;

use super::login::{self, Failure, describe};
use super::published::{Latest, Published};
use crate::config::Settings;
use crate::config::settings::NodeSettings;
use crate::net::timers::{sleep, timeout};
use crate::net::{Connector, Connectors, local_runtime};
use crate::sql::Catalog;
use crate::sql::catalog::{CATALOG_QUERY, CHANGE_COUNTER_QUERY, CatalogRows, Overrides};
use crate::topology::Topology;

/// The most databases whose catalogs are kept; sessions in others go to the primary with what is not built in.
const MAX_DATABASES: usize = 1000;

/// How often the change counter is looked at. PostgreSQL itself updates it up to a second late.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long one reading may take.
const READ_LIMIT: Duration = Duration::from_secs(30);

/// One database's catalog.
#[derive(Debug)]
pub struct CatalogCell {
    catalog: Arc<Published<Catalog>>,
    known: AtomicBool,
    generation: AtomicU64,
    refresh: Notify,
    /// How many changes have been seen; what was read before the last of them is not published.
    changes: Mutex<u64>,
    release: Notify,
    /// When it was last let go of: whoever is about to connect has not been waiting for that.
    released: Mutex<Option<Instant>>,
}

impl CatalogCell {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            catalog: Published::new(Catalog::unread()),
            known: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            refresh: Notify::new(),
            changes: Mutex::new(0),
            release: Notify::new(),
            released: Mutex::default(),
        })
    }

    /// The catalog as it was last read; until then, that of an empty database.
    pub fn latest(&self) -> Latest<Catalog> {
        Latest::of(self.catalog.clone())
    }

    /// Whether it has been read.
    pub fn is_known(&self) -> bool {
        self.known.load(Ordering::Relaxed)
    }

    /// Counts the times that definitions in the database may have changed.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Lets go of it for [`LOOK_EVERY`].
    fn release(&self) {
        *self.released.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.release.notify_waiters();
    }

    fn is_released(&self) -> bool {
        let released = *self.released.lock().unwrap_or_else(PoisonError::into_inner);
        released.is_some_and(|at| at.elapsed() < LOOK_EVERY)
    }

    /// A definition may have changed, as a unit has just done it: until the catalog has been read by a look that began
    /// after this, nothing is known.
    pub fn refresh(&self) {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        *changes += 1;
        self.known.store(false, Ordering::Relaxed);
        self.catalog.store(Arc::new(self.catalog.load().changing()));
        drop(changes);
        self.generation.fetch_add(1, Ordering::Relaxed);
        self.refresh.notify_one();
    }

    fn changes(&self) -> u64 {
        *self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes what a look has found that began when there had been so many changes; `false` if there are more now.
    fn publish(&self, catalog: Catalog, changes: u64) -> bool {
        let now = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if *now != changes {
            return false;
        }
        self.catalog.store(Arc::new(catalog));
        self.known.store(true, Ordering::Relaxed);
        drop(now);
        self.generation.fetch_add(1, Ordering::Relaxed);
        true
    }
}

/// The shortest pause before the next attempt to read a catalog; it doubles up to [`LOOK_EVERY`].
const LEAST_PAUSE: Duration = Duration::from_millis(20);

type Cells = Arc<Mutex<HashMap<String, Arc<CatalogCell>>>>;

/// 3D000.
const NO_DATABASE: &str = "3D000";

/// The catalogs of all databases in use.
pub struct Catalogs {
    cells: Cells,
    wanted: tokio::sync::mpsc::UnboundedSender<(String, Arc<CatalogCell>)>,
    /// For sessions beyond [`MAX_DATABASES`].
    unknown: Arc<CatalogCell>,
}

impl Catalogs {
    /// Starts to read catalogs as they are asked for, on the local runtime of this thread.
    #[must_use]
    pub fn start(
        settings: Arc<Published<Settings>>,
        topology: Arc<Published<Topology>>,
        connectors: Connectors,
    ) -> Arc<Self> {
        let (wanted, mut requests) = tokio::sync::mpsc::unbounded_channel::<(String, Arc<CatalogCell>)>();
        let cells = Cells::default();
        let known = cells.clone();
        let reader = Reader { settings, topology, connectors };
        tokio::task::spawn_local(async move {
            while let Some((database, cell)) = requests.recv().await {
                let (reader, cells) = (reader.clone(), known.clone());
                tokio::task::spawn_local(async move {
                    reader.keep(&database, &cell).await;
                    cells.lock().unwrap_or_else(PoisonError::into_inner).remove(&database);
                });
            }
        });
        Arc::new(Self { cells, wanted, unknown: CatalogCell::new() })
    }

    /// The catalog of a database; it is read from now on.
    pub fn of(&self, database: &str) -> Arc<CatalogCell> {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = cells.get(database) {
            return cell.clone();
        }
        if cells.len() >= MAX_DATABASES {
            return self.unknown.clone();
        }
        let cell = CatalogCell::new();
        cells.insert(database.to_owned(), cell.clone());
        // Without a monitor there is nobody to read it, and everything unknown goes to the primary.
        let _ = self.wanted.send((database.to_owned(), cell.clone()));
        cell
    }

    /// Lets go of a database for a second: somebody wants it alone.
    pub fn release(&self, database: &str) {
        let cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = cells.get(database) {
            cell.release();
        }
    }
}

/// What reading a catalog takes.
#[derive(Clone)]
struct Reader {
    settings: Arc<Published<Settings>>,
    topology: Arc<Published<Topology>>,
    connectors: Connectors,
}

impl Reader {
    /// Keeps one catalog up to date, until its database is no more.
    async fn keep(&self, database: &str, cell: &CatalogCell) {
        let mut quiet = false;
        let mut pause = LEAST_PAUSE;
        loop {
            // From before it is asked for, so that none is missed.
            let released = cell.release.notified();
            let ended = match cell.is_released() {
                true => Ok(()),
                false => tokio::select! {
                    () = released => Ok(()),
                    ended = self.follow(database, cell) => ended,
                },
            };
            match ended {
                Ok(()) => pause = LOOK_EVERY,
                Err(failure) if failure.sqlstate() == Some(NO_DATABASE) => return cell.refresh(),
                // The monitor may only be about to find it.
                Err(_) if quiet || self.topology.load().primary.is_none() => {}
                Err(failure) => {
                    tracing::warn!(
                        database,
                        reason = %failure,
                        "the catalog cannot be read: statements with functions or relations that are not built in, and READ ONLY \
                         transactions, go to the primary"
                    );
                    quiet = true;
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(LOOK_EVERY);
        }
    }

    /// Reads the catalog whenever it has changed, until the connection breaks.
    async fn follow(&self, database: &str, cell: &CatalogCell) -> Result<(), Failure> {
        let now = self.settings.load_full();
        let primary = self.topology.load().primary.ok_or("there is no primary")?;
        let number = usize::from(primary.0);
        let (node, connector) =
            now.nodes.get(number).zip(self.connectors.get(number)).ok_or("there is no primary")?;
        let client = login::connect(node, connector, Some(database), now.connect_timeout).await?;
        let (mut counter, mut system) = (None, None);
        let mut rung = true;
        loop {
            if self.topology.load().primary != Some(primary) {
                return Err("the primary has changed".into());
            }
            let seen = timeout(READ_LIMIT, count(&client)).await.map_err(|_| "too slow")??;
            if rung || counter != Some(seen) {
                counter = Some(seen);
                let changes = cell.changes();
                let overrides = overrides_of(Some(&self.settings.load()));
                let began = Instant::now();
                let reading = read(&client, system.as_deref());
                let rows = timeout(READ_LIMIT, reading).await.map_err(|_| "too slow")??;
                system.get_or_insert_with(|| rows.system_relations().to_vec());
                cell.publish(Catalog::build(rows, &overrides), changes);
                // Where definitions change all the time, no more than half of it is spent on reading them.
                sleep(began.elapsed()).await;
            }
            rung = timeout(LOOK_EVERY, cell.refresh.notified()).await.is_ok();
        }
    }
}

async fn count(client: &Client) -> Result<i64, String> {
    let row = client.query_one(CHANGE_COUNTER_QUERY, &[]).await.map_err(|e| describe(&e))?;
    row.try_get(0).map_err(|e| e.to_string())
}

/// `system` is what the first reading on this connection has found of PostgreSQL's own relations.
async fn read(client: &Client, system: Option<&[u32]>) -> Result<CatalogRows, String> {
    let mut rows = CatalogRows::default();
    for row in client.query(CATALOG_QUERY, &[&system]).await.map_err(|e| describe(&e))? {
        let field = |at: usize| row.try_get::<_, &str>(at).map_err(|e| e.to_string());
        rows.push(field(0)?, field(1)?);
    }
    Ok(rows)
}

/// Reads the catalog of a node's own database once, for `tidegate explain`.
///
/// # Errors
/// Why it cannot be read.
pub fn read_once(node: &NodeSettings, limit: Duration) -> Result<CatalogRows, String> {
    let runtime = local_runtime().map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let connector = Connector::new(node).map_err(|e| e.to_string())?;
        let client =
            login::connect(node, &connector, None, limit).await.map_err(|failure| failure.to_string())?;
        timeout(READ_LIMIT, read(&client, None)).await.map_err(|_| "too slow".to_owned())?
    })
}

/// What the configuration says about names; nothing without one.
#[must_use]
pub fn overrides_of(settings: Option<&Settings>) -> Overrides {
    let Some(settings) = settings else { return Overrides::default() };
    Overrides {
        safe_functions: settings.safe_functions.clone(),
        primary_functions: settings.primary_functions.clone(),
        primary_relations: settings.primary_relations.clone(),
    }
}
