//! The demo from start to end.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::cluster::{Cluster, Guarded};
use super::load::{self, Mode, Plan, Seen, Target};
use super::ports::free_ports;
use super::report::{Routes, json};
use super::scrape::{get, parse};
use super::view::{Moment, View};
use crate::app::cli::DemoArgs;
use crate::app::exit::ExitCode;

/// Rows that the load reads and writes.
const KEYS: i64 = 200;

/// How long the proxy may take to be ready.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Runs the demo.
#[must_use]
pub fn demo(args: &DemoArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error, ExitCode::Internal),
    };
    match runtime.block_on(show(args)) {
        Ok(code) => code,
        Err(error) => complain(&error, ExitCode::Failed),
    }
}

fn complain(error: &io::Error, code: ExitCode) -> ExitCode {
    // Without a standard error there is nobody to tell.
    let _ = writeln!(io::stderr().lock(), "tidegate demo: {error}");
    code
}

fn say(text: &str) {
    // Standard output may be a pipe that is closed; the demo goes on.
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// The proxy as a process of its own, as it would run anywhere.
struct Proxy {
    child: Child,
    guarded: Option<Guarded>,
    port: u16,
    http: u16,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // One that has ended already is none to end.
        let _ = self.child.kill();
        // Once it is waited for, its number may be another's.
        self.guarded = None;
        let _ = self.child.wait();
    }
}

impl Proxy {
    async fn start(cluster: &Cluster) -> io::Result<Self> {
        let ports = free_ports(2)?;
        let [port, http] = ports[..] else { return Err(io::Error::other("no free ports")) };
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args([
                "run",
                "--auth",
                "trust",
                "--listen",
                &format!("127.0.0.1:{port}"),
                "--http",
                &format!("127.0.0.1:{http}"),
            ])
            .env("TIDEGATE_LOG", std::env::var("TIDEGATE_LOG").unwrap_or_else(|_| "warn".to_owned()))
            .stdin(Stdio::null())
            .process_group(0);
        for server in cluster.servers() {
            command.arg("--node").arg(server.url());
        }
        let mut proxy = Self { child: command.spawn()?, guarded: None, port, http };
        proxy.guarded = Some(cluster.guard(proxy.child.id())?);
        let began = Instant::now();
        while !matches!(get(http, "/ready").await, Ok((200, _))) {
            if let Some(status) = proxy.child.try_wait()? {
                proxy.guarded = None;
                return Err(io::Error::other(format!("the proxy ended: {status}")));
            }
            if began.elapsed() > START_LIMIT {
                return Err(io::Error::other("the proxy is not ready"));
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(proxy)
    }

    fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    async fn routes(&self) -> io::Result<Routes> {
        Ok(Routes::read(&parse(&get(self.http, "/metrics").await?.1)))
    }
}

async fn show(args: &DemoArgs) -> io::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    if !args.json {
        say("Starting a primary and two standbys in a temporary directory ...");
    }
    // Starting servers blocks; signals are kept until it is done, and the guardian cleans up after a kill.
    let cluster = Cluster::start(2)?;
    let proxy = Proxy::start(&cluster).await?;
    load::prepare(&proxy.url(), KEYS).await.map_err(io::Error::other)?;
    cluster.wait_caught_up().await?;
    let lagging = cluster.replica(1);
    lagging.set_apply_delay(Duration::from_millis(u64::from(args.lag))).await.map_err(io::Error::other)?;
    let (seen, stop) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
    let plan = Plan {
        target: Target::Proxy(proxy.url()),
        sessions: args.sessions,
        writes: args.writes,
        keys: KEYS,
        operations: None,
        pause: Duration::from_millis(4),
        prelude: format!("SET tidegate.consistency = '{}'", args.consistency),
        monotonic: args.consistency == "session",
        modes: Mode::ALL.to_vec(),
    };
    let load = tokio::spawn(load::run(plan, seen.clone(), stop.clone()));
    let mut view = (!args.json).then(|| {
        View::new(
            format!("psql \"host=127.0.0.1 port={} user=postgres dbname=postgres\"", proxy.port),
            format!("http://127.0.0.1:{}/", proxy.http),
            format!("127.0.0.1:{}", lagging.port),
        )
    });
    let began = Instant::now();
    let mut max_lag = 0.0_f64;
    let mut ticks = interval(Duration::from_millis(250));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tick = 0_u64;
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = ticks.tick() => {}
        }
        let routes = proxy.routes().await?;
        max_lag = routes.nodes.values().filter_map(|n| n.lag_seconds).fold(max_lag, f64::max);
        if let Some(view) = &mut view
            && tick.is_multiple_of(4)
        {
            view.show(moment(&seen, began, routes));
        }
        tick += 1;
        if args.seconds.is_some_and(|limit| began.elapsed() >= Duration::from_secs(limit)) {
            break;
        }
    }
    stop.store(true, Ordering::Relaxed);
    // Its tasks end with their current statement.
    let _ = load.await;
    let routes = proxy.routes().await?;
    if let Some(view) = &mut view {
        view.show(moment(&seen, began, routes.clone()));
    }
    if args.json {
        let report = json(&seen, &routes, cluster.primary().port, max_lag, began.elapsed().as_secs_f64());
        say(&report.to_string());
    } else {
        for complaint in seen.details().complaints {
            say(&complaint);
        }
    }
    let sound = seen.stale.load(Ordering::Relaxed) == 0 && seen.errors.load(Ordering::Relaxed) == 0;
    drop(proxy);
    drop(cluster);
    Ok(if sound { ExitCode::Ok } else { ExitCode::Failed })
}

fn moment(seen: &Seen, began: Instant, routes: Routes) -> Moment {
    Moment {
        seconds: began.elapsed().as_secs(),
        reads: seen.reads.load(Ordering::Relaxed),
        writes: seen.writes.load(Ordering::Relaxed),
        stale: seen.stale.load(Ordering::Relaxed),
        errors: seen.errors.load(Ordering::Relaxed),
        routes,
    }
}
