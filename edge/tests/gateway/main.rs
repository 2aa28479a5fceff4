//! The edge over real loopback HTTP, with a fake host behind it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod carrying;
mod hostile;
mod metrics;
mod paths;
mod resets;
mod rig;
mod secure;
mod waking;
