//! Real clients from their package registries: the same script direct and through Tidegate.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::support::certs::Certs;
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

/// Held while something is installed, so that tests that run at the same time do it once.
fn installing() -> MutexGuard<'static, ()> {
    static INSTALLING: Mutex<()> = Mutex::new(());
    INSTALLING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Installs what a list names, unless that very list has been installed there before.
fn installed(list: &Path, dir: &Path, install: impl FnOnce()) {
    let _held = installing();
    let (list, ready) = (std::fs::read_to_string(list).unwrap(), dir.join("ready"));
    if std::fs::read_to_string(&ready).ok().as_ref() != Some(&list) {
        install();
        std::fs::write(ready, list).unwrap();
    }
}

/// A Python with what `requirements.txt` in a folder of the scripts names.
pub(crate) fn python(folder: &str) -> Command {
    let list = scripts().join(folder).join("requirements.txt");
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(folder).join("python");
    let python = dir.join("bin/python");
    installed(&list, &dir, || {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&dir));
        run(Command::new(&python).args(["-m", "pip", "install", "-q", "-r"]).arg(&list));
    });
    Command::new(python)
}

/// Node with what `package.json` in a folder of the scripts names.
pub(crate) fn node(folder: &str) -> Command {
    let list = scripts().join(folder).join("package.json");
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(folder).join("node");
    installed(&list, &dir, || {
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::copy(&list, dir.join("package.json")).unwrap();
        // Without their scripts: no driver needs one, and those of Prisma would fetch engines that nothing here runs.
        let quietly = ["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"];
        run(Command::new("npm").args(quietly).current_dir(&dir));
    });
    let mut node = Command::new("node");
    node.env("NODE_PATH", dir.join("node_modules"));
    node
}

fn client(mut command: Command, script: &str, port: u16, name: &str) -> String {
    command.arg(scripts().join(script)).env("PGHOST", "127.0.0.1").env("PGPORT", port.to_string());
    if !command.get_envs().any(|(variable, _)| variable == "PGUSER") {
        command.env("PGUSER", "postgres");
    }
    run(command.env("PGDATABASE", name))
}

/// The lines in which two outputs differ, with their numbers: whole outputs would not fit into what CI keeps.
fn differences(expected: &str, found: &str) -> String {
    let (expected, found): (Vec<_>, Vec<_>) = (expected.lines().collect(), found.lines().collect());
    let of =
        |lines: &[&str], i: usize| lines.get(i).map_or_else(|| "(nothing)".to_owned(), |l| format!("{l:?}"));
    let differ = (0..expected.len().max(found.len())).filter(|i| expected.get(*i) != found.get(*i));
    let said = differ
        .take(20)
        .map(|i| format!("line {}: expected {}, found {}\n", i + 1, of(&expected, i), of(&found, i)));
    said.collect()
}

/// The script against the primary itself and through Tidegate, each in a database of its own.
pub(crate) async fn same_both_ways(program: impl Fn() -> Command, script: &str, name: &str) {
    let (direct, through) = (format!("{name}_direct"), format!("{name}_through"));
    database(&direct).await;
    database(&through).await;
    // On a machine that is busy with other tests, too, most reads are to find a replica that is fresh.
    let proxy = Proxy::with(shared(), &[("TIDEGATE_FRESHNESS_REPLICA_WAIT", "1s")]).await;
    proxy.wait_catalog(&through).await;
    let expected = client(program(), script, shared().primary().port, &direct);
    let found = client(program(), script, proxy.port, &through);
    assert!(found == expected, "through Tidegate:\n{}", differences(&expected, &found));
    assert!(expected.lines().count() >= 10, "the script has said something: {expected}");
    assert!(proxy.metric("tidegate_units_total", &[("role", "replica")]).await > 0.0, "replicas took part");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psycopg_notices_nothing() {
    same_both_ways(|| python(""), "psycopg_script.py", "clients_psycopg").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asyncpg_notices_nothing() {
    same_both_ways(|| python(""), "asyncpg_script.py", "clients_asyncpg").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_postgres_notices_nothing() {
    same_both_ways(|| node(""), "node_script.js", "clients_node").await;
}

/// Each driver's own TLS and SCRAM, with the password that PostgreSQL has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drivers_come_in_over_tls_by_scram() {
    shared().primary().execute("CREATE ROLE driver SUPERUSER LOGIN PASSWORD 'pass wörd'").await.unwrap();
    let certs = Certs::new("drivers");
    certs.issue("server", &["127.0.0.1", "localhost"]);
    let (cert, key, root) = (certs.path("server.crt"), certs.path("server.key"), certs.path("root.crt"));
    let variables = [
        ("TIDEGATE_AUTH_RULES", "hostssl all all all scram-sha-256"),
        ("TIDEGATE_TLS_CERT", cert.as_str()),
        ("TIDEGATE_TLS_KEY", key.as_str()),
        ("TIDEGATE_TLS_MODE", "require"),
    ];
    for (kind, script) in [("py", "psycopg_script.py"), ("py", "asyncpg_script.py"), ("js", "node_script.js")]
    {
        let name = format!("tls_{}", script.split('_').next().unwrap());
        let (direct, through) = (format!("{name}_direct"), format!("{name}_through"));
        database(&direct).await;
        database(&through).await;
        let proxy = Proxy::with(shared(), &variables).await;
        let program = || if kind == "py" { python("") } else { node("") };
        let mut secure = program();
        secure.env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", &root).env("NODE_EXTRA_CA_CERTS", &root);
        secure.env("PGUSER", "driver").env("PGPASSWORD", "pass wörd");
        let expected = client(program(), script, shared().primary().port, &direct);
        assert_eq!(client(secure, script, proxy.port, &through), expected, "{script}");
        let mut wrong = program();
        wrong.env("PGSSLMODE", "require").env("NODE_TLS_REJECT_UNAUTHORIZED", "0").env("PGPASSWORD", "wrong");
        wrong.arg(scripts().join(script)).env("PGHOST", "127.0.0.1").env("PGPORT", proxy.port.to_string());
        let refused = wrong.env("PGUSER", "driver").env("PGDATABASE", &through).output().unwrap();
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(told.contains("password authentication failed for user \"driver\""), "{script}: {told}");
    }
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
    // What others have written is there when a replica has it.
    shared().wait_caught_up().await.unwrap();
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
    shared().wait_caught_up().await.unwrap();
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
