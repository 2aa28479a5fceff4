//! Rows of the table `sandboxes`. Values are validated when a row becomes a [`SandboxRecord`].

use std::{collections::BTreeMap, time::Duration};

use error_chain::chain;
use pool_api::{Epoch, Secret, SnapshotScope};
use serde_json::Value;
use sqlx::SqliteConnection;
use tracing::warn;

use super::{
    column::{UNLIMITED, malformed, parse, resources, scope_from_text, scope_text, signed},
    error::LedgerError,
    record::{SandboxRecord, SandboxSettings},
};
use crate::{
    network::Network,
    time::{Lifetime, Micros},
};

/// A row, not validated.
#[derive(sqlx::FromRow)]
pub(super) struct SandboxRow {
    id: String,
    template: String,
    state: String,
    epoch: i64,
    started_at: i64,
    end_at: i64,
    timeout: i64,
    idle_timeout: Option<i64>,
    auto_pause: bool,
    auto_resume: bool,
    envd_token: Option<String>,
    traffic_token: Option<String>,
    vcpus: i64,
    memory: i64,
    disk: i64,
    metadata: String,
    env: String,
    network: Option<String>,
    alias: Option<String>,
    auto_pause_memory: bool,
    kill_paused: bool,
    #[sqlx(rename = "doomed_at")]
    kill_at: Option<i64>,
    #[sqlx(rename = "keep")]
    pause_scope: Option<String>,
}

fn json_text(map: &BTreeMap<String, String>) -> String {
    serde_json::json!(map).to_string()
}

impl From<&SandboxRecord> for SandboxRow {
    fn from(record: &SandboxRecord) -> Self {
        let expose =
            |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.expose().to_owned());
        let settings = &record.settings;
        let timeout = match settings.lifetime {
            Lifetime::For(span) => signed(span.as_secs()),
            Lifetime::Unlimited => UNLIMITED,
        };
        Self {
            id: record.id.to_string(),
            template: record.template.to_string(),
            state: if record.running { "running" } else { "paused" }.to_owned(),
            epoch: signed(record.epoch.0),
            started_at: record.started_at.0,
            end_at: record.end_at.0,
            timeout,
            idle_timeout: settings.idle_timeout.map(|idle| signed(idle.as_secs())),
            auto_pause: settings.auto_pause,
            auto_resume: settings.auto_resume,
            envd_token: expose(&record.envd_token),
            traffic_token: expose(&record.traffic_token),
            vcpus: i64::from(record.resources.vcpus),
            memory: signed(record.resources.memory),
            disk: signed(record.resources.disk),
            metadata: json_text(&settings.metadata),
            env: json_text(&settings.env),
            network: settings.network.to_stored().as_ref().map(Value::to_string),
            alias: record.alias.clone(),
            auto_pause_memory: settings.auto_pause_scope == SnapshotScope::Full,
            kill_paused: settings.kill_paused,
            kill_at: record.kill_at.map(|at| at.0),
            pause_scope: record.pause_scope.map(|scope| scope_text(scope).to_owned()),
        }
    }
}

impl TryFrom<SandboxRow> for SandboxRecord {
    type Error = LedgerError;

    fn try_from(row: SandboxRow) -> Result<Self, LedgerError> {
        let settings = row.settings()?;
        let key = row.id.as_str();
        Ok(Self {
            id: parse(key, key, "id")?,
            template: parse(&row.template, key, "template")?,
            running: row.state == "running",
            epoch: Epoch(u64::try_from(row.epoch).map_err(|_| malformed(key, "epoch"))?),
            started_at: Micros(row.started_at),
            end_at: Micros(row.end_at),
            kill_at: row.kill_at.map(Micros),
            pause_scope: row
                .pause_scope
                .map(|text| scope_from_text(&text).ok_or_else(|| malformed(key, "keep")))
                .transpose()?,
            resources: resources(row.vcpus, row.memory, row.disk, key)?,
            alias: row.alias,
            envd_token: row.envd_token.map(Secret::new),
            traffic_token: row.traffic_token.map(Secret::new),
            settings,
        })
    }
}

impl SandboxRow {
    /// Returns the start and the id, which order lists.
    pub(super) fn key(&self) -> (Micros, String) {
        (Micros(self.started_at), self.id.clone())
    }

    fn settings(&self) -> Result<SandboxSettings, LedgerError> {
        let seconds = |number: i64, column| {
            u64::try_from(number)
                .map(Duration::from_secs)
                .map_err(|_| malformed(&self.id, column))
        };
        let map = |text: &str, column| {
            serde_json::from_str(text).map_err(|_| malformed(&self.id, column))
        };
        Ok(SandboxSettings {
            lifetime: match self.timeout {
                UNLIMITED => Lifetime::Unlimited,
                span => Lifetime::For(seconds(span, "timeout")?),
            },
            idle_timeout: self
                .idle_timeout
                .map(|idle| seconds(idle, "idle_timeout"))
                .transpose()?,
            auto_pause: self.auto_pause,
            auto_pause_scope: if self.auto_pause_memory {
                SnapshotScope::Full
            } else {
                SnapshotScope::DiskOnly
            },
            kill_paused: self.kill_paused,
            auto_resume: self.auto_resume,
            metadata: map(&self.metadata, "metadata")?,
            env: map(&self.env, "env")?,
            network: self.network(),
        })
    }

    /// The network rules. Ledgers of version 1 contain the member `network` of the request without validation. Rules
    /// that cannot be read are replaced with the defaults, but a sandbox with a traffic token stays private.
    fn network(&self) -> Network {
        let Some(text) = &self.network else {
            return Network::default();
        };
        match serde_json::from_str(text) {
            Ok(network) => network,
            Err(error) => {
                warn!(sandbox.id = %self.id, error = %chain(&error), "failed to read network rules of sandbox");
                let mut network = Network::default();
                network.allow_public_traffic = self.traffic_token.as_ref().map(|_| false);
                network
            }
        }
    }

    /// Inserts the row.
    pub(super) async fn insert(self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO sandboxes (id, template, state, epoch, started_at, end_at, timeout, idle_timeout, auto_pause, \
             auto_resume, envd_token, traffic_token, vcpus, memory, disk, metadata, env, network, alias, \
             auto_pause_memory, kill_paused, doomed_at, keep) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(self.id)
        .bind(self.template)
        .bind(self.state)
        .bind(self.epoch)
        .bind(self.started_at)
        .bind(self.end_at)
        .bind(self.timeout)
        .bind(self.idle_timeout)
        .bind(self.auto_pause)
        .bind(self.auto_resume)
        .bind(self.envd_token)
        .bind(self.traffic_token)
        .bind(self.vcpus)
        .bind(self.memory)
        .bind(self.disk)
        .bind(self.metadata)
        .bind(self.env)
        .bind(self.network)
        .bind(self.alias)
        .bind(self.auto_pause_memory)
        .bind(self.kill_paused)
        .bind(self.kill_at)
        .bind(self.pause_scope)
        .execute(connection)
        .await?;
        Ok(())
    }
}
