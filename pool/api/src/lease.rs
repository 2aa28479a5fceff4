//! What a caller holds while it uses a sandbox.

use std::{fmt, io, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

use crate::{Epoch, Port};

/// The right to use a running sandbox. While one is out the sandbox is not paused for being idle; an explicit pause or
/// a kill revokes it first.
#[async_trait]
#[must_use = "the sandbox may be paused as soon as the lease is dropped"]
pub trait Lease: fmt::Debug + Send + Sync {
    /// The life of the sandbox this lease is for.
    fn epoch(&self) -> Epoch;

    /// What getting in cost, if the sandbox had to be woken for this or was being woken meanwhile.
    fn wake(&self) -> Option<&WakeReport>;

    /// Connects to a port of the guest, `127.0.0.1:port` as the guest sees it.
    async fn dial(&self, port: Port) -> Result<UnixStream, DialError>;

    /// Returns when the lease is revoked: its holder must let go of the sandbox at once.
    async fn revoked(&self);
}

/// A connection into a guest that did not come about.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nothing listens on the port.
    #[error("port {0} is not open in the guest")]
    Closed(Port),
    /// The lease was revoked or the machine is gone.
    #[error("the sandbox is no longer running")]
    Gone,
    /// The monitor or the guest agent did not answer as it should.
    #[error("connect to port {port} of the guest")]
    Failed {
        /// The port asked for.
        port: Port,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What a wake cost, stage by stage.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WakeReport {
    /// How the machine came about.
    pub start: Start,
    /// Each stage that was gone through, in order.
    pub stages: Vec<(Stage, Duration)>,
}

/// How a machine comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Start {
    /// From a kernel.
    Boot,
    /// A new identity from a snapshot.
    Fork,
    /// The same identity from its own snapshot.
    Restore,
    /// The machine was still there, being paused, and only went on.
    Unpause,
}

/// A stage of waking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// Waiting for room on the host or for a transition to end.
    Queue,
    /// A blank from the shelf, or a new one.
    Blank,
    /// Snapshot opened and checked.
    Open,
    /// Memory mapped, state set.
    Load,
    /// The working set installed.
    Prefetch,
    /// First words to the guest agent, until it answered.
    Awaken,
}

impl Stage {
    /// The stage's name in `Server-Timing` and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Blank => "blank",
            Self::Open => "open",
            Self::Load => "load",
            Self::Prefetch => "prefetch",
            Self::Awaken => "awaken",
        }
    }
}

impl Start {
    /// The name in `Server-Timing` and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Fork => "fork",
            Self::Restore => "restore",
            Self::Unpause => "unpause",
        }
    }
}
