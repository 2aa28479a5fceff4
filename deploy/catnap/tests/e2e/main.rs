//! End-to-end tests over HTTP: the real gateway, the real monitor and the Linux guest.
//!
//! They need `catnap-vmm` beside `catnap`, and the guest kernel and root disk in `CATNAP_GUEST_DIR`, or in `guest` beside
//! the directory of the programs. Without `/dev/kvm` each test prints that it is skipped.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cli;
mod clients;
mod clock;
mod contract;
mod corruption;
mod crashes;
mod disk_only;
mod errors;
mod fork;
mod hostile_agent;
mod idle;
mod jail;
mod restore;
mod rig;
mod startup;
mod wake;
