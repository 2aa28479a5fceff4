//! Owns every machine on this host and decides when each starts, pauses and ends.
//!
//! A sandbox here is one [`driver`] task, one [`lifecycle`] that decides what may happen next, and one [`gate`] that
//! requests pass. Start with `lifecycle`: it is the whole policy. The driver carries out what it says: [`start`] makes a
//! machine of a snapshot and [`awaken`] tells the guest what it is now; [`pause`] writes a machine down; [`live`] is a
//! machine with everything that must outlive it. [`Pool`] finds the right driver and is what others call.
//!
//! ```text
//!  enter --> gate --open--> lease                     (no task is asked)
//!              | shut
//!              v
//!            driver --input--> lifecycle --effects--> start, pause, ...
//!              ^                                          |
//!              +---------------- input -------------------+
//! ```
//!
//! On disk, under the data directory: `snapshots` and `staging` (the snapshotter's), `sandboxes/<id>` ([`home`]),
//! `templates/<name>.json`, `kept/<snapshot>.json` ([`kept`]), and `run/<n>`, a directory for each monitor ([`run_dir`]).

#![forbid(unsafe_code)]

mod awaken;
mod capacity;
mod cause;
mod config;
mod driver;
mod gate;
mod home;
mod host;
mod idle;
mod kept;
mod lease;
mod lifecycle;
mod live;
mod pause;
mod pool;
mod reattach;
mod registry;
mod run_dir;
mod shelf;
mod start;
mod template;
mod thaw;

pub use self::{
    capacity::Limits,
    config::{Artefacts, Config, ShelfSize},
    pool::{Pool, StartError},
};
