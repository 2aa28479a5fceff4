//! Sandboxes, snapshots, templates and events as callers of a host see them.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::{Epoch, SandboxId, Secret, SnapshotId, TemplateName, WakeReport};

/// The source of a new sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// A fork of a template's snapshot.
    Template(TemplateName),
    /// A fork of a snapshot.
    Snapshot(SnapshotId),
}

/// The request for a new sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Its id.
    pub id: SandboxId,
    /// Its first epoch.
    pub epoch: Epoch,
    /// Its source.
    pub origin: Origin,
    /// The template's name inside the guest (`E2B_TEMPLATE_ID`).
    pub template: TemplateName,
    /// The time without a lease after which the sandbox is paused; `None` disables idle pauses.
    pub idle: Option<Duration>,
    /// The environment of every process that the agent starts.
    pub env: BTreeMap<String, String>,
    /// The token that the guest agent demands of its callers; `None` demands none.
    pub access_token: Option<Secret>,
}

/// The identity of one fork of a running sandbox. Everything else is inherited from the origin.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ForkSpec {
    /// Its id.
    pub id: SandboxId,
    /// Its first epoch.
    pub epoch: Epoch,
    /// The token that its guest agent demands of its callers.
    pub access_token: Option<Secret>,
}

/// The state of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SandboxState {
    /// A machine is being booted, forked or restored for it.
    Starting,
    /// It has a machine.
    Running,
    /// Its machine is stopped and being captured.
    Pausing,
    /// It is a snapshot and uses no memory or processor.
    Paused,
    /// Its machine is being destroyed.
    Stopping,
    /// It does not exist any more. Final.
    Stopped(StopReason),
}

/// The reason why a sandbox stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StopReason {
    /// A caller killed it.
    Killed,
    /// Its first start failed.
    StartFailed,
    /// Its machine ended by itself (guest panic, monitor exit) and it has no snapshot to fall back to.
    Crashed,
}

/// The part of a machine that a snapshot has, or that a wake uses of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum SnapshotScope {
    /// Memory and disks: the guest resumes where it was.
    #[default]
    Full,
    /// Disks only: the guest boots from them.
    #[serde(rename = "Filesystem")]
    DiskOnly,
}

/// A durable snapshot that a pause or a capture took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenSnapshot {
    /// Its id.
    pub id: SnapshotId,
    /// The part of the machine it has.
    pub scope: SnapshotScope,
}

/// The description of a retained snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetainedSnapshot {
    /// The sandbox that it was taken of.
    pub sandbox: SandboxId,
    /// The part of the machine it has.
    pub scope: SnapshotScope,
    /// The machine's resources.
    pub resources: Resources,
}

/// The resources of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Virtual CPUs.
    pub vcpus: u8,
    /// Memory in bytes.
    pub memory: u64,
    /// Size of the root disk in bytes.
    pub disk: u64,
}

/// The public description of a sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SandboxInfo {
    /// Its id.
    pub id: SandboxId,
    /// Its template's name.
    pub template: TemplateName,
    /// Its state.
    pub state: SandboxState,
    /// Its present epoch.
    pub epoch: Epoch,
    /// The start of its present or last epoch.
    pub started_at: SystemTime,
    /// The time of its last state change.
    pub since: SystemTime,
    /// Its machine's resources.
    pub resources: Resources,
    /// The snapshot it would wake from.
    pub snapshot: Option<SnapshotId>,
    /// That snapshot's scope.
    pub scope: SnapshotScope,
    /// The failure of the last start, pause or machine, until an operation succeeds.
    pub last_error: Option<String>,
}

/// A sandbox or retained snapshot whose files cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The object.
    pub object: BrokenObject,
    /// The failure to read it, for people.
    pub reason: String,
}

/// The object of a [`Broken`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokenObject {
    /// A paused sandbox.
    Sandbox(SandboxId),
    /// A retained snapshot.
    Snapshot(SnapshotId),
}

/// Resource usage that a guest reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuestMetrics {
    /// The time of the report.
    pub at: SystemTime,
    /// Number of processors.
    pub cpus: u32,
    /// Processor use since the previous report, in per cent of all processors.
    pub cpu_used_pct: f64,
    /// Used memory in bytes.
    pub memory_used: u64,
    /// Total memory in bytes.
    pub memory_total: u64,
    /// Page cache in bytes.
    pub memory_cache: u64,
    /// Used bytes of the root disk.
    pub disk_used: u64,
    /// Total bytes of the root disk.
    pub disk_total: u64,
}

/// The public description of a template.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TemplateInfo {
    /// Its name.
    pub name: TemplateName,
    /// The resources of its forks.
    pub resources: Resources,
    /// The snapshot that forks start from; `None` while the template is being built.
    pub snapshot: Option<SnapshotId>,
    /// The time of its build.
    pub built_at: Option<SystemTime>,
}

/// The effect of entering a paused sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfPaused {
    /// Wake it.
    Wake,
    /// Fail with [`crate::EnterError::Paused`].
    Fail,
}

/// A state change of a sandbox.
#[derive(Debug, Clone)]
pub struct Event {
    /// The sandbox.
    pub id: SandboxId,
    /// Its epoch.
    pub epoch: Epoch,
    /// The time of the change.
    pub at: SystemTime,
    /// The change.
    pub kind: EventKind,
}

/// The kinds of state change that callers are notified of.
#[derive(Debug, Clone)]
pub enum EventKind {
    /// The sandbox has a machine and accepts callers.
    Started {
        /// The reason for the start.
        cause: StartCause,
        /// The kind of start and the duration of each stage.
        report: WakeReport,
    },
    /// The sandbox has no machine and wakes from its snapshot.
    Paused {
        /// The scope of that snapshot.
        scope: SnapshotScope,
        /// The reason for the pause.
        cause: PauseCause,
    },
    /// The sandbox does not exist any more.
    Stopped(StopReason),
}

/// The reason why a sandbox runs (again).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StartCause {
    /// It is new.
    Created,
    /// A caller woke it.
    Woken,
    /// A caller rolled it back.
    RolledBack,
    /// A pause failed, so its machine resumed in the same epoch.
    PauseFailed,
}

/// The reason why a sandbox became paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PauseCause {
    /// No lease was out for its idle window.
    Idle,
    /// A caller asked for it.
    Requested,
    /// The host shuts down.
    Shutdown,
    /// Its machine ended by itself; it falls back to its last snapshot.
    MachineLost,
    /// A wake or a rollback failed.
    StartFailed,
}
