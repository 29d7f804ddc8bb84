//! Settings from the file, the variables and the command line: later ones outweigh.

use std::path::Path;

use super::cli::RunArgs;
use crate::config::{ConfigError, Raw, Settings, env, validate};

/// Reads the configuration that these flags ask for.
///
/// # Errors
/// The file cannot be read, or a value cannot be used.
pub fn load(args: &RunArgs) -> Result<Settings, ConfigError> {
    let mut raw = match &args.config {
        Some(path) => file(path)?,
        None => Raw::default(),
    };
    // Variables that are no UTF-8 are none of ours.
    let variables =
        std::env::vars_os().filter_map(|(n, v)| Some((n.into_string().ok()?, v.into_string().ok()?)));
    env::overlay(&mut raw, variables)?;
    flags(&mut raw, args);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    validate::settings(&raw, cpus, &|name| std::env::var(name).ok())
}

fn file(path: &Path) -> Result<Raw, ConfigError> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::Unreadable { file: file.clone(), message: error.to_string() })?;
    toml::from_str(&text).map_err(|error| ConfigError::Syntax { file, message: message(&text, &error) })
}

/// What an error of the file says, without any value: that may be a secret.
fn message(text: &str, error: &toml::de::Error) -> String {
    let said = error.message();
    // Keys stand in backquotes, values in double quotes or behind a type's name.
    let harmless = said.starts_with("unknown field") || said.starts_with("missing field");
    let said = if harmless { said } else { "this is not valid here: see tidegate.example.toml for the form" };
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => format!("{said} (line {})", before.matches('\n').count() + 1),
        None => said.to_owned(),
    }
}

fn flags(raw: &mut Raw, args: &RunArgs) {
    let over = |place: &mut Option<String>, flag: &Option<String>| {
        if flag.is_some() {
            place.clone_from(flag);
        }
    };
    over(&mut raw.listen, &args.listen);
    over(&mut raw.listen_replica, &args.listen_replica);
    over(&mut raw.http, &args.http);
    over(&mut raw.auth.method, &args.auth);
    over(&mut raw.log.format, &args.log_format);
    if !args.nodes.is_empty() {
        raw.nodes = Some(args.nodes.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_file_shows_its_line_and_no_value() {
        for (text, expected) in [
            ("[pool]\nsice = 'hunter2'", "unknown field `sice`"),
            ("nodes = 'postgres://u:hunter2@h/db'", "this is not valid here"),
            ("[[auth.users]]\npassword = hunter2", "this is not valid here"),
        ] {
            let error = toml::from_str::<Raw>(text).err().unwrap();
            let said = message(text, &error);
            assert!(
                said.starts_with(expected) && said.contains("(line ") && !said.contains("hunter2"),
                "{said}"
            );
        }
    }

    const EXAMPLE: &str = include_str!("../../tidegate.example.toml");

    /// Every key stands in the example, and what it says is the default.
    #[test]
    fn the_example_is_complete_and_tells_the_defaults() {
        let uncommented: String = EXAMPLE
            .lines()
            .map(|line| match line.strip_prefix("#= ") {
                Some(key) => format!("{key}\n"),
                None => format!("{line}\n"),
            })
            .collect();
        let read = |text: &str| {
            let raw: Raw = toml::from_str(text).unwrap();
            validate::settings(&raw, 2, &|_| Some("secret".to_owned())).unwrap()
        };
        let mut full = read(&uncommented);
        let bare = read(EXAMPLE);
        // Keys without a default show an example of a value instead.
        assert_eq!(full.max_staleness.take(), Some(std::time::Duration::from_secs(30)));
        assert_eq!(full.listen_replica.take().map(|a| a.port()), Some(6433));
        assert_eq!(full.fallback_per_second.take(), Some(1000));
        assert_eq!(
            full.safe_functions.len() + full.primary_functions.len() + full.primary_relations.len(),
            3
        );
        full.safe_functions.clear();
        full.primary_functions.clear();
        full.primary_relations.clear();
        assert_eq!(full, bare);
        let source = include_str!("../config/raw.rs");
        for key in
            source.lines().filter_map(|l| l.trim().strip_prefix("pub ")?.split_once(": ")).map(|(key, _)| key)
        {
            let mentioned = EXAMPLE.lines().any(|l| {
                let l = l.trim_start_matches("#= ");
                l.trim_start_matches(['#', ' ']).starts_with(&format!("{key} ="))
                    || l.starts_with(&format!("[{key}]"))
                    || l.ends_with(&format!("{key}]]"))
            });
            assert!(mentioned, "{key} is missing in tidegate.example.toml");
        }
    }
}
