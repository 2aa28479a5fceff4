//! The record of a sandbox.

use std::{collections::BTreeMap, time::Duration};

use coordinator::Access;
use pool_api::{Epoch, Resources, SandboxId, Secret, SnapshotScope};

use crate::{
    ids::TemplateId,
    network::Network,
    time::{Lifetime, Micros},
};

/// A sandbox as the ledger records it.
#[derive(Debug, Clone)]
pub(crate) struct SandboxRecord {
    /// Its id.
    pub(crate) id: SandboxId,
    /// The template that it was created from.
    pub(crate) template: TemplateId,
    /// The template's name at that time.
    pub(crate) alias: Option<String>,
    /// Whether the latest recorded transition started it.
    pub(crate) running: bool,
    /// The latest recorded epoch.
    pub(crate) epoch: Epoch,
    /// Start of that epoch.
    pub(crate) started_at: Micros,
    /// The deadline while running, the time of the pause while paused.
    pub(crate) end_at: Micros,
    /// The deadline while paused, if it is to be killed although it is paused.
    pub(crate) kill_at: Option<Micros>,
    /// Scope of the latest pause.
    pub(crate) pause_scope: Option<SnapshotScope>,
    /// Resources of its machine.
    pub(crate) resources: Resources,
    /// Token that the guest agent requires.
    pub(crate) envd_token: Option<Secret>,
    /// Token for the other ports, required only while the network is private.
    pub(crate) traffic_token: Option<Secret>,
    /// Settings that the caller chose.
    pub(crate) settings: SandboxSettings,
}

/// Settings that a caller chooses for a sandbox. Its forks inherit them.
#[derive(Debug, Clone)]
pub(crate) struct SandboxSettings {
    /// Lifetime requested at creation.
    pub(crate) lifetime: Lifetime,
    /// Time without use after which the host pauses it.
    pub(crate) idle_timeout: Option<Duration>,
    /// Pause it at its deadline instead of killing it.
    pub(crate) auto_pause: bool,
    /// Scope of the pause at the deadline.
    pub(crate) auto_pause_scope: SnapshotScope,
    /// Kill it at its deadline even while it is paused.
    pub(crate) kill_paused: bool,
    /// Requests may wake it.
    pub(crate) auto_resume: bool,
    /// Labels.
    pub(crate) metadata: BTreeMap<String, String>,
    /// Environment of its processes.
    pub(crate) env: BTreeMap<String, String>,
    /// Network rules.
    pub(crate) network: Network,
}

impl SandboxRecord {
    /// Begins an epoch with a new lifetime.
    pub(crate) fn start(&mut self, epoch: Epoch, at: Micros, lifetime: Lifetime) {
        self.running = true;
        self.epoch = epoch;
        self.started_at = at;
        self.end_at = lifetime.deadline(at);
        self.kill_at = None;
    }

    /// The token that ports other than the agent's require, if they require one.
    pub(crate) fn required_traffic_token(&self) -> Option<&Secret> {
        let private = self.settings.network.is_private();
        self.traffic_token.as_ref().filter(|_| private)
    }

    /// The access rules that the edge enforces.
    pub(crate) fn access(&self) -> Access {
        let disk_only = !self.running && self.pause_scope == Some(SnapshotScope::DiskOnly);
        let network = &self.settings.network;
        Access {
            envd_token: self.envd_token.clone(),
            traffic_token: self.required_traffic_token().cloned(),
            // A request must not boot a machine: without memory there is no state to wake to.
            auto_resume: self.settings.auto_resume && !disk_only,
            mask_request_host: network.mask_request_host.clone(),
            https_ports: network.https_ports.clone().unwrap_or_default(),
        }
    }
}
