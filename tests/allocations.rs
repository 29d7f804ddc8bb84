//! In the steady state nothing is allocated per message: counted over thousands of pgbench's transactions, in the
//! process of this test, which is why it has a program of its own.

use std::alloc::System;
use std::process::Command;

use clap::Parser;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tidegate::app::cli::Cli;
use tidegate::app::{load, run};
use tidegate::demo::cluster::{Cluster, wait_until};
use tidegate::demo::ports::free_ports;
use tidegate::demo::scrape::get;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Polls allocate now and then, where readers keep what was published, so there is hardly one while pgbench runs; the
/// level is one that needs none between reads.
const CONFIG: &str = "
workers = 1
[freshness]
consistency = \"read_your_writes\"
poll_interval = \"10s\"
poll_interval_busy = \"10s\"
poll_timeout = \"60s\"
[auth]
method = \"trust\"
";

fn pgbench(port: u16, arguments: &[&str]) {
    let out = Command::new("pgbench")
        .args(["-h", "127.0.0.1", "-U", "postgres", "-p", &port.to_string()])
        .args(arguments)
        .arg("postgres")
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// Allocations, counting those that grew.
fn allocations() -> usize {
    let stats = ALLOCATOR.stats();
    stats.allocations + stats.reallocations
}

/// A proxy in this process: the port for clients, and the one for HTTP.
fn proxy(cluster: &Cluster, io_uring: bool) -> [u16; 2] {
    let ports = free_ports(2).unwrap();
    let config = cluster.dir().join(format!("tidegate-{io_uring}.toml"));
    std::fs::write(&config, format!("io_uring = {io_uring}{CONFIG}")).unwrap();
    let mut arguments = vec!["tidegate".to_owned(), "run".to_owned()];
    arguments.extend(["--config".to_owned(), config.display().to_string()]);
    arguments.extend(["--listen".to_owned(), format!("127.0.0.1:{}", ports[0])]);
    arguments.extend(["--http".to_owned(), format!("127.0.0.1:{}", ports[1])]);
    for server in cluster.servers() {
        arguments.extend(["--node".to_owned(), server.url()]);
    }
    let Some(tidegate::app::cli::Command::Run(arguments)) = Cli::parse_from(arguments).command else {
        panic!("not understood");
    };
    let settings = load::load(&arguments).unwrap();
    std::thread::spawn(move || run::run(settings, Box::new(|| None)));
    wait_until("the proxy is ready", || {
        page(ports[1], "/ready").0 == 200
            && page(ports[1], "/metrics").1.matches("tidegate_replica_lag_seconds{").count() == 2
    })
    .unwrap();
    [ports[0], ports[1]]
}

fn page(port: u16, path: &'static str) -> (u16, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(get(port, path)).unwrap_or((0, String::new()))
}

#[test]
fn a_read_allocates_nothing_in_any_protocol() {
    let cluster = Cluster::start(2).unwrap();
    pgbench(cluster.primary().port, &["-i", "-q", "-s", "1"]);
    // By io_uring, the library makes a box for each of two sends, but not for those that go alone.
    for (io_uring, sends) in [(false, 0.0), (true, 2.0)] {
        let [port, http] = proxy(&cluster, io_uring);
        for mode in ["simple", "extended", "prepared"] {
            let counted = |transactions: &str| {
                let before = allocations();
                pgbench(port, &["-n", "-S", "-M", mode, "-c", "2", "-t", transactions]);
                allocations() - before
            };
            counted("500");
            // What the start of pgbench and its logins cost is in both.
            let (few, many) = (counted("500"), counted("5500"));
            let each = (many as f64 - few as f64) / 10_000.0;
            // One in each transaction would be 1. What goes on by the time (polls, sweeps) is not: on a busy machine the
            // run lasts.
            assert!(
                each < sends + 0.1,
                "{mode}, io_uring {io_uring}: {each} allocations per transaction ({few}, then {many})"
            );
        }
        let replicas = page(http, "/metrics").1;
        let reads: u64 = replicas
            .lines()
            .filter(|l| l.starts_with("tidegate_units_total{") && l.contains("\"replica\""))
            .filter_map(|l| l.rsplit(' ').next()?.parse::<u64>().ok())
            .sum();
        assert!(reads > 35_000, "the reads ran on the replicas: {reads}\n{replicas}");
    }
}
