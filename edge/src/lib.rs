//! Names the sandbox a request is for, checks its token, carries its bytes.
//!
//! The way of a request, one module a step:
//!
//! 1. [`host`]: which sandbox and port the request is for, or that it is for the API;
//! 2. [`route`]: where the sandbox is and who may use it;
//! 3. [`access`]: the tokens it brings, turned into a [`access::Permit`]; nobody else can make one;
//! 4. [`admit`]: a permit for a lease; a sleeping sandbox is woken here while the request waits;
//! 5. [`upstream`]: a stream to the guest's port through the lease, pooled for one life of one sandbox only;
//! 6. [`visit`]: what is held while the bytes pass, and what happens when the lease is revoked meanwhile.
//!
//! [`proxy`] strings these along Pingora's phases, [`error`] turns every refusal into an answer, [`serve`] accepts
//! connections. The edge runs inside its caller's tokio runtime and installs nothing in the process: no signal handler,
//! no daemon, no exit.

#![forbid(unsafe_code)]

mod access;
mod admit;
mod client;
mod config;
mod error;
mod host;
mod proxy;
mod route;
mod serve;
mod timing;
mod upstream;
mod visit;

pub use self::{
    config::Config,
    serve::{BindError, Edge},
};
