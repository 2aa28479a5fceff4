//! What may be asked of a host.
//!
//! A host owns machines. Others name a sandbox and ask: create it, let me in, pause it, fork it, kill it. [`Node`] is
//! that boundary; [`Lease`] is what a caller holds while it uses a sandbox. Nothing here knows KVM, HTTP or SQL.

#![forbid(unsafe_code)]

#[cfg(feature = "testing")]
pub mod fake;
mod id;
mod lease;
mod node;
mod sandbox;
mod secret;

pub use self::{
    id::{Epoch, InvalidId, NodeId, Port, SandboxId, SnapshotId, TemplateName},
    lease::{DialError, Lease, Stage, Start, WakeReport},
    node::{
        Cause, CreateError, EnterError, ForkError, GiveUpError, KillError, Node, PauseError,
        ResumeError, RollbackError, SnapshotError, TemplateError,
    },
    sandbox::{
        Child, Event, GuestMetrics, Happening, Keep, Origin, Resources, SandboxInfo, SandboxSpec,
        SandboxState, StopReason, TemplateInfo, Wake,
    },
    secret::Secret,
};
