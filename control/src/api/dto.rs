//! What the wire carries, and how it becomes what we mean.

mod create;
mod request;

use std::collections::BTreeMap;

use guest_api::envd;
use pool_api::{Secret, SnapshotScope};
use serde::Serialize;
use serde_json::Value;

pub(crate) use self::{
    create::{Generation, New},
    request::{
        Connect, Fork, Pause, Refresh, Resume, Rollback, Snapshot, Timeout, keep, timeout, window,
    },
};
use super::extract::Audience;
use crate::{ledger::Entry, network::Network, sandboxes::Seen, time::Micros};

/// Required in every sandbox; a constant of the wire.
const CLIENT_ID: &str = "6532622b";
/// A sandbox as create, connect, resume and fork answer it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Sandbox {
    #[serde(rename = "templateID")]
    template_id: String,
    #[serde(rename = "sandboxID")]
    sandbox_id: String,
    #[serde(rename = "clientID")]
    client_id: &'static str,
    envd_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    alias: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    envd_access_token: Option<String>,
    traffic_access_token: Option<String>,
    domain: Option<String>,
}

/// A sandbox as lists have it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Listed {
    #[serde(rename = "templateID")]
    template_id: String,
    #[serde(rename = "sandboxID")]
    sandbox_id: String,
    #[serde(rename = "clientID")]
    client_id: &'static str,
    envd_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    alias: Option<String>,
    started_at: Micros,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_at: Option<Micros>,
    state: &'static str,
    cpu_count: u8,
    #[serde(rename = "memoryMB")]
    memory_mb: u64,
    #[serde(rename = "diskSizeMB")]
    disk_size_mb: u64,
    metadata: BTreeMap<String, String>,
}

/// A sandbox, all of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Detail {
    #[serde(flatten)]
    listed: Listed,
    #[serde(skip_serializing_if = "Option::is_none")]
    envd_access_token: Option<String>,
    allow_internet_access: Option<bool>,
    domain: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<Value>,
    lifecycle: Lifecycle,
    /// What the latest pause kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pause_mode: Option<&'static str>,
    /// Catnap's own: seconds of no use after which it is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_timeout: Option<u64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Lifecycle {
    auto_resume: bool,
    on_timeout: &'static str,
}

fn exposed(secret: Option<&Secret>) -> Option<String> {
    secret.map(|secret| secret.expose().to_owned())
}

impl From<&Entry> for Sandbox {
    fn from(entry: &Entry) -> Self {
        Self {
            template_id: entry.lasting.template.to_string(),
            sandbox_id: entry.id.to_string(),
            client_id: CLIENT_ID,
            envd_version: envd::VERSION,
            alias: entry.lasting.alias.clone(),
            envd_access_token: exposed(entry.envd_token.as_ref()),
            traffic_access_token: exposed(entry.asked_token()),
            domain: None,
        }
    }
}

impl Listed {
    /// The sandbox, for these readers.
    pub(crate) fn new(seen: &Seen, audience: Audience) -> Self {
        let entry = &seen.entry;
        let doomed = entry.doomed_at.filter(|_| !seen.running);
        let end_at = doomed.unwrap_or(entry.end_at);
        Self {
            template_id: entry.lasting.template.to_string(),
            sandbox_id: entry.id.to_string(),
            client_id: CLIENT_ID,
            envd_version: envd::VERSION,
            alias: entry.lasting.alias.clone(),
            started_at: entry.started_at,
            // E2B's clients cannot read a sandbox without an end; others take one for what it is.
            end_at: Some(end_at).filter(|end| *end != Micros::NEVER || audience == Audience::E2b),
            state: if seen.running { "running" } else { "paused" },
            cpu_count: entry.resources.vcpus,
            memory_mb: entry.resources.memory >> 20,
            disk_size_mb: entry.resources.disk >> 20,
            metadata: entry.lasting.metadata.clone(),
        }
    }
}

impl Detail {
    /// The sandbox, for these readers.
    pub(crate) fn new(seen: &Seen, audience: Audience) -> Self {
        let lasting = &seen.entry.lasting;
        let network = Network::read(lasting.network.as_ref());
        Self {
            listed: Listed::new(seen, audience),
            envd_access_token: exposed(seen.entry.envd_token.as_ref()),
            allow_internet_access: network.allow_internet_access,
            domain: None,
            network: network.shown(),
            lifecycle: Lifecycle {
                auto_resume: lasting.auto_resume,
                on_timeout: if lasting.auto_pause { "pause" } else { "kill" },
            },
            pause_mode: seen.entry.keep.map(|keep| match keep {
                SnapshotScope::Full => "full",
                SnapshotScope::DiskOnly => "filesystem",
            }),
            idle_timeout: lasting.idle_timeout.map(|idle| idle.as_secs()),
        }
    }
}
