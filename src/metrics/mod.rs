//! Counters, gauges and histograms, and their Prometheus text.
//!
//! Each worker writes counters of its own ([`worker`]), so that no cache line is written by two
//! threads; [`encode`] sums them when somebody asks.

pub mod encode;
pub mod histogram;
pub mod worker;

use std::sync::Arc;

pub use worker::{WaitOutcome, WorkerMetrics};

/// The counters of all workers.
#[derive(Debug)]
pub struct Metrics {
    nodes: Vec<Arc<str>>,
    /// The names of the kinds of state that bind a session to its server.
    pins: &'static [&'static str],
    workers: Vec<Arc<WorkerMetrics>>,
}

impl Metrics {
    /// For nodes of these names, as many workers as given, and kinds of pins of these names.
    #[must_use]
    pub fn new(nodes: Vec<Arc<str>>, workers: usize, pins: &'static [&'static str]) -> Arc<Self> {
        let worker = |_| Arc::new(WorkerMetrics::new(nodes.len(), pins.len()));
        let workers = (0..workers).map(worker).collect();
        Arc::new(Self { nodes, pins, workers })
    }

    /// The counters of worker number `worker`.
    #[must_use]
    pub fn worker(&self, worker: usize) -> Arc<WorkerMetrics> {
        self.workers
            .get(worker)
            .cloned()
            .unwrap_or_else(|| Arc::new(WorkerMetrics::new(self.nodes.len(), self.pins.len())))
    }
}
