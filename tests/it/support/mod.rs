//! What the tests stand on.

pub(crate) mod certs;
pub(crate) mod guarded;
pub(crate) mod peer;
pub(crate) mod proxy;
pub(crate) mod psql;
pub(crate) mod scram;
pub(crate) mod sockets;
pub(crate) mod two_faced;
pub(crate) mod wire;

use std::sync::OnceLock;

use tidegate::demo::cluster::Cluster;

pub(crate) use proxy::Proxy;

/// The cluster that tests share which leave it as it was. It ends with the process.
pub(crate) fn shared() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::start(2).unwrap())
}

/// A database of its own on the shared cluster, there on all nodes.
pub(crate) async fn database(name: &str) {
    shared().primary().execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    shared().wait_caught_up().await.unwrap();
}
