//! What lies in sockets, unread.

use std::time::{Duration, Instant};

use super::proxy::PATIENCE;

/// Waits until something that nobody has read yet, a new connection too, has come to a socket on this machine of which that
/// holds: of its own port, and of its peer's.
pub(crate) async fn wait_unread(holds: impl Fn(u16, u16) -> bool) {
    let port = |address: &str| {
        let (_, port) = address.split_once(':').unwrap();
        u16::from_str_radix(port, 16).unwrap()
    };
    let began = Instant::now();
    loop {
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let unread = sockets.lines().skip(1).any(|line| {
            // Both addresses, the state, and the queues.
            let fields: Vec<_> = line.split_whitespace().collect();
            holds(port(fields[1]), port(fields[2])) && !fields[4].ends_with(":00000000")
        });
        if unread {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "nothing comes");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
