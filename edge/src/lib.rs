//! Names the sandbox a request is for, checks its token, carries its bytes.
//!
//! The way of a request, one module a step:
//!
//! 1. [`host`]: which sandbox and port the request is for, or that it is for the API;
//! 2. [`route`]: where the sandbox is and who may use it;
//! 3. [`access`]: the tokens it brings, turned into a [`access::Permit`]; nobody else can make one;
//! 4. [`crowd`]: a place among the requests that are in that sandbox, of which there are only so many;
//! 5. [`admit`]: a permit for a lease; a sleeping sandbox is woken here while the request waits;
//! 6. [`upstream`]: a stream to the guest's port through the lease, pooled for one life of one sandbox only;
//! 7. [`visit`]: what is held while the bytes pass, and what happens when the lease is revoked meanwhile.
//!
//! [`reception`] takes the first five, [`guise`] is how the guest is shown the request, [`proxy`] strings all along Pingora's phases, [`error`] turns every refusal into an answer. Before them [`serve`]
//! accepts connections, [`connection`] carries each to its end, and [`client`] keeps a hold on it; [`metrics`] counts. The edge runs inside its caller's tokio runtime and installs nothing in the process: no signal handler,
//! no daemon, no exit.

#![forbid(unsafe_code)]

mod access;
mod admit;
mod client;
mod config;
mod connection;
mod crowd;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod guise;
mod host;
mod listen;
mod metrics;
mod path;
mod proxy;
mod reception;
mod route;
mod serve;
mod timing;
pub mod tls;
mod upstream;
mod visit;

pub use self::{
    config::{Config, Limits, Tls},
    listen::BindError,
    serve::{Edge, StartError},
};
