//! Owns every machine on this host and decides when each one starts, pauses and ends.
//!
//! A sandbox is one [`driver`] task with one [`lifecycle`], the policy, and one [`gate`], which every lease passes. Read
//! `lifecycle` first. The driver performs its effects: [`start`] makes a machine from a snapshot, [`guest_init`] gives the
//! guest its identity, [`snapshot`] captures a machine, and [`running`] is a machine with the resources it needs. [`Pool`]
//! implements `pool_api::Node` and finds the driver of each call.
//!
//! ```text
//!  enter --> gate --open--> lease                     (without the driver)
//!              | shut
//!              v
//!            driver --input--> lifecycle --effects--> start, snapshot, ...
//!              ^                                          |
//!              +---------------- input -------------------+
//! ```
//!
//! On disk, below the data directory: `snapshots` and `staging` (of the snapshotter), `sandboxes/<id>`
//! ([`sandbox_dir`]), `templates/<name>.json`, `kept/<snapshot>.json` ([`retention`]), and `run/<n>`, the run directory
//! of each monitor ([`run_dir`]).

#![forbid(unsafe_code)]

mod backoff;
mod blank_pool;
mod blocking;
mod broken;
mod capacity;
mod config;
mod disk_space;
mod driver;
mod durable_file;
mod eviction;
mod fsfreeze;
mod gate;
mod guest_init;
mod host;
mod idle;
mod lease;
mod lifecycle;
mod pool;
mod recovery;
mod registry;
mod retention;
mod run_dir;
mod running;
mod sandbox_dir;
mod shared_error;
mod snapshot;
mod start;
mod start_permits;
mod start_plan;
mod template;
mod top_layer;

pub use self::{
    capacity::{Limits, ReleaseRatio},
    config::{Artefacts, BlankCount, Config},
    pool::{Pool, StartError},
};
