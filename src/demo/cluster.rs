//! A primary and streaming standbys in a temporary directory, gone when the process is.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio_postgres::NoTls;

use super::account::Account;
use super::binaries;
use super::ports::free_ports;

/// How long a server may take to start, to stop or to catch up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Stops the servers and whatever else is guarded, and removes the directory once its standard input ends: when the cluster is dropped, or when
/// the process that owns it dies, whatever killed it.
const GUARDIAN: &str = r#"
read nothing
for pid in "$1"/*/*.pid; do
  [ -f "$pid" ] && kill -QUIT "$(head -n 1 "$pid")" 2>/dev/null
done
tries=0
while [ $tries -lt 100 ]; do
  alive=
  for pid in "$1"/*/*.pid; do [ -f "$pid" ] && kill -0 "$(head -n 1 "$pid")" 2>/dev/null && alive=1; done
  [ -z "$alive" ] && break
  sleep 0.05
  tries=$((tries + 1))
done
# Whoever was started behind a shell's "&" ignores the other one.
for pid in "$1"/*/*.pid; do
  [ -f "$pid" ] && kill -KILL "$(head -n 1 "$pid")" 2>/dev/null
done
rm -rf "$1"
"#;

/// One server.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its TCP port on 127.0.0.1.
    pub port: u16,
    /// Its data directory.
    pub data: PathBuf,
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    dir: PathBuf,
    bin: PathBuf,
    account: Account,
    servers: Vec<Server>,
    guardian: Child,
}

impl Server {
    /// The process id of its postmaster.
    ///
    /// # Errors
    /// It is not running.
    pub fn postmaster(&self) -> io::Result<u32> {
        let file = fs::read_to_string(self.data.join("postmaster.pid"))?;
        file.lines().next().unwrap_or_default().parse().map_err(io::Error::other)
    }

    /// Its URL, as user `postgres` in the database `postgres`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Connects. The connection's task runs on the current runtime.
    ///
    /// # Errors
    /// As `tokio_postgres` says.
    pub async fn connect(&self) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&self.url(), NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Runs statements on a connection of its own.
    ///
    /// # Errors
    /// As `tokio_postgres` says.
    pub async fn execute(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        self.connect().await?.batch_execute(sql).await
    }

    /// Holds a standby's replay; returns when it stands still.
    ///
    /// # Errors
    /// As `tokio_postgres` says; so does a server older than PostgreSQL 14, which cannot tell.
    pub async fn pause_replay(&self) -> Result<(), tokio_postgres::Error> {
        let client = self.connect().await?;
        client.batch_execute("SELECT pg_wal_replay_pause()").await?;
        // It is only asked for by that (manual, "Recovery Control Functions").
        let question = "SELECT pg_get_wal_replay_pause_state() = 'pause requested'";
        while client.query_one(question, &[]).await?.get(0) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Lets a standby's replay go on.
    ///
    /// # Errors
    /// As `tokio_postgres` says.
    pub async fn resume_replay(&self) -> Result<(), tokio_postgres::Error> {
        self.execute("SELECT pg_wal_replay_resume()").await
    }

    /// Makes a standby replay every commit so much later.
    ///
    /// # Errors
    /// As `tokio_postgres` says.
    pub async fn set_apply_delay(&self, delay: Duration) -> Result<(), tokio_postgres::Error> {
        let client = self.connect().await?;
        // Each on its own: ALTER SYSTEM does not run in a transaction.
        client
            .batch_execute(&format!("ALTER SYSTEM SET recovery_min_apply_delay = '{}ms'", delay.as_millis()))
            .await?;
        client.batch_execute("SELECT pg_reload_conf()").await
    }
}

/// A process that ends with the cluster, as long as this is not dropped.
pub struct Guarded(PathBuf);

impl Drop for Guarded {
    fn drop(&mut self) {
        // Where the directory is gone, so is the guardian.
        let _ = fs::remove_file(&self.0);
    }
}

impl Cluster {
    /// Starts a primary and as many standbys as given; waits until all accept connections.
    ///
    /// # Errors
    /// Programs are missing, or one of them fails: the text holds the end of its log.
    pub fn start(replicas: usize) -> io::Result<Self> {
        let bin = binaries::find()?;
        let account = Account::find()?;
        let dir = make_dir(account)?;
        let guardian = Command::new("sh")
            .args(["-c", GUARDIAN, "tidegate-guardian"])
            .arg(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let ports = free_ports(replicas + 1)?;
        let server = |(n, port): (usize, u16)| Server {
            port,
            data: dir.join(if n == 0 { "primary".to_owned() } else { format!("replica{n}") }),
        };
        let servers = ports.into_iter().enumerate().map(server).collect();
        let cluster = Self { dir, bin, account, servers, guardian };
        cluster.set_up_primary()?;
        cluster.set_up_replicas()?;
        Ok(cluster)
    }

    /// The server that was the primary at first.
    #[must_use]
    pub fn primary(&self) -> &Server {
        &self.servers[0]
    }

    /// The standby of that number, from 0.
    #[must_use]
    pub fn replica(&self, number: usize) -> &Server {
        &self.servers[number + 1]
    }

    /// Every server, the primary first.
    #[must_use]
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn set_up_primary(&self) -> io::Result<()> {
        let primary = self.primary();
        self.run("initdb", |c| {
            c.args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", "-D"])
                .arg(&primary.data);
        })?;
        let settings = "fsync = off\nmax_connections = 300\nshared_buffers = 32MB\nwal_level = logical\nmax_wal_senders = 20\n\
             max_prepared_transactions = 10\nhot_standby_feedback = on\nwal_keep_size = 256MB\nlisten_addresses = '127.0.0.1'\n\
             track_commit_timestamp = on\nmax_standby_streaming_delay = 500ms\n";
        self.configure(primary, settings)?;
        self.boot(primary)
    }

    fn set_up_replicas(&self) -> io::Result<()> {
        let port = self.primary().port.to_string();
        let mut copies = Vec::new();
        for replica in self.servers.iter().skip(1) {
            let mut command = self.command("pg_basebackup");
            command.args([
                "-h",
                "127.0.0.1",
                "-p",
                &port,
                "-U",
                "postgres",
                "-R",
                "-X",
                "stream",
                "-c",
                "fast",
                "--no-sync",
                "-D",
            ]);
            command.arg(&replica.data).stdout(Stdio::null()).stderr(Stdio::piped());
            copies.push(command.spawn()?);
        }
        for (copy, replica) in copies.into_iter().zip(self.servers.iter().skip(1)) {
            let output = copy.wait_with_output()?;
            if !output.status.success() {
                return Err(io::Error::other(format!(
                    "pg_basebackup: {}",
                    String::from_utf8_lossy(&output.stderr)
                )));
            }
            self.configure(replica, "")?;
        }
        for replica in self.servers.iter().skip(1) {
            self.boot(replica)?;
        }
        Ok(())
    }

    /// Appends to a server's configuration.
    fn configure(&self, server: &Server, settings: &str) -> io::Result<()> {
        let mut file = fs::OpenOptions::new().append(true).open(server.data.join("postgresql.conf"))?;
        writeln!(file, "{settings}port = {}\nunix_socket_directories = '{}'", server.port, self.dir.display())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.current_dir(&self.dir).stdin(Stdio::null()).env("LC_ALL", "C").env_remove("PGOPTIONS");
        self.account.apply(&mut command);
        command
    }

    fn run(&self, program: &str, arguments: impl FnOnce(&mut Command)) -> io::Result<()> {
        let mut command = self.command(program);
        arguments(&mut command);
        let output = command.output()?;
        if output.status.success() {
            return Ok(());
        }
        let text = [output.stdout, output.stderr].concat();
        Err(io::Error::other(format!("{program}: {}", String::from_utf8_lossy(&text).trim())))
    }

    /// Starts a server that is down; waits until it accepts connections.
    ///
    /// # Errors
    /// It does not start.
    pub fn boot(&self, server: &Server) -> io::Result<()> {
        let log = server.data.with_extension("log");
        let done = self.run("pg_ctl", |c| {
            // pg_ctl's own output stays open in the server, so that it must not be a pipe.
            c.args(["-w", "-s", "-t", "60", "start", "-D"])
                .arg(&server.data)
                .arg("-l")
                .arg(&log)
                .stdout(Stdio::null())
                .stderr(Stdio::null());
        });
        done.map_err(|error| {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let tail: Vec<_> = text.lines().rev().take(5).collect();
            io::Error::other(format!("{error} {}", tail.into_iter().rev().collect::<Vec<_>>().join("\n")))
        })
    }

    /// Ends a server at once, as a crash does; it can be started again.
    ///
    /// # Errors
    /// It is not running.
    pub fn kill(&self, server: &Server) -> io::Result<()> {
        let pid = server.postmaster()?.to_string();
        // Its children notice within moments; until then a new start would be refused.
        let status = Command::new("kill").args(["-KILL", &pid]).status()?;
        if !status.success() {
            return Err(io::Error::other("kill failed"));
        }
        wait_until("the server is gone", || !Path::new(&format!("/proc/{pid}")).exists())?;
        self.run("pg_ctl", |c| {
            c.args(["-m", "immediate", "-s", "stop", "-D"]).arg(&server.data);
        })
        .or(Ok(()))
    }

    /// Stops a server in order.
    ///
    /// # Errors
    /// It does not stop.
    pub fn stop(&self, server: &Server) -> io::Result<()> {
        self.run("pg_ctl", |c| {
            c.args(["-m", "fast", "-w", "-s", "stop", "-D"]).arg(&server.data);
        })
    }

    /// Makes a standby the primary.
    ///
    /// # Errors
    /// It does not become one.
    pub fn promote(&self, server: &Server) -> io::Result<()> {
        self.run("pg_ctl", |c| {
            c.args(["-w", "-s", "promote", "-D"]).arg(&server.data);
        })
    }

    /// Ends another process together with the cluster, even if its owner is killed; as long as that is wanted.
    ///
    /// # Errors
    /// The cluster's directory cannot be written to.
    pub fn guard(&self, pid: u32) -> io::Result<Guarded> {
        let dir = self.dir.join("guarded");
        fs::create_dir_all(&dir)?;
        let guarded = Guarded(dir.join(format!("{pid}.pid")));
        fs::write(&guarded.0, pid.to_string())?;
        Ok(guarded)
    }

    /// Waits until every standby that is up has replayed what the primary has written until now; also what nobody would
    /// have flushed, such as what is left of a transaction that was rolled back.
    ///
    /// # Errors
    /// One does not catch up.
    pub async fn wait_caught_up(&self) -> io::Result<()> {
        let primary = self.primary().connect().await.map_err(io::Error::other)?;
        // Its commit flushes all that stands before it.
        let commit = "SELECT pg_logical_emit_message(true, 'tidegate', '')";
        primary.batch_execute(commit).await.map_err(io::Error::other)?;
        let target: String = primary
            .query_one("SELECT pg_current_wal_flush_lsn()::text", &[])
            .await
            .map_err(io::Error::other)?
            .get(0);
        let question = format!("SELECT pg_last_wal_replay_lsn() >= '{target}'");
        for replica in self.servers.iter().skip(1) {
            let Ok(client) = replica.connect().await else { continue };
            let began = Instant::now();
            while !client.query_one(&question, &[]).await.map_err(io::Error::other)?.get::<_, bool>(0) {
                if began.elapsed() > PATIENCE {
                    return Err(io::Error::other("a standby does not catch up"));
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The guardian does the rest, and is waited for so that nothing is left when we return.
        drop(self.guardian.stdin.take());
        let _ = self.guardian.wait();
    }
}

fn make_dir(account: Account) -> io::Result<PathBuf> {
    let base = std::env::temp_dir();
    let number: u32 = rand::random();
    let dir = base.join(format!("tidegate-{number:08x}"));
    fs::create_dir(&dir)?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
    account.own(&dir)?;
    Ok(dir)
}

/// Waits for a condition that no event tells of.
///
/// # Errors
/// It does not come true.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) -> io::Result<()> {
    let began = Instant::now();
    while !condition() {
        if began.elapsed() > PATIENCE {
            return Err(io::Error::other(format!("waited in vain until {what}")));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
