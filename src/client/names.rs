//! What is known of a database's names, as the clients of one worker share it.

use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::monitor::{CatalogCell, Catalogs, Latest, Snapshot};
use crate::sql::Catalog;

/// One database's names.
#[derive(Debug)]
pub struct DatabaseNames {
    catalog: Arc<CatalogCell>,
    latest: Latest<Catalog>,
}

impl DatabaseNames {
    /// The catalog, as this thread reads it.
    #[inline]
    pub fn get(&self) -> Rc<Snapshot<Catalog>> {
        self.latest.get()
    }

    /// What all workers share of it.
    pub fn catalog(&self) -> &Arc<CatalogCell> {
        &self.catalog
    }
}

/// The names of those databases that clients of this worker are in.
#[derive(Debug, Default)]
pub struct Databases {
    names: HashMap<Box<str>, Weak<DatabaseNames>, RandomState>,
    sweep_at: usize,
}

/// Fewer databases than this are kept in mind although nobody is in them.
const FEW: usize = 64;

impl Databases {
    /// Those of that database.
    pub fn of(&mut self, database: &str, catalogs: &Catalogs) -> Rc<DatabaseNames> {
        let catalog = catalogs.of(database);
        self.known(database, &catalog).unwrap_or_else(|| self.add(database, catalog))
    }

    /// Those of that database as this catalog has them: a client that comes from another worker counts generations by it.
    pub fn by(&mut self, database: &str, catalog: Arc<CatalogCell>) -> Rc<DatabaseNames> {
        match self.names.get(database).and_then(Weak::upgrade) {
            Some(names) if Arc::ptr_eq(&names.catalog, &catalog) => names,
            // One of the two is what others have let go of, and it is not to be told which: the client has its own.
            Some(_) => Rc::new(DatabaseNames { latest: catalog.latest(), catalog }),
            None => self.add(database, catalog),
        }
    }

    /// Somebody may hold one still that the others have let go of.
    fn known(&self, database: &str, catalog: &Arc<CatalogCell>) -> Option<Rc<DatabaseNames>> {
        let known = self.names.get(database).and_then(Weak::upgrade);
        known.filter(|names| Arc::ptr_eq(&names.catalog, catalog))
    }

    fn add(&mut self, database: &str, catalog: Arc<CatalogCell>) -> Rc<DatabaseNames> {
        if self.names.len() >= self.sweep_at.max(FEW) {
            self.names.retain(|_, names| names.strong_count() > 0);
            self.sweep_at = 2 * self.names.len();
            self.names.shrink_to(self.sweep_at.max(FEW));
        }
        let names = Rc::new(DatabaseNames { latest: catalog.latest(), catalog });
        self.names.insert(database.into(), Rc::downgrade(&names));
        names
    }
}
