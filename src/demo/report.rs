//! What the demo has seen, in numbers.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::load::Seen;
use super::scrape::Sample;

/// What the proxy's metrics say at one moment.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// Reads that went to the primary, by why.
    pub reads_on_primary: BTreeMap<String, u64>,
    /// Reads by node.
    pub reads_by_node: BTreeMap<String, u64>,
    /// Writes by node.
    pub writes_by_node: BTreeMap<String, u64>,
    /// Role, whether it is up, and lag in seconds of each node.
    pub nodes: BTreeMap<String, NodeView>,
    /// Units that ran elsewhere after a refusal.
    pub healed: u64,
}

/// One node.
#[derive(Clone, Debug, Default)]
pub struct NodeView {
    /// Its role.
    pub role: String,
    /// Whether it answers.
    pub up: bool,
    /// Lag in seconds, if it is a replica and that is known.
    pub lag_seconds: Option<f64>,
    /// Lag in bytes.
    pub lag_bytes: Option<f64>,
}

impl Routes {
    /// Reads them off the page.
    #[must_use]
    pub fn read(samples: &[Sample]) -> Self {
        let mut routes = Self::default();
        for sample in samples {
            let node = sample.label("node").to_owned();
            let count = sample.value as u64;
            match sample.name.as_str() {
                "tidegate_units_total" if sample.label("access") == "read" => {
                    *routes.reads_by_node.entry(node).or_default() += count;
                    if sample.label("role") == "primary" {
                        *routes.reads_on_primary.entry(sample.label("why").to_owned()).or_default() += count;
                    }
                }
                "tidegate_units_total" => *routes.writes_by_node.entry(node).or_default() += count,
                "tidegate_node_role" => {
                    routes.nodes.entry(node).or_default().role = sample.label("role").to_owned()
                }
                "tidegate_node_up" => routes.nodes.entry(node).or_default().up = sample.value > 0.5,
                "tidegate_replica_lag_seconds" => {
                    routes.nodes.entry(node).or_default().lag_seconds = Some(sample.value)
                }
                "tidegate_replica_lag_bytes" => {
                    routes.nodes.entry(node).or_default().lag_bytes = Some(sample.value)
                }
                "tidegate_healed_total" => routes.healed += count,
                _ => {}
            }
        }
        routes
    }
}

/// The object that `--json` prints.
#[must_use]
pub fn json(seen: &Seen, routes: &Routes, primary_port: u16, max_lag: f64, seconds: f64) -> Value {
    let details = seen.details();
    let reads = seen.reads.load(Ordering::Relaxed);
    let on_primary = details.by_port.get(&i32::from(primary_port)).copied().unwrap_or_default();
    let mut times = details.read_micros.clone();
    times.sort_unstable();
    let percentile = |p: usize| {
        let at = (times.len().saturating_sub(1)) * p / 100;
        times.get(at).map(|micros| f64::from(*micros) / 1000.0)
    };
    let by_port: BTreeMap<String, u64> =
        details.by_port.iter().map(|(port, n)| (port.to_string(), *n)).collect();
    json!({
        "seconds": seconds,
        "reads": reads,
        "reads_on_replicas": reads - on_primary.min(reads),
        "reads_on_primary": routes.reads_on_primary,
        "primary_read_share": if reads == 0 { 0.0 } else { on_primary as f64 / reads as f64 },
        "reads_by_port": by_port,
        "writes": seen.writes.load(Ordering::Relaxed),
        "stale_reads": seen.stale.load(Ordering::Relaxed),
        "errors": seen.errors.load(Ordering::Relaxed),
        "healed": routes.healed,
        "max_lag_seconds": max_lag,
        "read_p50_ms": percentile(50),
        "read_p99_ms": percentile(99),
        "complaints": details.complaints,
    })
}
