//! Responses that describe sandboxes.

use std::collections::BTreeMap;

use guest_api::envd;
use pool_api::{Secret, SnapshotScope};
use serde::Serialize;
use serde_json::Value;

use crate::{http::extract::ClientKind, ledger::SandboxRecord, service::SandboxView, time::Micros};

/// A required member of every sandbox; E2B's constant.
const CLIENT_ID: &str = "6532622b";

/// The response to create, connect, resume and fork.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct SandboxResponse {
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

/// An element of a list of sandboxes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct ListedSandbox {
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
    /// The last failure on the host; an extension of Catnap.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
}

/// The response that describes one sandbox.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct SandboxDetail {
    #[serde(flatten)]
    listed: ListedSandbox,
    #[serde(skip_serializing_if = "Option::is_none")]
    envd_access_token: Option<String>,
    allow_internet_access: Option<bool>,
    domain: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<Value>,
    lifecycle: Lifecycle,
    /// Scope of the latest pause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pause_mode: Option<&'static str>,
    /// Seconds without use after which the sandbox is paused; an extension of Catnap.
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

impl From<&SandboxRecord> for SandboxResponse {
    fn from(record: &SandboxRecord) -> Self {
        Self {
            template_id: record.template.to_string(),
            sandbox_id: record.id.to_string(),
            client_id: CLIENT_ID,
            envd_version: envd::VERSION,
            alias: record.alias.clone(),
            envd_access_token: exposed(record.envd_token.as_ref()),
            traffic_access_token: exposed(record.required_traffic_token()),
            domain: None,
        }
    }
}

impl ListedSandbox {
    /// Describes a sandbox for a client.
    pub(in crate::http) fn new(view: &SandboxView, client: ClientKind) -> Self {
        let record = &view.record;
        let kill_at = record.kill_at.filter(|_| !view.running);
        let end_at = kill_at.unwrap_or(record.end_at);
        // E2B's clients fail to parse a sandbox without `endAt`. For others its absence means no deadline.
        let end_at = Some(end_at).filter(|end| *end != Micros::NEVER || client == ClientKind::E2b);
        Self {
            template_id: record.template.to_string(),
            sandbox_id: record.id.to_string(),
            client_id: CLIENT_ID,
            envd_version: envd::VERSION,
            alias: record.alias.clone(),
            started_at: record.started_at,
            end_at,
            state: if view.running { "running" } else { "paused" },
            cpu_count: record.resources.vcpus,
            memory_mb: record.resources.memory >> 20,
            disk_size_mb: record.resources.disk >> 20,
            metadata: record.settings.metadata.clone(),
            last_error: view.last_error.clone(),
        }
    }
}

impl SandboxDetail {
    /// Describes a sandbox for a client.
    pub(in crate::http) fn new(view: &SandboxView, client: ClientKind) -> Self {
        let record = &view.record;
        let settings = &record.settings;
        Self {
            listed: ListedSandbox::new(view, client),
            envd_access_token: exposed(record.envd_token.as_ref()),
            allow_internet_access: settings.network.allow_internet_access,
            domain: None,
            network: settings.network.redacted(),
            lifecycle: Lifecycle {
                auto_resume: settings.auto_resume,
                on_timeout: if settings.auto_pause { "pause" } else { "kill" },
            },
            pause_mode: record.pause_scope.map(|scope| match scope {
                SnapshotScope::Full => "full",
                SnapshotScope::DiskOnly => "filesystem",
            }),
            idle_timeout: settings.idle_timeout.map(|idle| idle.as_secs()),
        }
    }
}
