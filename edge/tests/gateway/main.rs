//! The edge over loopback HTTP, in front of a fake host.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod authorization;
mod budget;
mod clients;
mod cors;
mod errors;
mod grpc;
mod h2;
mod limits;
mod listen;
mod metrics;
mod resets;
mod rewrite;
mod rig;
mod streaming;
mod target;
mod tls;
mod upstream;
mod wake;
