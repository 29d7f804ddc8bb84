//! What is known of the names in each database, read on a connection of our own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_postgres::Client;

use super::login;
use super::published::{Latest, Published};
use crate::config::Settings;
use crate::config::settings::NodeSettings;
use crate::net::{Connector, Connectors};
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
}

impl CatalogCell {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            catalog: Published::new(Catalog::builtin()),
            known: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            refresh: Notify::new(),
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

    /// Asks for it to be read again: DDL was seen.
    pub fn refresh(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
        self.refresh.notify_one();
    }
}

/// The catalogs of all databases in use.
pub struct Catalogs {
    cells: Mutex<HashMap<String, Arc<CatalogCell>>>,
    wanted: tokio::sync::mpsc::UnboundedSender<(String, Arc<CatalogCell>)>,
    /// For sessions beyond [`MAX_DATABASES`].
    unknown: Arc<CatalogCell>,
}

impl Catalogs {
    /// Starts to read catalogs as they are asked for, on the `LocalSet` of this thread.
    #[must_use]
    pub fn start(
        settings: Arc<Published<Settings>>,
        topology: Arc<Published<Topology>>,
        connectors: Connectors,
    ) -> Arc<Self> {
        let (wanted, mut requests) = tokio::sync::mpsc::unbounded_channel::<(String, Arc<CatalogCell>)>();
        tokio::task::spawn_local(async move {
            while let Some((database, cell)) = requests.recv().await {
                tokio::task::spawn_local(keep(database, cell, settings.clone(), topology.clone(), connectors.clone()));
            }
        });
        Arc::new(Self { cells: Mutex::default(), wanted, unknown: CatalogCell::new() })
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
}

/// Keeps one catalog up to date.
async fn keep(
    database: String,
    cell: Arc<CatalogCell>,
    settings: Arc<Published<Settings>>,
    topology: Arc<Published<Topology>>,
    connectors: Connectors,
) {
    let mut quiet = false;
    loop {
        if let Err(reason) = follow(&database, &cell, &settings, &topology, &connectors).await
            && !quiet
        {
            tracing::warn!(
                database,
                reason,
                "the catalog cannot be read: statements with functions or relations that are not built in go to the primary"
            );
            quiet = true;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Reads the catalog whenever it has changed, until the connection breaks.
async fn follow(
    database: &str,
    cell: &CatalogCell,
    settings: &Published<Settings>,
    topology: &Published<Topology>,
    connectors: &Connectors,
) -> Result<(), String> {
    let now = settings.load_full();
    let primary = topology.load().primary.ok_or("there is no primary")?;
    let number = usize::from(primary.0);
    let (node, connector) =
        now.nodes.get(number).zip(connectors.get(number)).ok_or("there is no primary")?;
    let client = login::connect(node, connector, Some(database), now.connect_timeout).await?;
    let mut counter = None;
    let mut rung = true;
    loop {
        if topology.load().primary != Some(primary) {
            return Err("the primary has changed".to_owned());
        }
        let seen = timeout(READ_LIMIT, count(&client)).await.map_err(|_| "too slow".to_owned())??;
        if rung || counter != Some(seen) {
            counter = Some(seen);
            let overrides = overrides_of(Some(&settings.load()));
            let rows = timeout(READ_LIMIT, read(&client)).await.map_err(|_| "too slow".to_owned())??;
            cell.catalog.store(Arc::new(Catalog::build(rows, &overrides)));
            cell.generation.fetch_add(1, Ordering::Relaxed);
            cell.known.store(true, Ordering::Relaxed);
        }
        rung = timeout(LOOK_EVERY, cell.refresh.notified()).await.is_ok();
    }
}

async fn count(client: &Client) -> Result<i64, String> {
    let row = client.query_one(CHANGE_COUNTER_QUERY, &[]).await.map_err(|e| e.to_string())?;
    row.try_get(0).map_err(|e| e.to_string())
}

async fn read(client: &Client) -> Result<CatalogRows, String> {
    let mut rows = CatalogRows::default();
    for row in client.query(CATALOG_QUERY, &[]).await.map_err(|e| e.to_string())? {
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
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let connector = Connector::new(node).map_err(|e| e.to_string())?;
        let client = login::connect(node, &connector, None, limit).await?;
        timeout(READ_LIMIT, read(&client)).await.map_err(|_| "too slow".to_owned())?
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
