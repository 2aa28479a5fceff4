//! The E2B-compatible control API.
//!
//! `http` maps requests to calls of `service`. The service acts on the host ([`pool_api::Node`]), records every
//! sandbox, template and snapshot in the `ledger` (SQLite), and publishes placements to the `coordinator`.
//! `service/reconcile.rs` brings the ledger in line with the host at startup and after events, `service/expiry.rs` ends
//! sandboxes at their deadlines, and `metrics_poller` collects guest metrics.
//! Control is not on the data path: while it is down, running sandboxes serve requests and paused ones wake.

#![forbid(unsafe_code)]

mod config;
mod data_dir;
mod error;
mod http;
mod ids;
mod ledger;
mod metrics_poller;
mod network;
mod reference;
mod serve;
mod service;
mod time;

pub use self::{
    config::Config,
    ledger::{LedgerError, OpenError},
    serve::{Control, ServeError, StartError},
    service::ReconcileError,
};
