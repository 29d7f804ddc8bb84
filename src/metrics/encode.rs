//! All counters as Prometheus text.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::Metrics;
use super::histogram::{BOUNDS, Counts};
use super::worker::{NodeCounters, SQLSTATES, WorkerMetrics};
use crate::route::Why;
use crate::topology::{Node, NodeId, Role, Topology};

/// How many connections a node has and may have, idle ones included.
#[derive(Clone, Copy, Debug, Default)]
pub struct Servers {
    /// There are so many.
    pub used: usize,
    /// There may be so many.
    pub max: usize,
}

impl Metrics {
    /// The page that Prometheus reads.
    ///
    /// # Errors
    /// Never, in truth: a string takes all that is written to it.
    pub fn encode(
        self: &std::sync::Arc<Self>,
        topology: &Topology,
        servers: &dyn Fn(NodeId) -> Servers,
        now: Duration,
    ) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Page {
            metrics: self.clone(),
            servers: topology.nodes.iter().map(|n| servers(n.id)).collect(),
            topology: topology.clone(),
            now,
        }));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

struct Page {
    metrics: std::sync::Arc<Metrics>,
    topology: Topology,
    servers: Vec<Servers>,
    now: Duration,
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Page")
    }
}

/// One number.
struct Number {
    kind: MetricType,
    value: f64,
}

impl EncodeMetric for Number {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        match self.kind {
            // Counters hold whole numbers far below 2^53.
            MetricType::Counter => {
                encoder.encode_counter::<[(&str, &str); 0], u64, f64>(&(self.value as u64), None)
            }
            _ => encoder.encode_gauge(&self.value),
        }
    }

    fn metric_type(&self) -> MetricType {
        self.kind
    }
}

struct Durations(Counts);

impl EncodeMetric for Durations {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let seconds = |micros: u64| Duration::from_micros(micros).as_secs_f64();
        let bounds = BOUNDS.iter().map(|b| seconds(*b)).chain([f64::MAX]);
        let buckets: Vec<_> = bounds.zip(self.0.buckets).collect();
        let count = self.0.buckets.iter().sum();
        encoder.encode_histogram::<[(&str, &str); 0]>(seconds(self.0.sum_micros), count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

type Labels<'a> = Vec<(&'static str, &'a str)>;

struct Writer<'a, 'b>(&'b mut DescriptorEncoder<'a>);

impl Writer<'_, '_> {
    fn family<'l>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        kind: MetricType,
        values: impl IntoIterator<Item = (Labels<'l>, f64)>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, unit, kind)?;
        for (labels, value) in values {
            Number { kind, value }.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, help: &str, counts: Counts) -> fmt::Result {
        let encoder = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        Durations(counts).encode(encoder)
    }
}

impl Page {
    fn sum(&self, value: impl Fn(&WorkerMetrics) -> u64) -> f64 {
        self.metrics.workers.iter().map(|w| value(w)).sum::<u64>() as f64
    }

    fn node_sum(&self, node: &Node, value: impl Fn(&NodeCounters) -> u64) -> u64 {
        let at = usize::from(node.id.0);
        self.metrics.workers.iter().filter_map(|w| w.nodes.get(at)).map(value).sum()
    }

    fn units(&self) -> Vec<(Labels<'_>, f64)> {
        let mut found = Vec::new();
        for node in &self.topology.nodes {
            for (at, access) in ["write", "read"].into_iter().enumerate() {
                for why in Why::ALL {
                    let count = self.node_sum(node, |n| {
                        n.units
                            .get(at)
                            .and_then(|u| u.get(why.index()))
                            .map_or(0, |c| c.load(Ordering::Relaxed))
                    });
                    if count > 0 {
                        let role = node.role.label();
                        let labels = vec![
                            ("node", &*node.name),
                            ("role", role),
                            ("access", access),
                            ("why", why.label()),
                        ];
                        found.push((labels, count as f64));
                    }
                }
            }
        }
        found
    }

    /// One value per node; nothing for nodes of which it is not known.
    fn per_node(&self, value: impl Fn(&Node) -> Option<f64>) -> Vec<(Labels<'_>, f64)> {
        let nodes = self.topology.nodes.iter();
        nodes.filter_map(|n| value(n).map(|v| (vec![("node", &*n.name)], v))).collect()
    }

    fn write_nodes(&self, w: &mut Writer<'_, '_>) -> fmt::Result {
        use MetricType::{Counter, Gauge};
        let now = self.now;
        w.family(
            "tidegate_units",
            "Units that ended on a node, by why they went there.",
            None,
            Counter,
            self.units(),
        )?;
        w.family(
            "tidegate_healed",
            "Units that a node refused or broke off, and that were run again.",
            None,
            Counter,
            self.per_node(|n| Some(self.node_sum(n, |c| c.healed.load(Ordering::Relaxed)) as f64)),
        )?;
        w.family(
            "tidegate_retaken",
            "Units and logins for which another connection was taken, as theirs had ended before anything was sent.",
            None,
            Counter,
            self.per_node(|n| Some(self.node_sum(n, |c| c.retaken.load(Ordering::Relaxed)) as f64)),
        )?;
        let mut proofs = Vec::new();
        for node in self.topology.nodes.iter().filter(|n| n.role == Role::Replica) {
            for (at, outcome) in ["not_yet", "replayed"].into_iter().enumerate() {
                let count =
                    self.node_sum(node, |c| c.proofs.get(at).map_or(0, |n| n.load(Ordering::Relaxed)));
                proofs.push((vec![("node", &*node.name), ("outcome", outcome)], count as f64));
            }
        }
        w.family(
            "tidegate_proofs",
            "Reads in front of which a replica was asked whether it has replayed what they must show, by what it said.",
            None,
            Counter,
            proofs,
        )?;
        w.family(
            "tidegate_replica_lag_bytes",
            "WAL between the primary's last position and the replica's.",
            None,
            Gauge,
            self.per_node(|n| n.lag_bytes.map(|b| b as f64)),
        )?;
        w.family(
            "tidegate_replica_lag_seconds",
            "How old the replica's data is at most; 0 if it has all that is known.",
            None,
            Gauge,
            self.per_node(|n| n.lag(now).filter(|_| n.role == Role::Replica).map(|l| l.as_secs_f64())),
        )?;
        w.family(
            "tidegate_sample_age_seconds",
            "The time since the node's last position was asked for.",
            None,
            Gauge,
            self.per_node(|n| n.position.map(|p| now.saturating_sub(p.sent).as_secs_f64())),
        )?;
        w.family(
            "tidegate_node_up",
            "Whether the node answers.",
            None,
            Gauge,
            self.per_node(|n| Some(f64::from(u8::from(n.up)))),
        )?;
        w.family(
            "tidegate_polls",
            "Polls of the node.",
            None,
            Counter,
            self.per_node(|n| Some(n.polled.0 as f64)),
        )?;
        let roles =
            self.topology.nodes.iter().map(|n| (vec![("node", &*n.name), ("role", n.role.label())], 1.0));
        w.family("tidegate_node_role", "What the node is.", None, Gauge, roles)?;
        let mut servers = Vec::new();
        for (node, all) in self.topology.nodes.iter().zip(&self.servers) {
            let idle = self.node_sum(node, |c| c.idle.load(Ordering::Relaxed));
            let waiting = self.node_sum(node, |c| c.waiting.load(Ordering::Relaxed));
            let gauges = [
                ("idle", idle),
                ("in_use", (all.used as u64).saturating_sub(idle)),
                ("limit", all.max as u64),
                ("waited_for", waiting),
            ];
            for (state, value) in gauges {
                servers.push((vec![("node", &*node.name), ("state", state)], value as f64));
            }
        }
        w.family(
            "tidegate_pool",
            "Server connections, idle and in use, how many there may be, and clients that wait for one.",
            None,
            Gauge,
            servers,
        )
    }

    fn write_all(&self, w: &mut Writer<'_, '_>) -> fmt::Result {
        use MetricType::{Counter, Gauge};
        let one = |value: f64| [(Labels::new(), value)];
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        self.write_nodes(w)?;
        w.family(
            "tidegate_clients",
            "Clients that are in.",
            None,
            Gauge,
            one(self.sum(|m| load(&m.clients))),
        )?;
        let numbers: Vec<String> = (0..self.metrics.workers.len()).map(|number| number.to_string()).collect();
        let by_worker = |value: fn(&WorkerMetrics) -> f64| {
            let workers = numbers.iter().zip(&self.metrics.workers);
            workers.map(move |(number, worker)| (vec![("worker", number.as_str())], value(worker)))
        };
        w.family(
            "tidegate_worker_clients",
            "Clients that each worker has.",
            None,
            Gauge,
            by_worker(|worker| worker.clients.load(Ordering::Relaxed) as f64),
        )?;
        w.family(
            "tidegate_worker_busy_ratio",
            "How much of a processor each worker takes; 0 where there is but one.",
            None,
            Gauge,
            by_worker(|worker| worker.busy.load(Ordering::Relaxed) as f64 / 1000.0),
        )?;
        w.family(
            "tidegate_client_moves",
            "Clients that have gone from one worker to another.",
            None,
            Counter,
            one(self.sum(|m| load(&m.moved))),
        )?;
        let pinned = self
            .metrics
            .pins
            .iter()
            .enumerate()
            .map(|(at, why)| (vec![("why", *why)], self.sum(|m| m.pinned.get(at).map_or(0, load))));
        w.family(
            "tidegate_pinned_sessions",
            "Sessions bound to their server, under each of the reasons.",
            None,
            Gauge,
            pinned,
        )?;
        w.family(
            "tidegate_epoch",
            "Counts lost and replaced primaries.",
            None,
            Gauge,
            one(f64::from(self.topology.epoch.0)),
        )?;
        w.family(
            "tidegate_rebased",
            "Sessions whose position was of an epoch that is over: their writes may be lost.",
            None,
            Counter,
            one(self.sum(|m| load(&m.rebased))),
        )?;
        let outcomes = ["replica", "primary"]
            .into_iter()
            .enumerate()
            .map(|(at, outcome)| (vec![("outcome", outcome)], self.sum(|m| m.waits.get(at).map_or(0, load))));
        w.family(
            "tidegate_freshness_waits",
            "Reads that waited for a replica, by who served them.",
            None,
            Counter,
            outcomes,
        )?;
        let errors = SQLSTATES
            .iter()
            .enumerate()
            .map(|(at, state)| (vec![("sqlstate", *state)], self.sum(|m| m.errors.get(at).map_or(0, load))));
        w.family("tidegate_client_errors", "Errors that Tidegate itself has sent.", None, Counter, errors)?;
        w.family(
            "tidegate_build_info",
            "The version.",
            None,
            Gauge,
            [(vec![("version", env!("CARGO_PKG_VERSION"))], 1.0)],
        )?;
        let sum = |pick: fn(&WorkerMetrics) -> &super::histogram::Histogram| {
            let mut counts = Counts::default();
            for worker in &self.metrics.workers {
                pick(worker).add_to(&mut counts);
            }
            counts
        };
        w.histogram(
            "tidegate_freshness_wait",
            "How long reads waited for a replica.",
            sum(|m| &m.freshness_wait),
        )?;
        w.histogram(
            "tidegate_pool_wait",
            "How long clients waited for a server connection.",
            sum(|m| &m.pool_wait),
        )?;
        w.histogram(
            "tidegate_added_latency",
            "From a unit's arrival to its hand-over to a server, waits included.",
            sum(|m| &m.added_latency),
        )
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.write_all(&mut Writer(&mut encoder))
    }
}
