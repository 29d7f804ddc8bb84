//! The HTTP side: metrics, health, readiness.
