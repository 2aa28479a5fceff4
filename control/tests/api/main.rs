//! The API over HTTP, with a fake host behind it and a real ledger.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod creating;
mod forking;
mod hostile;
mod lifetime;
mod listing;
mod logs;
mod memory;
mod metrics;
mod networks;
mod never;
mod once;
mod races;
mod rig;
mod rollback;
mod routes;
mod snapshots;
mod tags;
mod templates;
mod waking;
