//! Where a unit goes, and why.
//!
//! [`eligible`] filters the replicas, [`mod@decide`] chooses from that same filtered set.

pub mod ask;
pub mod budget;
pub mod decide;
pub mod eligible;
pub mod why;

pub use ask::{Ask, Level, Open, RouteHint, View, Want};
pub use budget::Budget;
pub use decide::{Decision, Lack, decide};
pub use why::Why;
