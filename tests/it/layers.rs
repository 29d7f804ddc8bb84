//! Who may use whom: the house's import rules.

use std::fs;
use std::path::{Path, PathBuf};

/// Each layer and those that it may use besides itself. `app` and `demo` may use everything, and nothing uses them.
const RULES: [(&str, &[&str]); 17] = [
    ("wire", &[]),
    ("sql", &[]),
    ("lsn", &[]),
    ("topology", &["lsn"]),
    ("route", &["sql", "lsn", "topology"]),
    ("session", &["wire", "sql", "lsn", "topology", "route"]),
    ("auth", &["wire"]),
    // Rules are read once, into what the login goes by.
    ("config", &["auth"]),
    ("net", &["config"]),
    // A server connection carries the session core's book about it: statements, settings, answers to come.
    ("server", &["lsn", "net", "wire", "auth", "config", "topology", "session"]),
    // Of the net, the pool has its timers.
    ("pool", &["server", "topology", "auth", "config", "metrics", "net"]),
    ("relay", &["wire", "lsn", "sql", "session", "server", "net", "metrics"]),
    (
        "client",
        &[
            "net", "wire", "lsn", "auth", "config", "session", "sql", "route", "topology", "pool", "relay",
            "server", "metrics", "monitor",
        ],
    ),
    // It logs in to nodes as clients' connections do.
    ("monitor", &["lsn", "topology", "auth", "config", "metrics", "sql", "net", "wire", "server"]),
    ("metrics", &["route", "topology"]),
    ("http", &["metrics", "topology", "config", "wire"]),
    ("main", &["app", "config", "demo"]),
];

/// The layers that know neither tokio, nor sockets, nor files, nor the time.
const CORE: [&str; 8] = ["wire", "sql", "lsn", "topology", "route", "session", "auth", "config"];

const NOT_IN_CORE: [&str; 9] = [
    "tokio",
    "TcpStream",
    "UdpSocket",
    "UnixStream",
    "std::fs",
    "std::process",
    "Instant::now",
    "SystemTime",
    "std::thread",
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn layer(path: &Path) -> String {
    let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    inside.components().next().unwrap().as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

fn all_sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 80);
    found
}

/// The text without its tests and comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn is_test(path: &Path) -> bool {
    path.file_stem().is_some_and(|s| s.to_string_lossy().ends_with("tests"))
}

#[test]
fn the_core_knows_neither_tokio_nor_sockets_nor_files_nor_the_time() {
    for path in all_sources().into_iter().filter(|p| CORE.contains(&layer(p).as_str()) && !is_test(p)) {
        let text = code(&path);
        for word in NOT_IN_CORE {
            assert!(!text.contains(word), "{} names {word}", path.display());
        }
    }
}

#[test]
fn imports_go_one_way() {
    for path in all_sources().into_iter().filter(|p| !is_test(p)) {
        let own = layer(&path);
        if matches!(own.as_str(), "app" | "demo" | "lib") {
            continue;
        }
        let (_, allowed) =
            RULES.iter().find(|(name, _)| *name == own).unwrap_or_else(|| panic!("no rule for {own}"));
        let text = code(&path);
        let marker = if own == "main" { "tidegate::" } else { "crate::" };
        for piece in text.split(marker).skip(1) {
            let used: String = piece.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            assert!(used == own || allowed.contains(&used.as_str()), "{} uses {used}", path.display());
        }
    }
}

/// The layers that run on workers' threads, whose runtimes have no timers: tokio's own panic there.
const ON_WORKERS: [&str; 6] = ["net", "server", "pool", "relay", "client", "monitor"];

#[test]
fn workers_have_their_timers_from_who_keeps_them() {
    for path in all_sources().into_iter().filter(|p| ON_WORKERS.contains(&layer(p).as_str())) {
        let text = code(&path);
        let lists = text.split("tokio::{").skip(1).filter_map(|rest| rest.split(';').next());
        let own = text.contains("tokio::time") || lists.into_iter().any(|list| list.contains("time"));
        assert!(!own || path.ends_with("net/timers.rs"), "{} has timers of tokio's own", path.display());
    }
}

#[test]
fn no_file_is_too_long_to_read() {
    for path in all_sources() {
        let lines = code(&path).lines().count();
        assert!(lines <= 500, "{}: {lines} lines", path.display());
    }
}
