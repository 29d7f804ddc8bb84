//! What we know of the nodes, immutable: `(snapshot, observation, now)` to snapshot.
//!
//! Time is a [`Duration`](std::time::Duration) since the process started, on a monotonic clock
//! that the caller reads.

pub mod heard;
pub mod makeup;
pub mod node;
pub mod observe;
pub mod ring;
pub mod snapshot;

pub use heard::Heard;
pub use makeup::Makeup;
pub use node::{Node, NodeId, Position, Role};
pub use observe::{Observation, Observer, Report};
pub use snapshot::Topology;
