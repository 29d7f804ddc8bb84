//! Tidegate: a proxy that speaks PostgreSQL's wire protocol and makes a primary with its
//! read replicas look like one database.
//!
//! The modules stand in the order that a query travels. The first eight are the core: no
//! tokio, no sockets, no files, no clock; time and topology come in as arguments.

#![warn(clippy::unwrap_used)]

// The core.
pub mod wire;
pub mod sql;
pub mod lsn;
pub mod topology;
pub mod route;
pub mod session;
pub mod auth;
pub mod config;

// The shell.
pub mod net;
pub mod server;
pub mod pool;
pub mod client;
pub mod relay;
pub mod monitor;
pub mod metrics;
pub mod http;
pub mod app;
pub mod demo;
