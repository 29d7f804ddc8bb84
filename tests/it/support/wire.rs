//! A network between the proxy and a node, which can go silent, or break.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Passes connections on to a port.
pub(crate) struct Wire {
    pub(crate) port: u16,
    /// Connections of an older generation pass nothing on any more, not even their end.
    generation: Arc<AtomicU32>,
    /// With each change the connections that there are end.
    breaks: watch::Sender<u32>,
}

impl Wire {
    pub(crate) async fn to(target: u16) -> Self {
        Self::that_ends(target, b"").await
    }

    /// The same, but for a connection on which the server says `last`: that is not passed on, and its end is.
    pub(crate) async fn that_ends(target: u16, last: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let generation = Arc::new(AtomicU32::new(0));
        let (breaks, broken) = watch::channel(0);
        let current = generation.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let born = current.load(Ordering::SeqCst);
                let both = [(from_client, to_server, &b""[..]), (from_server, to_client, last)];
                for (from, to, last) in both {
                    let (current, mut broken) = (current.clone(), broken.clone());
                    broken.mark_unchanged();
                    tokio::spawn(async move {
                        tokio::select! {
                            () = pass(from, to, last, (born, current)) => {}
                            _ = broken.changed() => {}
                        }
                    });
                }
            }
        });
        Self { port, generation, breaks }
    }

    /// From now on nobody hears anything on the connections that there are; new ones work.
    pub(crate) fn silence(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Ends all connections; new ones work.
    pub(crate) fn cut(&self) {
        self.breaks.send_modify(|n| *n += 1);
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    last: &[u8],
    (born, generation): (u32, Arc<AtomicU32>),
) {
    let mut buffer = vec![0; 65536];
    loop {
        let read = from.read(&mut buffer).await;
        if generation.load(Ordering::SeqCst) != born {
            std::future::pending::<()>().await;
        }
        match read {
            Ok(n) if let Some(at) = memchr::memmem::find(&buffer[..n], last).filter(|_| !last.is_empty()) => {
                let _ = to.write_all(&buffer[..at]).await;
                return;
            }
            Ok(n) if n > 0 && to.write_all(&buffer[..n]).await.is_ok() => {}
            _ => return,
        }
    }
}
