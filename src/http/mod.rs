//! The HTTP side: metrics, health, readiness, and a page for people.

pub mod page;
pub mod serve;

pub use serve::{HttpState, serve};
