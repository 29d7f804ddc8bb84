//! Something that one thread replaces now and then, and that others read at every turn.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};

/// The newest value, and how often it was replaced.
#[derive(Debug)]
pub struct Published<T> {
    value: ArcSwap<T>,
    version: AtomicU64,
}

impl<T> Published<T> {
    /// The first value.
    pub fn new(value: T) -> Arc<Self> {
        Arc::new(Self { value: ArcSwap::from_pointee(value), version: AtomicU64::new(0) })
    }

    /// Replaces the value.
    pub fn store(&self, value: Arc<T>) {
        drop(self.replace(value));
    }

    /// Replaces the value, and gives the old one.
    pub fn replace(&self, value: Arc<T>) -> Arc<T> {
        let old = self.value.swap(value);
        // Behind the value, so that nobody takes an old one for this version.
        self.version.fetch_add(1, Ordering::Release);
        old
    }

    /// The newest value.
    pub fn load(&self) -> Guard<Arc<T>> {
        self.value.load()
    }

    /// The newest value, to be kept.
    pub fn load_full(&self) -> Arc<T> {
        self.value.load_full()
    }
}

/// A value as one thread has it: counted by that thread alone, for a count that all threads share would be written to
/// at every turn.
#[derive(Debug)]
pub struct Snapshot<T>(Arc<T>);

impl<T> Deref for Snapshot<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// One thread's way to the newest value: a look at the version, and a count that no other thread shares.
#[derive(Debug)]
pub struct Latest<T> {
    published: Arc<Published<T>>,
    version: Cell<u64>,
    own: RefCell<Rc<Snapshot<T>>>,
}

impl<T> Latest<T> {
    /// Of what is published there.
    pub fn of(published: Arc<Published<T>>) -> Self {
        let version = published.version.load(Ordering::Acquire);
        let own = Rc::new(Snapshot(published.load_full()));
        Self { published, version: version.into(), own: own.into() }
    }

    /// The newest value.
    #[inline]
    pub fn get(&self) -> Rc<Snapshot<T>> {
        let version = self.published.version.load(Ordering::Acquire);
        if version != self.version.get() {
            let mut own = self.own.borrow_mut();
            let newest = Snapshot(self.published.load_full());
            match Rc::get_mut(&mut own) {
                Some(place) => *place = newest,
                None => *own = Rc::new(newest),
            }
            self.version.set(version);
        }
        self.own.borrow().clone()
    }

    /// Whether what was last got is still the newest.
    pub fn is_newest(&self) -> bool {
        self.published.version.load(Ordering::Acquire) == self.version.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_seen_at_once_and_the_old_stays_with_who_has_it() {
        let published = Published::new(1);
        let latest = Latest::of(published.clone());
        let old = latest.get();
        published.store(Arc::new(2));
        assert!(!latest.is_newest());
        assert_eq!((**old, **latest.get(), **published.load()), (1, 2, 2));
        assert!(latest.is_newest());
    }
}
