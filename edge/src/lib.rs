//! The HTTP gateway: resolves the sandbox of a request, authorizes the request and forwards it.
//!
//! The steps have the numbers of the request table in `ARCHITECTURE.md`. Steps 5 to 7 and 10 are the pool's.
//!
//! | step | module | |
//! | --- | --- | --- |
//! | 1 | `target` | resolves the sandbox, the port and the path, or the API |
//! | 2 | `route` | looks up the host of the sandbox and its access rules |
//! | 3 | `access` | checks the tokens; its `access::Permit` is the only proof that admits a request |
//! | 4 | `limiter`, `admit` | bounds the concurrent requests, then exchanges the permit for a lease; a paused sandbox wakes |
//! | 8 | `upstream`, `rewrite` | connects to the guest's port, with a pool per sandbox, port and epoch; adapts request and response |
//! | 9 | `context`, `watchdog` | releases lease and slot at the end of the request; ends it early if the lease is revoked or its bodies stall |
//!
//! `dispatch` runs steps 1 to 4, and `proxy` calls each step from Pingora's phases. A `rejection` is why a request
//! goes no further; `response` maps it to HTTP. Below the requests, `serve` accepts connections, `connection` serves
//! each of them, and `client` keeps control of their sockets. `metrics` has the counters, and `scrape` serves them.
//!
//! The edge runs inside its caller's tokio runtime. It installs no signal handler, forks no daemon and never exits the
//! process.

#![forbid(unsafe_code)]

mod access;
mod admit;
mod api_key;
mod budget;
mod client;
mod config;
mod connection;
mod context;
mod dispatch;
mod forwarded;
mod framing;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod limiter;
mod listen;
mod metrics;
mod panics;
mod proxy;
mod rejection;
mod response;
mod rewrite;
mod route;
mod scrape;
mod serve;
mod target;
mod timing;
pub mod tls;
mod upstream;
mod watchdog;

pub use self::{
    config::{Config, Limits, Tls},
    listen::BindError,
    panics::PanicCounter,
    serve::{Edge, StartError},
};
