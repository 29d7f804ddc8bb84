//! Moves frames between a client and its lease.
