//! Tidegate against real servers: a primary and two standbys that the tests themselves start.

mod support;

mod appendix_a;
mod bonds;
mod bulk;
mod cancel;
mod clients;
mod demo;
mod ended;
mod fairness;
mod files;
mod freshness;
mod heavy;
mod layers;
mod logins;
mod operation;
mod placement;
mod pooling;
mod proof;
mod protocol;
mod routing;
mod security;
mod sessions;
mod setup;
mod strangers;
mod tls;
mod transcripts;
mod twins;
