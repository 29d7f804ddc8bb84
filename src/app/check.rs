//! `tidegate check`: the configuration, and what each node says.

use std::io::{self, Write};

use tokio::time::timeout;

use super::exit::ExitCode;
use crate::auth::{Rule, RuleMethod};
use crate::config::Settings;
use crate::config::settings::NodeSettings;
use crate::monitor::probe::Probe;
use crate::monitor::verifiers::can_ask;
use crate::net::{Acceptor, Connector, local_runtime};

/// Asks every node once, and prints what it is.
#[must_use]
pub fn check(settings: &Settings) -> ExitCode {
    let Ok(runtime) = local_runtime() else { return ExitCode::Internal };
    if let Err(error) = settings.tls.as_ref().map(Acceptor::new).transpose() {
        let _ = writeln!(io::stdout().lock(), "tls: {error}");
        return ExitCode::Failed;
    }
    let found = runtime.block_on(ask_all(settings));
    let logins = wants_passwords(settings).then(|| runtime.block_on(ask_for_passwords(settings)));
    let (mut primaries, mut failed) = (0, false);
    let mut out = io::stdout().lock();
    for (name, answer) in found {
        let line = match answer {
            Ok((in_recovery, position)) => {
                primaries += u32::from(!in_recovery);
                format!("{name}: {} at {position}", if in_recovery { "replica" } else { "primary" })
            }
            Err(reason) => {
                failed = true;
                format!("{name}: not usable: {reason}")
            }
        };
        // A reader that has gone away needs no answer.
        let _ = writeln!(out, "{line}");
    }
    if primaries != 1 {
        let _ =
            writeln!(out, "{primaries} of these nodes say that they take writes: there must be exactly one");
    }
    if let Some(Err(reason)) = logins {
        // Whoever stands in auth.users comes in all the same.
        failed |= settings.auth.users.is_empty();
        let _ = writeln!(out, "logins: the passwords that PostgreSQL stores cannot be asked for: {reason}");
        let _ = writeln!(out, "        run what `tidegate check --print-setup` prints, or fill auth.users");
    }
    if failed || primaries != 1 { ExitCode::Failed } else { ExitCode::Ok }
}

/// Whether some rule makes clients prove a password.
fn wants_passwords(settings: &Settings) -> bool {
    let by_password =
        |rule: &Rule| matches!(rule.method, RuleMethod::Scram | RuleMethod::Md5 | RuleMethod::Password);
    settings.auth.rules.iter().any(by_password)
}

/// Whether some node tells the stored password of a role.
async fn ask_for_passwords(settings: &Settings) -> Result<(), String> {
    let mut last = Ok(());
    for node in &settings.nodes {
        let connector = Connector::new(node).map_err(|e| e.to_string())?;
        let query = settings.auth.query.as_deref();
        last = can_ask(node, &connector, settings.connect_timeout, query).await;
        if last.is_ok() {
            break;
        }
    }
    last
}

async fn ask_all(settings: &Settings) -> Vec<(String, Result<(bool, String), String>)> {
    let mut found = Vec::new();
    for node in &settings.nodes {
        let answer = timeout(settings.connect_timeout, ask(node)).await;
        let answer =
            answer.unwrap_or_else(|_| Err(format!("no answer within {:?}", settings.connect_timeout)));
        found.push((node.name.to_string(), answer));
    }
    found
}

async fn ask(node: &NodeSettings) -> Result<(bool, String), String> {
    let connector = Connector::new(node).map_err(|e| e.to_string())?;
    let mut probe = Probe::connect(node, &connector).await.map_err(|e| e.to_string())?;
    let report = probe.poll().await.map_err(|e| e.to_string())?;
    Ok((report.in_recovery, report.lsn.to_string()))
}
