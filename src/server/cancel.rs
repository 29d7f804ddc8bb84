//! Cancel requests.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::timeout;

use crate::net::{Connector, Way};
use crate::wire::build;

/// Asks a node to cancel what the process `pid` runs, and waits until the node has taken note: it
/// closes the connection when it has sent the signal.
///
/// # Errors
/// The node could not be reached within `limit`.
pub async fn cancel(node: &Connector, pid: u32, key: &[u8], limit: Duration) -> io::Result<()> {
    let talk = async {
        // The same way as the connection that it is for, or at least one no worse.
        let way = node.ways().first().copied().unwrap_or(Way::Plain);
        let mut stream = node.connect(way).await?;
        let mut buffer = BytesMut::with_capacity(512);
        build::cancel_request(&mut buffer, pid, key);
        stream.write_all(&buffer).await?;
        buffer.clear();
        stream.read(&mut buffer).await.map(|_| ())
    };
    timeout(limit, talk).await?
}
