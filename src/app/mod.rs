//! Wiring: from settings to running threads and back.
