//! `TIDEGATE_` variables: each stands for one key of the file, and outweighs it.

use super::error::ConfigError;
use super::raw::Raw;

/// Variables that are read elsewhere.
const OTHERS: [&str; 2] = ["TIDEGATE_LOG", "TIDEGATE_CONFIG"];

/// Lays variables over the file. `TIDEGATE_NODES` holds URLs with commas between; lists of names likewise.
///
/// # Errors
/// A variable stands for no key, or its value cannot be read.
pub fn overlay(
    raw: &mut Raw,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<(), ConfigError> {
    for (name, value) in variables {
        let Some(key) = name.strip_prefix("TIDEGATE_") else { continue };
        // Kubernetes sets such variables for a Service named tidegate.
        let service = key == "PORT" || key.starts_with("PORT_") || key.starts_with("SERVICE_");
        if OTHERS.contains(&name.as_str()) || service {
            continue;
        }
        set(raw, &name, key, value)?;
    }
    Ok(())
}

fn set(raw: &mut Raw, name: &str, key: &str, value: String) -> Result<(), ConfigError> {
    let list = |value: &str| {
        value.split(',').map(|v| v.trim().to_owned()).filter(|v| !v.is_empty()).collect::<Vec<_>>()
    };
    let number = |value: &str| {
        value.trim().parse::<usize>().map_err(|_| ConfigError::value(name, value, "write a whole number"))
    };
    let truth = |value: &str| {
        value.trim().parse::<bool>().map_err(|_| ConfigError::value(name, value, "write true or false"))
    };
    match key {
        "LISTEN" => raw.listen = Some(value),
        "LISTEN_REPLICA" => raw.listen_replica = Some(value),
        "HTTP" => raw.http = Some(value),
        "NODES" => raw.nodes = Some(list(&value)),
        "WORKERS" => raw.workers = Some(number(&value)?),
        "CLIENT_PLACEMENT" => raw.client_placement = Some(value),
        "IO_URING" => raw.io_uring = Some(truth(&value)?),
        "DRAIN_TIMEOUT" => raw.drain_timeout = Some(value),
        "HTTP_FROM" => raw.http_from = Some(list(&value)),
        "AUTH_QUERY" => raw.auth.query = Some(value),
        "AUTH_CACHE" => raw.auth.cache = Some(value),
        "AUTH_MAX_LOGINS" => raw.auth.max_logins = Some(number(&value)?),
        // Rules have commas of their own.
        "AUTH_RULES" => raw.auth.rules = Some(value.split([';', '\n']).map(str::to_owned).collect()),
        "AUTH_MAPS" => raw.auth.maps = Some(value.split([';', '\n']).map(str::to_owned).collect()),
        "AUTH" | "AUTH_METHOD" => raw.auth.method = Some(value),
        "TLS_MODE" => raw.tls.mode = Some(value),
        "TLS_CERT" => raw.tls.cert = Some(value),
        "TLS_KEY" => raw.tls.key = Some(value),
        "TLS_CLIENT_CA" => raw.tls.client_ca = Some(value),
        "LOG_FORMAT" => raw.log.format = Some(value),
        "FRESHNESS_CONSISTENCY" => raw.freshness.consistency = Some(value),
        "FRESHNESS_REPLICA_WAIT" => raw.freshness.replica_wait = Some(value),
        "FRESHNESS_MAX_STALENESS" => raw.freshness.max_staleness = Some(value),
        "FRESHNESS_POLL_INTERVAL" => raw.freshness.poll_interval = Some(value),
        "FRESHNESS_POLL_INTERVAL_BUSY" => raw.freshness.poll_interval_busy = Some(value),
        "FRESHNESS_POLL_TIMEOUT" => raw.freshness.poll_timeout = Some(value),
        "FRESHNESS_FALLBACK_PER_SECOND" => {
            raw.freshness.fallback_per_second = Some(u32::try_from(number(&value)?).unwrap_or(u32::MAX));
        }
        "FRESHNESS_OVER_BUDGET" => raw.freshness.over_budget = Some(value),
        "POOL_SIZE" => raw.pool.size = Some(number(&value)?),
        "POOL_MAX_CLIENTS" => raw.pool.max_clients = Some(number(&value)?),
        "POOL_TIMEOUT" => raw.pool.timeout = Some(value),
        "POOL_SERVER_IDLE_TIMEOUT" => raw.pool.server_idle_timeout = Some(value),
        "POOL_SERVER_LIFETIME" => raw.pool.server_lifetime = Some(value),
        "POOL_CONNECT_TIMEOUT" => raw.pool.connect_timeout = Some(value),
        "POOL_LOGIN_TIMEOUT" => raw.pool.login_timeout = Some(value),
        "POOL_PREPARED_STATEMENTS" => raw.pool.prepared_statements = Some(number(&value)?),
        "ROUTING_SAFE_FUNCTIONS" => raw.routing.safe_functions = Some(list(&value)),
        "ROUTING_PRIMARY_FUNCTIONS" => raw.routing.primary_functions = Some(list(&value)),
        "ROUTING_PRIMARY_RELATIONS" => raw.routing.primary_relations = Some(list(&value)),
        _ => return Err(ConfigError::UnknownVariable { name: name.to_owned() }),
    }
    Ok(())
}

/// Replaces `${NAME}` by the variable of that name, as the file does for secrets.
///
/// # Errors
/// There is no such variable, or the brace is not closed.
pub fn expand(key: &str, text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, ConfigError> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("${") {
        out.push_str(before);
        let (name, tail) = behind
            .split_once('}')
            .ok_or_else(|| ConfigError::value(key, "${...", "close the brace behind the variable's name"))?;
        out.push_str(&lookup(name).ok_or_else(|| {
            ConfigError::value(
                key,
                format!("${{{name}}}"),
                format!("the variable {name} is not set; export it"),
            )
        })?);
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_variable_is_refused_and_others_are_left_alone() {
        let mut raw = Raw::default();
        let vars = |name: &str| [(name.to_owned(), "x".to_owned())];
        assert!(overlay(&mut raw, vars("HOME")).is_ok());
        for name in ["TIDEGATE_LOG", "TIDEGATE_PORT", "TIDEGATE_SERVICE_HOST", "TIDEGATE_PORT_6432_TCP"] {
            assert!(overlay(&mut raw, vars(name)).is_ok());
        }
        assert_eq!(
            overlay(&mut raw, vars("TIDEGATE_LISTNE")),
            Err(ConfigError::UnknownVariable { name: "TIDEGATE_LISTNE".into() })
        );
        assert!(overlay(&mut raw, vars("TIDEGATE_POOL_SIZE")).is_err());
    }

    #[test]
    fn variables_stand_in_for_secrets() {
        let lookup = |name: &str| (name == "PW").then(|| "s3cret".to_owned());
        assert_eq!(expand("k", "a${PW}b", &lookup), Ok("as3cretb".to_owned()));
        assert!(expand("k", "${NO}", &lookup).unwrap_err().to_string().contains("NO is not set"));
        assert!(expand("k", "${PW", &lookup).is_err());
    }
}
