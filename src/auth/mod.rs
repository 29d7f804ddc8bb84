//! Login as state machines over messages: SCRAM-SHA-256 on both sides, md5, users.
