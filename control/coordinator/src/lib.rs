//! Which host owns which sandbox.
//!
//! Two records a sandbox. A [`Placement`] says where it is and who may use it; it stands while the sandbox sleeps, so that
//! a wake goes to the host that has its layers. A [`Claim`] is a host's right to run it, and has an end. Epochs order
//! both: whoever names an older life is refused.

#![forbid(unsafe_code)]

pub mod conformance;
mod memory;

use std::{fmt, time::Duration};

use async_trait::async_trait;
use pool_api::{Epoch, NodeId, SandboxId, Secret};
use serde::{Deserialize, Serialize};
use tokio::{sync::broadcast, time::Instant};

pub use self::memory::InMemory;

/// Where a sandbox is and who may use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The host that has it.
    pub node: NodeId,
    /// The life this was said of.
    pub epoch: Epoch,
    /// Who may use it.
    pub access: Access,
}

/// Who may use a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Access {
    /// What the guest agent asks of its callers. The edge compares it only before it wakes a sandbox for one of them.
    pub envd_token: Option<Secret>,
    /// What every other port asks of its callers; `None`: nothing.
    pub traffic_token: Option<Secret>,
    /// Whether a request may wake it.
    pub auto_resume: bool,
    /// The `Host` its ports are shown, `${PORT}` standing for the port; `None`: the one that was asked for.
    pub mask_request_host: Option<String>,
    /// Ports whose services speak TLS, with certificates that nobody vouches for.
    #[serde(default)]
    pub https_ports: Vec<u16>,
}

/// A host's right to run a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Which sandbox.
    pub sandbox: SandboxId,
    /// Which host.
    pub node: NodeId,
    /// In which life.
    pub epoch: Epoch,
    /// When it ends, by this process's clock.
    pub until: Instant,
}

/// Keeps placements and claims. What it answers may be old by the time it is read; what it accepts is not.
#[async_trait]
pub trait Coordinator: fmt::Debug + Send + Sync {
    /// Where a sandbox is; `None` when it is unknown.
    async fn locate(&self, sandbox: &SandboxId) -> Result<Option<Placement>, CoordinatorError>;

    /// Says where a sandbox is. Replaces what was said of the same or an earlier life.
    async fn publish(&self, sandbox: &SandboxId, placement: Placement) -> Result<(), PublishError>;

    /// Forgets where a sandbox is. Does nothing to one that is unknown.
    async fn withdraw(&self, sandbox: &SandboxId) -> Result<(), CoordinatorError>;

    /// Takes the right to run a sandbox, in a life later than every one before.
    async fn claim(
        &self,
        sandbox: &SandboxId,
        node: &NodeId,
        ttl: Duration,
    ) -> Result<Claim, ClaimError>;

    /// Moves a claim's end to `ttl` from now.
    async fn renew(&self, claim: &mut Claim, ttl: Duration) -> Result<(), ClaimError>;

    /// Gives a claim back. Does nothing when it was superseded.
    async fn release(&self, claim: Claim) -> Result<(), CoordinatorError>;

    /// Names of sandboxes whose placement changed from now on. A receiver that lags must forget all it remembers.
    fn watch(&self) -> broadcast::Receiver<SandboxId>;
}

/// The coordinator could not be asked.
#[derive(Debug, thiserror::Error)]
#[error("ask the coordinator")]
pub struct CoordinatorError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// A placement that was not taken.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A later life was published before.
    #[error("sandbox {sandbox} lives life {current} already")]
    Superseded {
        /// Which.
        sandbox: SandboxId,
        /// The life that is known.
        current: Epoch,
    },
    /// It could not be asked.
    #[error(transparent)]
    Coordinator(#[from] CoordinatorError),
}

/// A claim that was not given.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another claim stands.
    #[error("sandbox {sandbox} is held by host {holder}")]
    Held {
        /// Which.
        sandbox: SandboxId,
        /// By whom.
        holder: NodeId,
    },
    /// The claim is no more the latest, or ended.
    #[error("the claim on sandbox {0} is over")]
    Over(SandboxId),
    /// It could not be asked.
    #[error(transparent)]
    Coordinator(#[from] CoordinatorError),
}
