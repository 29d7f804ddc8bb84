//! `psql`, as people use it.

use std::process::{Command, Output};

/// `psql` with a connection string, and a query.
pub(crate) async fn psql(conninfo: String, sql: &'static str) -> Output {
    let run = move || {
        let mut psql = Command::new("psql");
        psql.args(["-X", "-A", "-t", "-w", "-c", sql]).arg(&conninfo).env("HOME", "/nonexistent");
        psql.env_remove("PGPASSWORD").output().unwrap()
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

pub(crate) fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap().trim()
}

pub(crate) fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap().trim()
}

/// `psql` gets that answer.
pub(crate) async fn answers(conninfo: String, sql: &'static str, answer: &str) {
    let output = psql(conninfo.clone(), sql).await;
    assert_eq!(out(&output), answer, "{conninfo}: {}", err(&output));
}

/// `psql` is told that, as the last words of its error.
pub(crate) async fn is_told(conninfo: String, words: &str) {
    let output = psql(conninfo.clone(), "SELECT 'in'").await;
    assert!(err(&output).ends_with(words) && out(&output).is_empty(), "{conninfo}: {output:?}");
}
