//! The limit on open files.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use tidegate::demo::cluster::Server;

use crate::support::proxy::{PATIENCE, connect, value};
use crate::support::{Proxy, shared};

/// A proxy whose log can be read.
struct Logged {
    proxy: Proxy,
    log: PathBuf,
}

impl Logged {
    async fn start(name: &str) -> Self {
        let log = std::env::temp_dir().join(format!("tidegate-files-{name}-{}", std::process::id()));
        let urls: Vec<_> = shared().servers().iter().map(Server::url).collect();
        let proxy =
            Proxy::logging(&urls, &[("TIDEGATE_LOG", "info")], Stdio::from(File::create(&log).unwrap()))
                .await;
        Self { proxy, log }
    }

    fn limit(&self, files: usize) {
        let pid = self.proxy.child.id().to_string();
        let set = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={files}:")]).status();
        assert!(set.unwrap().success());
    }

    fn limited(&self) -> usize {
        let limits = fs::read_to_string(format!("/proc/{}/limits", self.proxy.child.id())).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        line.split_whitespace().nth(3).unwrap().parse().unwrap()
    }

    fn told(&self, what: &str) -> usize {
        fs::read_to_string(&self.log).unwrap().matches(what).count()
    }

    async fn wait_told(&self, what: &str) {
        let began = Instant::now();
        while self.told(what) == 0 {
            assert!(began.elapsed() < PATIENCE, "the log does not say: {what}");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.log);
    }
}

/// 192 are for Tidegate itself, 6 for each of two workers, 58 for each of three nodes, and of the other 400 nine times 11
/// for those who log in.
#[tokio::test]
async fn no_more_clients_come_in_than_there_are_files_for() {
    let logged = Logged::start("fit").await;
    let proxy = &logged.proxy;
    logged.limit(192 + 2 * 6 + 3 * 58 + 400);
    proxy.signal("-HUP");
    logged.wait_told("leaves room for fewer clients").await;
    logged.wait_told("configuration read anew").await;
    let mut clients = Vec::new();
    let refused = loop {
        match tokio_postgres::connect(&proxy.url("postgres"), tokio_postgres::NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                clients.push(client);
            }
            Err(error) => break error,
        }
        assert!(clients.len() <= 301);
    };
    assert_eq!(clients.len(), 301);
    assert_eq!(refused.code().map(|code| code.code()), Some("53300"), "{refused}");
    for client in &clients {
        assert_eq!(value(client, "SELECT 40 + 2").await, "42");
    }
    let client = &clients[0];
    client.batch_execute("CREATE TEMP TABLE there_is_a_file_for_the_primary (x int)").await.unwrap();
    assert_eq!(logged.told("cannot accept"), 0);
}

#[tokio::test]
async fn who_finds_no_file_left_comes_in_when_there_is_one() {
    let logged = Logged::start("none").await;
    let proxy = &logged.proxy;
    let client = proxy.connect().await;
    assert_eq!(value(&client, "SELECT 40 + 2").await, "42");
    let most = logged.limited();
    // None that is opened now: it is their numbers that the limit is about.
    logged.limit(3);
    let url = proxy.url("postgres");
    let waiting: Vec<_> = (0..5)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move { value(&connect(&url).await, "SELECT 40 + 2").await })
        })
        .collect();
    logged.wait_told("cannot accept clients").await;
    assert_eq!(value(&client, "SELECT 40 + 2").await, "42", "who is in notices nothing");
    logged.limit(most);
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap(), "42");
    }
    assert_eq!(logged.told("cannot accept clients"), 1, "it is said once");
}
