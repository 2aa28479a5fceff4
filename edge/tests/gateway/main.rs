//! The edge over real loopback HTTP, with a fake host behind it.

mod answers;
mod carrying;
mod rig;
mod waking;
