//! `tidegate explain`: where a statement would go, and why.

use std::io::{self, Write};
use std::time::Duration;

use super::cli::ExplainArgs;
use super::exit::ExitCode;
use crate::config::{ConfigError, url};
use crate::monitor::catalogs::{overrides_of, read_once};
use crate::sql::command::Modes;
use crate::sql::{Access, Catalog, Command, Dialect, HintedRoute, classify, hint, statements};

/// How long connecting to a node may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Prints where the statement would go.
///
/// # Errors
/// The node's URL cannot be read.
pub fn explain(args: &ExplainArgs) -> Result<ExitCode, ConfigError> {
    let catalog = match &args.node {
        None => Catalog::builtin(),
        Some(text) => {
            let node = url::node("--node", text)?;
            match read_once(&node, CONNECT) {
                Ok(rows) => Catalog::build(rows, &overrides_of(None)),
                Err(reason) => {
                    return Err(ConfigError::value("--node", node.name.to_string(), reason));
                }
            }
        }
    };
    let text = report(&args.sql, &catalog, args.node.is_some(), args.json);
    // A reader that has gone away needs no answer.
    let _ = writeln!(io::stdout().lock(), "{text}");
    Ok(ExitCode::Ok)
}

/// What `explain` prints.
#[must_use]
pub fn report(sql: &str, catalog: &Catalog, live: bool, json: bool) -> String {
    let dialect = Dialect { standard_conforming_strings: true };
    let class = classify(sql.as_bytes(), catalog, dialect);
    let hinted = hint(sql.as_bytes()).and_then(|h| h.route);
    let (route, why) = match (hinted, class.access, class.first) {
        (Some(HintedRoute::Primary), _, _) => ("primary", "hint"),
        (Some(HintedRoute::Replica), Access::Read, _) => ("replica", "hint"),
        (Some(HintedRoute::Replica), Access::Primary(_), _) => ("refused", "hint"),
        (_, Access::Read, _) => ("replica", "read"),
        (_, _, Command::Begin(Modes { read_only: Some(true), isolation }))
            if isolation != Some(crate::sql::command::Isolation::Serializable) && class.statements == 1 =>
        {
            ("replica", "read_only_transaction")
        }
        (_, Access::Primary(reason), _) => ("primary", reason.label()),
    };
    let each: Vec<_> = statements(sql.as_bytes(), catalog, dialect)
        .filter(|s| s.command != Command::Empty)
        .map(|s| {
            let why = match s.access {
                Access::Read => "read",
                Access::Primary(reason) => reason.label(),
            };
            (why, String::from_utf8_lossy(s.text).into_owned())
        })
        .collect();
    if json {
        let each: Vec<_> =
            each.iter().map(|(why, text)| serde_json::json!({"class": why, "text": text})).collect();
        return serde_json::json!({"route": route, "why": why, "catalog": live, "statements": each})
            .to_string();
    }
    let mut out = format!("route: {route}\nwhy:   {why}");
    for (why, text) in &each {
        out.push_str(&format!("\n  {why:<18} {}", text.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    if !live && class.access != Access::Read {
        out.push_str("\nWithout --node, functions that PostgreSQL does not bring along are unknown.");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn route_and_reason_are_told() {
        let first = |sql: &str| {
            report(sql, &Catalog::builtin(), false, false).lines().take(2).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(first("select 1"), "route: replica why:   read");
        assert_eq!(first("select nextval('s')"), "route: primary why:   function");
        assert_eq!(first("begin read only"), "route: replica why:   read_only_transaction");
        assert_eq!(first("select mine()"), "route: primary why:   unknown_function");
        assert_eq!(
            first("/* tidegate: route=replica */ insert into t values (1)"),
            "route: refused why:   hint"
        );
        let json = report("select 1; delete from t", &Catalog::builtin(), false, true);
        assert!(json.contains(r#""why":"mixed""#), "{json}");
    }
}
