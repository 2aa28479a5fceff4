//! The guest agent: pid 1 of a guest. It mounts file systems, reaps processes, serves the envd API and relays ports.
//!
//! ```text
//! host ── vsock 1025 ───► router ──► /health /init /freeze /unfreeze /warm /metrics  (requests of the host itself)
//! host ── vsock 49983 ──► router ──► /files, process.Process/*, filesystem.Filesystem/*  (requests of E2B clients)
//! host ── vsock 1024 ───► relay ──► 127.0.0.1:port, [::1]:port
//! guest programs ── tcp 49983 ──► router, as clients
//! ```
//!
//! Start with [`serve`] and `router`. Handlers share [`AgentState`]: `init_request`, `files` and `services` use it, and
//! the modules below them (`process`, `filesystem`, `rpc`, `disk`) do not know it.
//!
//! If the host interprets guest kernel mode, a system call takes a millisecond. So there is one thread, and requests
//! make as few calls as possible. The machine can be snapshotted and forked between any two instructions: no timeout
//! depends on the wall clock, and the host assigns clock, entropy and identity with each init request.

#![deny(unsafe_code)]

pub mod pid1;
pub mod serve;

mod access;
mod cors;
mod create_dirs;
mod disk;
mod file_metadata;
mod files;
mod filesystem;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod guest_config;
mod hooks;
mod init_request;
mod kernel;
mod messages;
mod metrics;
mod path;
mod process;
mod relay;
mod request_body;
mod response;
mod router;
mod rpc;
mod services;
mod state;
#[allow(unsafe_code)]
mod sys;
mod user;

pub use self::{
    kernel::Kernel,
    process::Reap,
    router::Peer,
    state::{AgentState, Config},
    sys::LinuxKernel,
};
