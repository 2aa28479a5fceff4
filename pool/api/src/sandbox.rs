//! What a sandbox is made of and what others see of it.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::{Epoch, SandboxId, Secret, SnapshotId, TemplateName};

/// What a new sandbox starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// A fork of a template's snapshot.
    Template(TemplateName),
    /// A fork of a snapshot.
    Snapshot(SnapshotId),
}

/// A sandbox to be made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Its name.
    pub id: SandboxId,
    /// Its first life.
    pub epoch: Epoch,
    /// What it starts from.
    pub origin: Origin,
    /// The template's name as guests see it (`E2B_TEMPLATE_ID`).
    pub template: TemplateName,
    /// How long nobody may use it before it is paused. `None`: it is never paused for being idle.
    pub idle: Option<Duration>,
    /// Environment of every process started in it.
    pub env: BTreeMap<String, String>,
    /// What the guest agent asks of its callers; `None`: nothing.
    pub access_token: Option<Secret>,
}

/// A new identity for a fork of a running sandbox. Everything else is its origin's.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Child {
    /// Its name.
    pub id: SandboxId,
    /// Its first life.
    pub epoch: Epoch,
    /// What its guest agent asks of its callers.
    pub access_token: Option<Secret>,
}

/// Where a sandbox is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SandboxState {
    /// A machine is being forked or restored for it.
    Starting,
    /// It has a machine.
    Running,
    /// Its machine is stopped and being written down.
    Pausing,
    /// It is a snapshot and costs nothing but disk.
    Paused,
    /// Its machine is being ended.
    Stopping,
    /// It is gone. Final.
    Stopped(StopReason),
}

/// Why a sandbox is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StopReason {
    /// Somebody asked for it.
    Killed,
    /// It could not be started, and nothing of it existed before.
    StartFailed,
    /// Its machine ended by itself (guest panic, monitor gone), and there is no snapshot to go back to.
    Crashed,
}

/// What of a machine is kept when it is captured, or woken from what was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Keep {
    /// Memory and disks: it goes on where it was.
    #[default]
    Full,
    /// Its disks alone: it boots from them.
    Filesystem,
}

/// What a machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Virtual CPUs.
    pub vcpus: u8,
    /// Memory in bytes.
    pub memory: u64,
    /// Size of the root disk in bytes.
    pub disk: u64,
}

/// What others see of a sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SandboxInfo {
    /// Its name.
    pub id: SandboxId,
    /// The template's name.
    pub template: TemplateName,
    /// Where it is in its life.
    pub state: SandboxState,
    /// Its present life.
    pub epoch: Epoch,
    /// When its present or last life began.
    pub started_at: SystemTime,
    /// When it came into `state`.
    pub since: SystemTime,
    /// What its machine has.
    pub resources: Resources,
    /// What it would wake from.
    pub snapshot: Option<SnapshotId>,
    /// What that snapshot keeps.
    pub keep: Keep,
    /// Why the last start, pause or machine failed, until something succeeds again.
    pub trouble: Option<String>,
}

/// What a guest says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuestMetrics {
    /// When it was asked.
    pub at: SystemTime,
    /// Its processors.
    pub cpus: u32,
    /// How much of them was used since it was asked last, in per cent of all of them.
    pub cpu_used_pct: f64,
    /// Memory in use, in bytes.
    pub memory_used: u64,
    /// Memory it has, in bytes.
    pub memory_total: u64,
    /// Memory that holds files, in bytes.
    pub memory_cache: u64,
    /// Bytes in use on the root disk.
    pub disk_used: u64,
    /// Bytes the root disk has.
    pub disk_total: u64,
}

/// A template as a host knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TemplateInfo {
    /// Its name.
    pub name: TemplateName,
    /// What forks of it have.
    pub resources: Resources,
    /// What they are forked from. `None`: it is still being built.
    pub snapshot: Option<SnapshotId>,
    /// When it was built.
    pub built_at: Option<SystemTime>,
}

/// Whether entering may wake a paused sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// It may.
    Allowed,
    /// A paused sandbox stays paused, and the caller is told so.
    Refused,
}

/// Something that happened to a sandbox without its API being called.
#[derive(Debug, Clone)]
pub struct Event {
    /// To whom.
    pub id: SandboxId,
    /// In which life.
    pub epoch: Epoch,
    /// When.
    pub at: SystemTime,
    /// What.
    pub what: Happening,
}

/// What can happen to a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// It has a machine (again).
    Started,
    /// It is a snapshot now.
    Paused,
    /// It is gone.
    Stopped(StopReason),
}
