//! What the wire carries, and how it becomes what we mean.

mod request;

use std::collections::BTreeMap;

use pool_api::Secret;
use serde::Serialize;
use serde_json::{Value, json};

pub(crate) use self::request::{
    ConnectV1, ConnectV2, Fork, NewV1, NewV2, Pause, Refresh, Resume, Timeout, span,
};
use crate::{ledger::Entry, sandboxes::Seen, time::Micros};

/// Required in every sandbox; a constant of the wire.
const CLIENT_ID: &str = "6532622b";
/// The guest agent's version, as clients understand it.
const ENVD_VERSION: &str = "0.6.13";

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
    alias: String,
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
    alias: String,
    started_at: Micros,
    end_at: Micros,
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
            envd_version: ENVD_VERSION,
            alias: entry.lasting.template.to_string(),
            envd_access_token: exposed(entry.envd_token.as_ref()),
            traffic_access_token: exposed(entry.traffic_token.as_ref()),
            domain: None,
        }
    }
}

impl From<&Seen> for Listed {
    fn from(seen: &Seen) -> Self {
        let entry = &seen.entry;
        Self {
            template_id: entry.lasting.template.to_string(),
            sandbox_id: entry.id.to_string(),
            client_id: CLIENT_ID,
            envd_version: ENVD_VERSION,
            alias: entry.lasting.template.to_string(),
            started_at: entry.started_at,
            end_at: entry.end_at,
            state: if seen.running { "running" } else { "paused" },
            cpu_count: entry.resources.vcpus,
            memory_mb: entry.resources.memory >> 20,
            disk_size_mb: entry.resources.disk >> 20,
            metadata: entry.lasting.metadata.clone(),
        }
    }
}

impl From<&Seen> for Detail {
    fn from(seen: &Seen) -> Self {
        let lasting = &seen.entry.lasting;
        let mut network = lasting.network.clone();
        if let Some(proxy) = network
            .as_mut()
            .and_then(|network| network.get_mut("egressProxy"))
            && let Some(proxy) = proxy.as_object_mut()
        {
            proxy.remove("password");
        }
        let internet = network
            .as_mut()
            .and_then(Value::as_object_mut)
            .and_then(|map| map.remove(INTERNET));
        Self {
            listed: Listed::from(seen),
            envd_access_token: exposed(seen.entry.envd_token.as_ref()),
            allow_internet_access: internet.and_then(|value| value.as_bool()),
            domain: None,
            network: network.filter(|network| *network != json!({})),
            lifecycle: Lifecycle {
                auto_resume: lasting.auto_resume,
                on_timeout: if lasting.auto_pause { "pause" } else { "kill" },
            },
            idle_timeout: lasting.idle_timeout.map(|idle| idle.as_secs()),
        }
    }
}

/// Where `allow_internet_access` is kept, beside the network it belongs to.
pub(crate) const INTERNET: &str = "allowInternetAccess";
