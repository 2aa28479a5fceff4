//! The whole of Catnap as a user has it: the real gateway, the real monitor and the real Linux guest, over HTTP.
//!
//! `catnap-vmm` must have been built beside `catnap`, and the guest's kernel and root disk must be in `CATNAP_GUEST_DIR`,
//! or in `guest` beside the folder of the programs. Where there is no `/dev/kvm` every test says so and does nothing.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod clients;
mod clock;
mod commands;
mod crashes;
mod damage;
mod forking;
mod idle;
mod impostor;
mod memory;
mod rig;
mod startup;
mod waking;
