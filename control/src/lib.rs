//! The E2B-compatible API: who may have which sandbox, where, how long.
//!
//! [`api`] is the wire; [`sandboxes`] carries out what it asks, on the host ([`pool_api::Node`]) and in the [`ledger`],
//! which outlives every crash; [`reconcile`] makes the two agree at start and after events; [`expiry`] ends what is due;
//! [`sampler`] asks guests how they are.
//! Control is never on the way of a byte: with it down, running sandboxes answer and paused ones wake.

#![forbid(unsafe_code)]

mod api;
mod config;
mod expiry;
mod ledger;
mod network;
mod reconcile;
mod reference;
mod sampler;
mod sandboxes;
mod serve;
mod time;

pub use self::{
    config::Config,
    ledger::{LedgerError, OpenError},
    reconcile::ReconcileError,
    serve::{Control, ServeError, StartError},
};
