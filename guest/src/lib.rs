//! Pid 1 inside: mounts, reaps, serves the envd API, relays ports, survives being forked.
//!
//! ```text
//! host ── vsock 1025 ───► agent ──► /health /init /freeze /unfreeze /warm /metrics  (the host's own words)
//! host ── vsock 49983 ──► agent ──► /files, process.Process/*, filesystem.Filesystem/*  (what E2B's clients call)
//! host ── vsock 1024 ───► relay ──► 127.0.0.1:port, [::1]:port
//! guest programs ── tcp 49983 ──► agent, as callers
//! ```
//!
//! Where the host interprets guest kernel mode a system call costs a millisecond, so there is one thread, and a request
//! does as little as it can. A machine can be frozen and come back as another one between any two instructions: nothing
//! here measures time by the wall clock, and what the agent is, it is told anew ([`awaken`]).

#![deny(unsafe_code)]

pub mod init;
pub mod serve;

mod access;
mod agent;
mod awaken;
mod cors;
mod disk;
mod files;
mod filesystem;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod hooks;
mod messages;
mod metadata;
mod metrics;
mod path;
mod place;
mod process;
mod relay;
mod respond;
mod rpc;
#[allow(unsafe_code)]
mod sys;
mod user;

pub use self::{
    agent::{Agent, Config, Peer},
    awaken::Kernel,
    process::Reap,
    sys::LinuxKernel,
};
