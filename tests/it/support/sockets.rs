//! What lies in sockets, unread.

use std::time::{Duration, Instant};

use super::proxy::PATIENCE;

/// Waits until something that nobody has read yet has come to a socket on this machine from that port.
pub(crate) async fn wait_unread(peer: u16) {
    wait(|socket| socket.peer == peer).await;
}

/// Waits until somebody who connects to that port is kept waiting.
pub(crate) async fn wait_caller(port: u16) {
    wait(|socket| socket.own == port && socket.listens).await;
}

struct Socket {
    own: u16,
    peer: u16,
    listens: bool,
}

/// Waits until there is something to read from, or to accept by, a socket like that.
async fn wait(is_meant: impl Fn(Socket) -> bool) {
    let port = |address: &str| {
        let (_, port) = address.split_once(':').unwrap();
        u16::from_str_radix(port, 16).unwrap()
    };
    let began = Instant::now();
    loop {
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let there = sockets.lines().skip(1).any(|line| {
            // Both addresses, the state, and the queues, of which the second is what has come.
            let fields: Vec<_> = line.split_whitespace().collect();
            let socket = Socket { own: port(fields[1]), peer: port(fields[2]), listens: fields[3] == "0A" };
            is_meant(socket) && !fields[4].ends_with(":00000000")
        });
        if there {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "nothing comes");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
