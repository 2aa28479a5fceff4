//! Tests of the HTTP API over a fake host and a real ledger.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod authorization;
mod concurrency;
mod create;
mod disk_only;
mod expiry;
mod fork;
mod idempotency;
mod lifetime;
mod list;
mod logs;
mod metrics;
mod network;
mod pause_resume;
mod quarantine;
mod recovery;
mod rig;
mod rollback;
mod routes;
mod server;
mod snapshots;
mod templates;
mod validation;
