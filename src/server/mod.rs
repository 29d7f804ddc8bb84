//! One connection to PostgreSQL: dial, log in, reset, cancel.
