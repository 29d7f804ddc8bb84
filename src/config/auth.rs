//! `[auth]`: from what is written to who may come in.

use std::time::Duration;

use super::env::expand;
use super::error::ConfigError;
use super::raw::{Auth, Raw};
use super::settings::{AuthSettings, UserSettings};
use super::units::duration;
use crate::auth::{IdentMaps, LineError, Rules, Stored};

/// What is believed of a role for so long, unless the configuration says otherwise.
const CACHE: Duration = Duration::from_secs(10);

/// Who may come in, and how that is proven.
///
/// # Errors
/// The first value that cannot be used.
pub fn auth(raw: &Raw, lookup: &dyn Fn(&str) -> Option<String>) -> Result<AuthSettings, ConfigError> {
    let Auth { method, rules, maps, query, cache, max_logins, .. } = &raw.auth;
    let rules = match (method.as_deref().map(str::trim), rules) {
        (None, Some(lines)) => Rules::parse(lines).map_err(|error| bad_line("auth.rules", &error))?,
        (None | Some("scram"), None) => Rules::default(),
        (Some("trust"), None) => Rules::parse(&["host all all all trust", "host replication all all trust"])
            .map_err(|error| bad_line("auth.method", &error))?,
        (Some(_), Some(_)) => {
            return Err(ConfigError::value(
                "auth.method",
                "...",
                "write either auth.method or auth.rules: the rules name their methods themselves",
            ));
        }
        (Some(other), None) => {
            return Err(ConfigError::value("auth.method", other, r#"write "scram" or "trust""#));
        }
    };
    let maps = maps.as_deref().unwrap_or_default();
    let maps = IdentMaps::parse(maps).map_err(|error| bad_line("auth.maps", &error))?;
    if let Some(map) = rules.iter().filter_map(|rule| rule.map.as_deref()).find(|map| !maps.has(map)) {
        return Err(ConfigError::value("auth.rules", map, "there is no such map in auth.maps"));
    }
    let cache = cache.as_ref().map_or(Ok(CACHE), |text| duration("auth.cache", text))?;
    Ok(AuthSettings {
        rules,
        maps,
        query: query.clone(),
        cache,
        max_logins: max_logins.unwrap_or(1000).clamp(1, 1_000_000),
        users: users(raw, lookup)?,
    })
}

fn bad_line(key: &str, error: &LineError) -> ConfigError {
    let remedy = format!("line {}: {}", error.line, error.problem);
    ConfigError::value(key, error.word.clone(), remedy)
}

fn users(raw: &Raw, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Vec<UserSettings>, ConfigError> {
    let mut users: Vec<UserSettings> = Vec::new();
    for user in &raw.auth.users {
        let name = user.name.clone().filter(|n| !n.is_empty()).ok_or_else(|| ConfigError::Missing {
            key: "auth.users.name".into(),
            remedy: "every [[auth.users]] needs the role's name".into(),
        })?;
        let key = format!("auth.users[{name}]");
        let secret = match (&user.password, &user.verifier) {
            (Some(password), None) => expand(&format!("{key}.password"), password, lookup)?,
            (None, Some(verifier)) => {
                let verifier = expand(&format!("{key}.verifier"), verifier, lookup)?;
                if matches!(Stored::parse(Some(&verifier)), Stored::Nothing) {
                    return Err(ConfigError::value(
                        format!("{key}.verifier"),
                        "...",
                        "write rolpassword of pg_authid, which begins with SCRAM-SHA-256$ or md5",
                    ));
                }
                verifier
            }
            _ => {
                return Err(ConfigError::Missing { key, remedy: "give either password or verifier".into() });
            }
        };
        if users.iter().any(|u| u.name == name) {
            return Err(ConfigError::value("auth.users", name, "this user is named twice"));
        }
        users.push(UserSettings { name, secret });
    }
    Ok(users)
}
