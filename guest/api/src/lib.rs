//! The protocol between the host and the guest agent.
//!
//! A guest has three vsock ports. On [`HOST_VSOCK_PORT`] the agent serves HTTP/1.1 requests of the host itself: [`client`]
//! checks its health, reads its [`Metrics`], freezes its disk for a snapshot, and assigns clock, entropy and identity with
//! an [`InitRequest`]. On [`AGENT_VSOCK_PORT`] it serves clients whose bytes the host relays, and refuses the host's
//! requests. A stream to [`RELAY_VSOCK_PORT`] begins with a [`relay`] preamble that selects a TCP port of the guest, and
//! then carries the bytes of that port.

#![forbid(unsafe_code)]

pub mod client;
pub mod envd;
mod init;
mod metrics;
pub mod relay;

pub use self::{
    client::AgentError,
    init::{Entropy, Hostname, InitRequest, InvalidInit, MachineId, Token},
    metrics::Metrics,
    relay::RelayError,
};

/// The vsock port for requests of the host itself. Never relay a client's bytes to it.
pub const HOST_VSOCK_PORT: u32 = 1025;

/// The vsock port for clients. Programs in the guest use the TCP port with the same number.
pub const AGENT_VSOCK_PORT: u32 = envd::AGENT_PORT as u32;

/// The vsock port for streams to TCP ports of the guest.
pub const RELAY_VSOCK_PORT: u32 = 1024;
