//! What is known of the nodes, as JSON and as a page that shows it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::topology::{Role, Topology};

/// The live page: it asks `/api/status` every second, and puts everything in as text.
pub const INDEX: &str = include_str!("index.html");

/// `/api/status`.
#[must_use]
pub fn status(topology: &Topology, now: Duration, draining: bool) -> Value {
    let nodes: Vec<_> = topology
        .nodes
        .iter()
        .map(|n| {
            json!({
                "node": &*n.name,
                "role": n.role.label(),
                "up": n.up,
                "position": n.position.map(|p| p.lsn.to_string()),
                "timeline": n.position.map(|p| p.timeline.0),
                "lag_bytes": n.lag_bytes,
                "lag_seconds": n.lag(now).filter(|_| n.role == Role::Replica).map(|l| l.as_secs_f64()),
                "sample_age_seconds": n.position.map(|p| now.saturating_sub(p.sent).as_secs_f64()),
            })
        })
        .collect();
    json!({
        "epoch": topology.epoch.0,
        "timeline": topology.timeline.0,
        "primary": topology.primary.and_then(|id| topology.node(id)).map(|n| n.name.to_string()),
        "draining": draining,
        "ready": topology.primary.is_some() && !draining,
        "nodes": nodes,
    })
}
