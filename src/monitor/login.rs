//! Connections of the monitor's own, as the user of the node's URL.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{Client, Config, NoTls};

use super::probe::describe;
use crate::config::settings::NodeSettings;
use crate::net::Connector;

/// Connects and logs in. The connection's own task ends with the client.
///
/// # Errors
/// What went wrong, for a log.
pub async fn connect(
    node: &NodeSettings,
    connector: &Connector,
    database: Option<&str>,
    limit: Duration,
) -> Result<Client, String> {
    let mut refused = None;
    for way in connector.ways() {
        let attempt = async {
            let stream = connector.connect(*way).await.map_err(|error| (error.to_string(), false))?;
            // What TLS there is, is under way already.
            let login = config(node, database).connect_raw(stream, NoTls).await;
            login.map_err(|error| (describe(&error), error.as_db_error().is_some()))
        };
        match timeout(limit, attempt).await {
            Ok(Ok((client, connection))) => {
                tokio::task::spawn_local(async move {
                    // Its errors are seen by whoever uses the client.
                    let _ = connection.await;
                });
                return Ok(client);
            }
            // By another way the node may take it.
            Ok(Err((reason, true))) => refused = refused.or(Some(reason)),
            Ok(Err((reason, false))) => return Err(refused.unwrap_or(reason)),
            Err(_) => return Err(format!("no answer within {limit:?}")),
        }
    }
    Err(refused.unwrap_or_default())
}

fn config(node: &NodeSettings, database: Option<&str>) -> Config {
    let mut config = Config::new();
    config
        .user(&node.user)
        .dbname(database.unwrap_or(&node.database))
        .application_name("tidegate monitor")
        .ssl_mode(tokio_postgres::config::SslMode::Disable);
    if let Some(password) = &node.password {
        config.password(password);
    }
    config
}
