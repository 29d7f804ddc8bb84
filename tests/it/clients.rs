//! Real clients from their package registries: the same script direct and through Tidegate.

use std::path::PathBuf;
use std::process::Command;

use crate::support::{Proxy, database, shared};

fn scripts() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// Runs a command; its output.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// A Python with psycopg and asyncpg, made once per build directory.
fn python() -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("python");
    let python = dir.join("bin/python");
    if !dir.join("ready").exists() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&dir));
        run(Command::new(&python)
            .args(["-m", "pip", "install", "-q", "-r"])
            .arg(scripts().join("requirements.txt")));
        std::fs::write(dir.join("ready"), "").unwrap();
    }
    python
}

/// A directory with node-postgres.
fn node_modules() -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("node");
    if !dir.join("ready").exists() {
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::copy(scripts().join("package.json"), dir.join("package.json")).unwrap();
        run(Command::new("npm").args(["install", "--silent", "--no-audit", "--no-fund"]).current_dir(&dir));
        std::fs::write(dir.join("ready"), "").unwrap();
    }
    dir
}

fn client(program: &PathBuf, script: &str, port: u16, name: &str) -> String {
    let mut command = Command::new(program);
    command.arg(scripts().join(script)).env("PGHOST", "127.0.0.1").env("PGPORT", port.to_string());
    command
        .env("PGUSER", "postgres")
        .env("PGDATABASE", name)
        .env("NODE_PATH", node_modules().join("node_modules"));
    run(&mut command)
}

/// The script against the primary itself and through Tidegate, each in a database of its own.
async fn same_both_ways(program: PathBuf, script: &str, name: &str) {
    let (direct, through) = (format!("{name}_direct"), format!("{name}_through"));
    database(&direct).await;
    database(&through).await;
    let proxy = Proxy::start(shared()).await;
    let expected = client(&program, script, shared().primary().port, &direct);
    let found = client(&program, script, proxy.port, &through);
    assert_eq!(found, expected);
    assert!(expected.lines().count() >= 10, "the script has said something: {expected}");
    assert!(proxy.metric("tidegate_units_total", &[("role", "replica")]).await > 0.0, "replicas took part");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psycopg_notices_nothing() {
    same_both_ways(python(), "psycopg_script.py", "clients_psycopg").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asyncpg_notices_nothing() {
    same_both_ways(python(), "asyncpg_script.py", "clients_asyncpg").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_postgres_notices_nothing() {
    same_both_ways(PathBuf::from("node"), "node_script.js", "clients_node").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psql_notices_nothing() {
    database("clients_psql_direct").await;
    database("clients_psql_through").await;
    let proxy = Proxy::start(shared()).await;
    let psql = |port: u16, name: &str| {
        let mut command = Command::new("psql");
        command.args(["-X", "-h", "127.0.0.1", "-U", "postgres", "-v", "ON_ERROR_STOP=0", "-f"]);
        command.arg(scripts().join("script.sql")).args(["-p", &port.to_string(), name]).env("PGOPTIONS", "");
        run(&mut command)
    };
    let expected = psql(shared().primary().port, "clients_psql_direct");
    assert_eq!(psql(proxy.port, "clients_psql_through"), expected);
    assert!(expected.lines().count() > 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pgbench_runs_clean_and_pg_dump_goes_round() {
    database("clients_bench").await;
    database("clients_copy").await;
    // pgbench waits for each PREPARE with all of its clients: with fewer server connections than those it would wait
    // for itself.
    let proxy = Proxy::with(shared(), &[("TIDEGATE_POOL_SIZE", "80")]).await;
    let port = proxy.port.to_string();
    let bench = |arguments: &[&str]| {
        let base = ["-h", "127.0.0.1", "-U", "postgres", "-p", &port, "clients_bench"];
        run(Command::new("pgbench").args(arguments).args(base))
    };
    bench(&["-i", "-q", "-s", "1"]);
    for script in [&[][..], &["-S"], &["-N"]] {
        for mode in ["simple", "extended", "prepared"] {
            for clients in ["1", "16", "64"] {
                // Few transactions at 64 clients: they all update one branch.
                let count = if clients == "64" { "10" } else { "50" };
                let out = bench(&[script, &["-n", "-M", mode, "-c", clients, "-t", count]].concat());
                assert!(out.contains("number of failed transactions: 0 (0.000%)"), "{mode} {clients}: {out}");
            }
        }
    }
    let dump = |port: &str, name: &str| {
        let out = run(Command::new("pg_dump").args(["-h", "127.0.0.1", "-U", "postgres", "-p", port, name]));
        // Newer versions write a random word there.
        out.lines()
            .filter(|l| !l.starts_with("\\restrict") && !l.starts_with("\\unrestrict"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let through = format!(
        "set -o pipefail; pg_dump -h 127.0.0.1 -U postgres -p {port} clients_bench | psql -q -X -v ON_ERROR_STOP=1 -h 127.0.0.1 -U postgres -p {port} clients_copy"
    );
    run(Command::new("bash").args(["-c", &through]));
    let direct = shared().primary().port.to_string();
    assert_eq!(dump(&direct, "clients_copy"), dump(&direct, "clients_bench"));
}
