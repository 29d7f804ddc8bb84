//! Tidegate: a proxy that speaks PostgreSQL's wire protocol and makes a primary with its
//! read replicas look like one database.
//!
//! The modules stand in the order that a query travels.

pub mod lsn;
