//! One client's state: freshness, settings, prepared statements, transaction.
