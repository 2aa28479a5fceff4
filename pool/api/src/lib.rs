//! The boundary between a host and its callers.
//!
//! A host owns microVMs. Callers name a sandbox and create, enter, pause, fork or kill it. [`Node`] is that boundary;
//! [`Lease`] is the right to use a running sandbox. Nothing here depends on KVM, HTTP or SQL.
//!
//! Feature `testing`: [`fake::FakeNode`] is an in-process host for the tests of callers, and [`contract`] the test
//! suite that it and the real host pass.

#![forbid(unsafe_code)]

#[cfg(feature = "testing")]
pub mod contract;
mod error;
#[cfg(feature = "testing")]
pub mod fake;
mod id;
mod lease;
mod node;
mod sandbox;
mod secret;

pub use self::{
    error::{
        Cause, CreateError, EnterError, FailedPart, ForkError, KillError, PauseError, ReleaseError,
        ResumeError, RollbackError, SnapshotError, TemplateError,
    },
    id::{Epoch, InvalidId, NodeId, Port, SandboxId, SnapshotId, TemplateName},
    lease::{DialError, Lease, Stage, Start, WakeReport},
    node::Node,
    sandbox::{
        Broken, BrokenObject, Event, EventKind, ForkSpec, GuestMetrics, IfPaused, Origin,
        PauseCause, Resources, RetainedSnapshot, SandboxInfo, SandboxSpec, SandboxState,
        SnapshotScope, StartCause, StopReason, TakenSnapshot, TemplateInfo,
    },
    secret::Secret,
};
