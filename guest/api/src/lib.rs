//! What the host says to the guest and what it answers.
//!
//! Two vsock ports lead into a guest. On [`AGENT_VSOCK_PORT`] the agent speaks HTTP/1.1: [`client`] asks whether it is
//! healthy and tells it what it is now ([`InitRequest`]). A stream to [`RELAY_VSOCK_PORT`] begins with a [`relay`]
//! preamble that names a TCP port of the guest, and carries that port's bytes from then on.

#![forbid(unsafe_code)]

pub mod client;
mod init;
pub mod relay;

pub use self::{
    client::AgentError,
    init::{Entropy, Hostname, InitRequest, InvalidInit, MachineId, Token},
    relay::RelayError,
};

/// Where the guest agent serves HTTP, as a vsock port. It serves the same on the TCP port of this number for programs
/// in the guest.
pub const AGENT_VSOCK_PORT: u32 = 49983;

/// Where the guest takes streams to be relayed to one of its TCP ports.
pub const RELAY_VSOCK_PORT: u32 = 1024;
