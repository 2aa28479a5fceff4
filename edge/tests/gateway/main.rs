//! The edge over real loopback HTTP, with a fake host behind it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod carrying;
mod rig;
mod waking;
