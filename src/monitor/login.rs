//! Connections on which the monitor asks what is no poll, as the user of the node's URL.

use std::time::Duration;

use tokio_postgres::{Client, Config, NoTls};

use crate::config::settings::NodeSettings;
use crate::net::Connector;
use crate::net::timers::timeout;

/// What went wrong with a connection, for a log.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    message: String,
    sqlstate: Option<String>,
}

impl Failure {
    /// What the server said, if it was the server that said something.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        self.sqlstate.as_deref()
    }

    fn of(error: &tokio_postgres::Error) -> Self {
        Self { message: describe(error), sqlstate: error.code().map(|code| code.code().to_owned()) }
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self { message, sqlstate: None }
    }
}

impl From<&str> for Failure {
    fn from(message: &str) -> Self {
        message.to_owned().into()
    }
}

/// Connects and logs in. The connection's own task ends with the client.
///
/// # Errors
/// The node cannot be reached, or refuses the login.
pub async fn connect(
    node: &NodeSettings,
    connector: &Connector,
    database: Option<&str>,
    limit: Duration,
) -> Result<Client, Failure> {
    let mut refused = None;
    for way in connector.ways() {
        let attempt = async {
            let stream = connector.connect(*way).await.map_err(|error| Failure::from(error.to_string()))?;
            // What TLS there is, is under way already.
            let login = config(node, database).connect_raw(stream, NoTls).await;
            login.map_err(|error| Failure::of(&error))
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
            Ok(Err(failure)) if failure.sqlstate.is_some() => refused = refused.or(Some(failure)),
            Ok(Err(failure)) => return Err(refused.unwrap_or(failure)),
            Err(_) => return Err(format!("no answer within {limit:?}").into()),
        }
    }
    Err(refused.unwrap_or("there is no way to the node".into()))
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

/// What an error of `tokio_postgres` says, with its cause.
#[must_use]
pub fn describe(error: &tokio_postgres::Error) -> String {
    use std::error::Error as _;
    match (error.as_db_error(), error.source()) {
        (Some(db), _) => db.to_string(),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}
