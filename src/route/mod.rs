//! Where a unit goes, and why.

pub mod why;

pub use why::Why;
