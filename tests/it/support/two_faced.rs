//! A node that speaks nonsense to one role.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::peer::Script;

/// How a node speaks to those who log in as `known`; to all others it speaks as itself.
#[derive(Clone)]
pub(crate) enum Tongue {
    Says(Vec<u8>),
    /// Adds so many letters to the nonce, and asks for so many rounds of hashing.
    Scram(usize, &'static str),
}

/// A node before the one with that port; gives its own port.
pub(crate) async fn two_faced(target: u16, tongue: Tongue) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(speak(client, target, tongue.clone()));
        }
    });
    port
}

async fn speak(mut client: TcpStream, target: u16, tongue: Tongue) -> Option<()> {
    let hello = packet(&mut client, 0).await?;
    if !hello.windows(11).any(|bytes| bytes == b"user\0known\0") {
        let mut server = TcpStream::connect(("127.0.0.1", target)).await.ok()?;
        server.write_all(&hello).await.ok()?;
        tokio::io::copy_bidirectional(&mut client, &mut server).await.ok()?;
        return None;
    }
    match tongue {
        Tongue::Says(bytes) => client.write_all(&bytes).await.ok()?,
        Tongue::Scram(letters, iterations) => {
            let ask =
                |kind: u8, data: &[u8]| Script::default().message(b'R', &[&[0, 0, 0, kind], data].concat()).0;
            client.write_all(&ask(10, b"SCRAM-SHA-256\0\0")).await.ok()?;
            let first = String::from_utf8_lossy(&packet(&mut client, 1).await?).into_owned();
            let nonce = format!("{}{}", first.split_once("r=")?.1, "x".repeat(letters));
            let server_first = format!("r={nonce},s=AAAAAAAAAAAAAAAAAAAAAA==,i={iterations}");
            client.write_all(&ask(11, server_first.as_bytes())).await.ok()?;
            packet(&mut client, 1).await?;
        }
    }
    Some(())
}

/// The next message: its length stands behind so many bytes.
async fn packet(client: &mut TcpStream, before: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; before + 4];
    client.read_exact(&mut bytes).await.ok()?;
    let len = u32::from_be_bytes(bytes[before..].try_into().unwrap()) as usize;
    bytes.resize(before + len, 0);
    client.read_exact(&mut bytes[before + 4..]).await.ok()?;
    Some(bytes)
}
