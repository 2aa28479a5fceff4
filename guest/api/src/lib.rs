//! What the host says to the guest and what it answers.
//!
//! Three vsock ports lead into a guest. On [`HOST_VSOCK_PORT`] the agent speaks HTTP/1.1 with the host itself: [`client`]
//! asks whether it is healthy and how busy ([`Metrics`]), has its disk frozen for a snapshot, and tells it what it is now
//! ([`InitRequest`]). On [`AGENT_VSOCK_PORT`] it serves those whose
//! bytes the host passes on, who must not tell it that. A stream to [`RELAY_VSOCK_PORT`] begins with a [`relay`] preamble
//! that names a TCP port of the guest, and carries that port's bytes from then on.

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

/// Where the host itself speaks to the guest agent. Never connect a caller's bytes to it.
pub const HOST_VSOCK_PORT: u32 = 1025;

/// Where the guest agent serves callers, as a vsock port. It serves the same on the TCP port of this number for programs
/// in the guest.
pub const AGENT_VSOCK_PORT: u32 = envd::AGENT_PORT as u32;

/// Where the guest takes streams to be relayed to one of its TCP ports.
pub const RELAY_VSOCK_PORT: u32 = 1024;
