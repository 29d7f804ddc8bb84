//! `tidegate check --print-setup`: what a superuser runs once, so that the monitor needs not be one.

use std::io::{self, Write};

use super::exit::ExitCode;
use crate::config::Settings;

/// Prints the SQL.
#[must_use]
pub fn print(settings: &Settings) -> ExitCode {
    match io::stdout().lock().write_all(setup_sql(settings).as_bytes()) {
        Ok(()) => ExitCode::Ok,
        Err(_) => ExitCode::Internal,
    }
}

/// The SQL for the role in the first node's URL, to be run with `psql`. Holds no password.
#[must_use]
pub fn setup_sql(settings: &Settings) -> String {
    let Some(first) = settings.nodes.first() else { return String::new() };
    let alike = settings.nodes.iter().all(|n| n.user == first.user && n.database == first.database);
    let others = if alike {
        ""
    } else {
        "\n-- This is for the first node's URL. Others name another user or database: print and run it for those, too."
    };
    format!(
        include_str!("setup.sql"),
        // In a comment, which the end of a line would end.
        database = format!("{:?}", first.database),
        others = others,
        name = quoted('\'', &first.user),
        role = quoted('"', &first.user),
    )
}

/// As a literal or an identifier. A backslash is none of its business with `standard_conforming_strings`, and `psql`
/// looks for no variables within quotes.
fn quoted(quote: char, text: &str) -> String {
    let doubled = text.replace(quote, &format!("{quote}{quote}"));
    format!("{quote}{doubled}{quote}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Raw, validate};

    fn sql(urls: &[&str]) -> String {
        let mut raw = Raw { nodes: Some(urls.iter().map(|u| (*u).to_owned()).collect()), ..Raw::default() };
        raw.auth.method = Some("trust".to_owned());
        setup_sql(&validate::settings(&raw, 1, &|_| None).unwrap())
    }

    #[test]
    fn names_are_quoted_and_no_password_is_shown() {
        let url = "postgres://it%27s%20%22me%22%0A\\!:hunter2@a/d%0Ab";
        let text = sql(&[url]);
        assert!(text.contains("GRANT pg_monitor TO \"it's \"\"me\"\"\n\\!\";"), "{text}");
        assert!(text.contains("rolname = 'it''s \"me\"\n\\!')"), "{text}");
        assert!(text.contains("in the database \"d\\nb\"; as often"), "{text}");
        assert!(!text.contains("hunter2") && !text.contains("Others name"), "{text}");
        assert!(sql(&["postgres://a@h/d", "postgres://b@i/d"]).contains("\n-- This is for the first"));
    }
}
