//! A sandbox's entry, and the row it is kept as.

use std::{collections::BTreeMap, time::Duration};

use coordinator::Access;
use pool_api::{Epoch, Resources, SandboxId, Secret, TemplateName};
use serde_json::Value;

use super::LedgerError;
use crate::time::Micros;

/// What was promised about a sandbox.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Its name.
    pub(crate) id: SandboxId,
    /// Whether it runs, as far as is known.
    pub(crate) running: bool,
    /// Its life, as far as is known.
    pub(crate) epoch: Epoch,
    /// When that began.
    pub(crate) started_at: Micros,
    /// When a running one expires, or a paused one was paused.
    pub(crate) end_at: Micros,
    /// What its machine has.
    pub(crate) resources: Resources,
    /// What its guest agent asks of its callers.
    pub(crate) envd_token: Option<Secret>,
    /// What its other ports ask of theirs.
    pub(crate) traffic_token: Option<Secret>,
    /// What does not change over its lives.
    pub(crate) lasting: Lasting,
}

/// What a sandbox keeps over its lives, and hands on to its forks.
#[derive(Debug, Clone)]
pub(crate) struct Lasting {
    /// The template's name.
    pub(crate) template: TemplateName,
    /// The time given at creation.
    pub(crate) timeout: Duration,
    /// How long nobody may use it before it is paused.
    pub(crate) idle_timeout: Option<Duration>,
    /// Pause at the end, rather than kill.
    pub(crate) auto_pause: bool,
    /// A request may wake it.
    pub(crate) auto_resume: bool,
    /// The caller's labels.
    pub(crate) metadata: BTreeMap<String, String>,
    /// Environment of its processes.
    pub(crate) env: BTreeMap<String, String>,
    /// Its network, as it was asked for.
    pub(crate) network: Option<Value>,
}

impl Entry {
    /// Who may use it.
    pub(crate) fn access(&self) -> Access {
        let network = self.lasting.network.as_ref();
        let mask = network
            .and_then(|network| network.get("maskRequestHost"))
            .and_then(Value::as_str);
        Access {
            envd_token: self.envd_token.clone(),
            traffic_token: self.traffic_token.clone(),
            auto_resume: self.lasting.auto_resume,
            mask_request_host: mask.map(str::to_owned),
        }
    }
}

/// The row, as it is in the database; not trusted.
#[derive(sqlx::FromRow)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) template: String,
    pub(super) state: String,
    pub(super) epoch: i64,
    pub(super) started_at: i64,
    pub(super) end_at: i64,
    pub(super) timeout: i64,
    pub(super) idle_timeout: Option<i64>,
    pub(super) auto_pause: bool,
    pub(super) auto_resume: bool,
    pub(super) envd_token: Option<String>,
    pub(super) traffic_token: Option<String>,
    pub(super) vcpus: i64,
    pub(super) memory: i64,
    pub(super) disk: i64,
    pub(super) metadata: String,
    pub(super) env: String,
    pub(super) network: Option<String>,
}

/// SQLite's integers are signed; no number here comes near the limit.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn text_of(map: &BTreeMap<String, String>) -> String {
    serde_json::json!(map).to_string()
}

impl From<&Entry> for Row {
    fn from(entry: &Entry) -> Self {
        let expose =
            |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.expose().to_owned());
        let Lasting {
            template,
            timeout,
            idle_timeout,
            metadata,
            env,
            network,
            ..
        } = &entry.lasting;
        Self {
            id: entry.id.to_string(),
            template: template.to_string(),
            state: if entry.running { "running" } else { "paused" }.to_owned(),
            epoch: signed(entry.epoch.0),
            started_at: entry.started_at.0,
            end_at: entry.end_at.0,
            timeout: signed(timeout.as_secs()),
            idle_timeout: idle_timeout.map(|idle| signed(idle.as_secs())),
            auto_pause: entry.lasting.auto_pause,
            auto_resume: entry.lasting.auto_resume,
            envd_token: expose(&entry.envd_token),
            traffic_token: expose(&entry.traffic_token),
            vcpus: i64::from(entry.resources.vcpus),
            memory: signed(entry.resources.memory),
            disk: signed(entry.resources.disk),
            metadata: text_of(metadata),
            env: text_of(env),
            network: network.as_ref().map(Value::to_string),
        }
    }
}

impl TryFrom<Row> for Entry {
    type Error = LedgerError;

    fn try_from(row: Row) -> Result<Self, LedgerError> {
        let key = row.id.clone();
        let bad = |column: &'static str| LedgerError::Malformed {
            id: key.clone(),
            column,
        };
        let seconds = |number: i64, column| {
            u64::try_from(number)
                .map(Duration::from_secs)
                .map_err(|_| bad(column))
        };
        let map = |text: &str, column| serde_json::from_str(text).map_err(|_| bad(column));
        let network = row
            .network
            .as_deref()
            .map(|text| serde_json::from_str(text).map_err(|_| bad("network")));
        Ok(Self {
            id: row.id.parse().map_err(|_| bad("id"))?,
            running: row.state == "running",
            epoch: Epoch(u64::try_from(row.epoch).map_err(|_| bad("epoch"))?),
            started_at: Micros(row.started_at),
            end_at: Micros(row.end_at),
            resources: Resources {
                vcpus: u8::try_from(row.vcpus).map_err(|_| bad("vcpus"))?,
                memory: u64::try_from(row.memory).map_err(|_| bad("memory"))?,
                disk: u64::try_from(row.disk).map_err(|_| bad("disk"))?,
            },
            envd_token: row.envd_token.map(Secret::new),
            traffic_token: row.traffic_token.map(Secret::new),
            lasting: Lasting {
                template: row.template.parse().map_err(|_| bad("template"))?,
                timeout: seconds(row.timeout, "timeout")?,
                idle_timeout: row
                    .idle_timeout
                    .map(|idle| seconds(idle, "idle_timeout"))
                    .transpose()?,
                auto_pause: row.auto_pause,
                auto_resume: row.auto_resume,
                metadata: map(&row.metadata, "metadata")?,
                env: map(&row.env, "env")?,
                network: network.transpose()?,
            },
        })
    }
}
