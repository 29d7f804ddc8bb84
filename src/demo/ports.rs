//! Ports for servers that are about to start.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

/// No port below is taken: there are those of well-known services.
const FIRST: u32 = 10_240;

/// So many there are at least, whatever range outgoing connections have.
const LEAST: u32 = 1_024;

/// Ports that nobody listens on, all found before any is used.
///
/// They are none of those that the system gives to outgoing connections: of such a one, somebody else's connection might
/// have got hold before a server listens there.
///
/// # Errors
/// As the operating system says; or none is free.
pub fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let end = range.split_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(32_768);
    let candidates = end.clamp(FIRST + LEAST, 1 << 16) - FIRST;
    // Processes begin far from each other.
    let begin = std::process::id().wrapping_mul(0x9e37_79b9);
    let mut listeners = Vec::with_capacity(count);
    for _ in 0..candidates {
        if listeners.len() == count {
            break;
        }
        let port = FIRST + begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % candidates;
        let address = ("127.0.0.1", u16::try_from(port).unwrap_or(u16::MAX));
        match TcpListener::bind(address) {
            Ok(listener) => listeners.push((address.1, listener)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
    if listeners.len() < count {
        return Err(io::Error::other("too few ports are free"));
    }
    Ok(listeners.into_iter().map(|(port, _)| port).collect())
}
