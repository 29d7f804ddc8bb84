//! Cancel requests.

use std::io;
use std::time::Duration;

use bytes::BytesMut;

use crate::net::timers::timeout;
use crate::net::{Connector, Stream};
use crate::wire::build;

/// Asks a node to cancel what the process `pid` runs, and waits until the node has taken note: it
/// closes the connection when it has sent the signal.
///
/// # Errors
/// The node could not be reached within `limit`.
pub async fn cancel(node: &Connector, pid: u32, key: &[u8], limit: Duration) -> io::Result<()> {
    let talk = async {
        let mut stream = connect(node).await?;
        let mut buffer = BytesMut::with_capacity(512);
        build::cancel_request(&mut buffer, pid, key);
        stream.write_all(&buffer).await?;
        buffer.clear();
        stream.read(&mut buffer).await.map(|_| ())
    };
    timeout(limit, talk).await?
}

/// By the first way that works: the connection that it is for has come by one of them.
async fn connect(node: &Connector) -> io::Result<Stream> {
    let mut last = io::Error::other("there is no way to the node");
    for way in node.ways() {
        match node.connect(*way).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}
