//! Clusters of which everybody but the monitor has to prove who they are.

use std::fs;
use std::time::Instant;

use tidegate::demo::cluster::{Cluster, Server};

use super::proxy::{PATIENCE, value};

/// With that many standbys, those roles, and these rules behind the monitor's own.
pub(crate) async fn guarded(standbys: usize, roles: &str, rules: &str) -> Cluster {
    let cluster = Cluster::start(standbys).unwrap();
    cluster.primary().execute(roles).await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    set_rules(&cluster, rules).await;
    cluster
}

/// Replaces the rules of all servers; the monitors and the standbys keep their way in.
pub(crate) async fn set_rules(cluster: &Cluster, rules: &str) {
    for server in cluster.servers() {
        let own =
            "host all postgres,watcher 127.0.0.1/32 trust\nhost replication postgres 127.0.0.1/32 trust\n";
        fs::write(server.data.join("pg_hba.conf"), format!("{own}{rules}\n")).unwrap();
        reload(server).await;
    }
}

/// Has a server read its files anew, and waits until it has.
pub(crate) async fn reload(server: &Server) {
    // It says so before it has done it: the next connection goes by the new files when the old one has seen them.
    let client = server.connect().await.unwrap();
    let before = value(&client, "SELECT pg_conf_load_time()").await;
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let began = Instant::now();
    while value(&client, "SELECT pg_conf_load_time()").await == before {
        assert!(began.elapsed() < PATIENCE, "the server does not reload");
    }
}
