//! A whole cluster with a load, from nothing.
//!
//! [`binaries`], [`account`] and [`ports`] find what is needed, [`cluster`] starts a primary and standbys in a
//! temporary directory, [`load`] reads and writes through the proxy and [`checker`] judges what it
//! reads, [`mod@run`] puts it together, [`view`] and [`report`] show it.

pub mod account;
pub mod binaries;
pub mod checker;
pub mod cluster;
pub mod load;
pub mod ports;
pub mod report;
pub mod run;
pub mod scrape;
pub mod view;

pub use run::demo;
