//! The proxy as a process.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tidegate::demo::cluster::{Cluster, Server};
use tidegate::demo::ports::free_ports;
use tidegate::demo::scrape::{Sample, get, parse};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// How long anything may take that should take no time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running proxy; killed when dropped.
pub(crate) struct Proxy {
    pub(crate) child: Child,
    pub(crate) port: u16,
    pub(crate) http: u16,
}

impl Proxy {
    /// In front of a cluster, letting everyone in.
    pub(crate) async fn start(cluster: &Cluster) -> Self {
        Self::with(cluster, &[]).await
    }

    /// With variables, such as `("TIDEGATE_POOL_SIZE", "2")`.
    pub(crate) async fn with(cluster: &Cluster, variables: &[(&str, &str)]) -> Self {
        let urls: Vec<_> = cluster.servers().iter().map(Server::url).collect();
        Self::before(&urls, variables).await
    }

    /// In front of the nodes with these URLs.
    pub(crate) async fn before(urls: &[String], variables: &[(&str, &str)]) -> Self {
        Self::logging(urls, variables, Stdio::inherit()).await
    }

    /// The same, with its log going there.
    pub(crate) async fn logging(urls: &[String], variables: &[(&str, &str)], log: Stdio) -> Self {
        let ports = free_ports(2).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command
            .args([
                "--listen",
                &format!("127.0.0.1:{}", ports[0]),
                "--http",
                &format!("127.0.0.1:{}", ports[1]),
            ])
            // Whatever the machine has: what goes wrong between workers needs two.
            .env("TIDEGATE_WORKERS", "2")
            .env("TIDEGATE_LOG", std::env::var("TIDEGATE_LOG").unwrap_or_else(|_| "warn".to_owned()))
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stderr(log);
        let has = |name: &str| variables.iter().any(|(variable, _)| *variable == name);
        if has("TIDEGATE_CONFIG") {
            // What the file says is not to be outweighed by what these tests run with.
            command.env_remove("TIDEGATE_CLIENT_PLACEMENT");
        } else if !has("TIDEGATE_CLIENT_PLACEMENT") {
            // Clients of both workers, if nothing else is asked for: see `make test-roam`.
            let placement = std::env::var("TIDEGATE_CLIENT_PLACEMENT");
            command.env("TIDEGATE_CLIENT_PLACEMENT", placement.unwrap_or_else(|_| "even".to_owned()));
        }
        if !variables.iter().any(|(name, _)| name.starts_with("TIDEGATE_AUTH")) {
            command.env("TIDEGATE_AUTH", "trust");
        }
        for url in urls {
            command.args(["--node", url]);
        }
        let mut proxy = Self { child: command.spawn().unwrap(), port: ports[0], http: ports[1] };
        let replicas = urls.len() - 1;
        let began = Instant::now();
        loop {
            assert!(proxy.child.try_wait().unwrap().is_none(), "the proxy ended");
            assert!(began.elapsed() < PATIENCE, "the proxy is not ready");
            if matches!(get(proxy.http, "/ready").await, Ok((200, _)))
                && proxy.ready_replicas().await >= replicas
            {
                return proxy;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn ready_replicas(&self) -> usize {
        self.samples().await.iter().filter(|s| s.name == "tidegate_replica_lag_seconds").count()
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    pub(crate) async fn connect(&self) -> Client {
        self.connect_to("postgres").await
    }

    pub(crate) async fn connect_to(&self, database: &str) -> Client {
        connect(&self.url(database)).await
    }

    /// Waits until the catalog of a database has been read, also after a change: until then it is the reason why reads
    /// go to the primary.
    pub(crate) async fn wait_catalog(&self, database: &str) {
        let client = self.connect_to(database).await;
        let began = Instant::now();
        loop {
            client.batch_execute("SELECT lower('x')").await.unwrap();
            if last_route(&client).await.2 != "catalog_unknown" {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "the catalog is not read");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn samples(&self) -> Vec<Sample> {
        parse(&get(self.http, "/metrics").await.unwrap().1)
    }

    /// The sum of a metric's samples with these labels.
    pub(crate) async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let samples = self.samples().await;
        let matching =
            samples.iter().filter(|s| s.name == name && labels.iter().all(|(n, v)| s.label(n) == *v));
        matching.map(|s| s.value).sum()
    }

    /// The most memory that the proxy has ever had resident, in bytes.
    pub(crate) fn peak(&self) -> u64 {
        self.status("VmHWM")
    }

    /// What it has resident now.
    pub(crate) fn resident(&self) -> u64 {
        self.status("VmRSS")
    }

    fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|l| l.starts_with(name)).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(name, self.child.id());
    }
}

/// Sends a process a signal, such as `-HUP`.
pub(crate) fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// All rows of a simple query, values joined by `|`.
pub(crate) async fn rows(client: &Client, sql: &str) -> Vec<String> {
    let messages = client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    messages
        .iter()
        .filter_map(|m| match m {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|n| row.get(n).unwrap_or("")).collect::<Vec<_>>().join("|"))
            }
            _ => None,
        })
        .collect()
}

/// The first value of a simple query.
pub(crate) async fn value(client: &Client, sql: &str) -> String {
    rows(client, sql).await.into_iter().next().unwrap_or_default()
}

/// Node, role and why of the previous unit.
pub(crate) async fn last_route(client: &Client) -> (String, String, String) {
    let row = value(client, "SHOW tidegate.last_route").await;
    let mut parts = row.split('|').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    (next(), next(), next())
}

/// The SQLSTATE that a statement fails with; empty if it does not fail.
pub(crate) async fn sqlstate(client: &Client, sql: &str) -> String {
    match client.batch_execute(sql).await {
        Ok(()) => String::new(),
        Err(error) => error.as_db_error().map_or_else(|| error.to_string(), |db| db.code().code().to_owned()),
    }
}
