//! A sandbox's entry, and the row it is kept as.

use std::{collections::BTreeMap, time::Duration};

use coordinator::Access;
use pool_api::{Epoch, Resources, SandboxId, Secret, SnapshotScope, TemplateName};
use serde_json::Value;
use sqlx::SqliteConnection;

use super::LedgerError;
use crate::{
    network::Network,
    time::{Micros, Window},
};

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
    /// When a paused one is killed all the same.
    pub(crate) doomed_at: Option<Micros>,
    /// What its latest pause kept.
    pub(crate) keep: Option<SnapshotScope>,
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
    /// The template's id.
    pub(crate) template: TemplateName,
    /// What callers call the template.
    pub(crate) alias: Option<String>,
    /// The time given at creation.
    pub(crate) timeout: Window,
    /// How long nobody may use it before it is paused.
    pub(crate) idle_timeout: Option<Duration>,
    /// Pause at the end, rather than kill.
    pub(crate) auto_pause: bool,
    /// What a pause at the end keeps.
    pub(crate) auto_pause_keep: SnapshotScope,
    /// Kill it at its end even when it is paused by then.
    pub(crate) kill_paused: bool,
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
    /// What its ports ask of their callers, if they ask.
    pub(crate) fn asked_token(&self) -> Option<&Secret> {
        let private = Network::read(self.lasting.network.as_ref()).is_private();
        self.traffic_token.as_ref().filter(|_| private)
    }

    /// Who may use it.
    pub(crate) fn access(&self) -> Access {
        let bare = !self.running && self.keep == Some(SnapshotScope::DiskOnly);
        let network = Network::read(self.lasting.network.as_ref());
        Access {
            envd_token: self.envd_token.clone(),
            traffic_token: self.asked_token().cloned(),
            // There is no memory to wake to: nobody expects to boot a machine by a request.
            auto_resume: self.lasting.auto_resume && !bare,
            mask_request_host: network.mask_request_host,
            https_ports: network.https_ports.unwrap_or_default(),
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
    pub(super) alias: Option<String>,
    pub(super) auto_pause_memory: bool,
    pub(super) kill_paused: bool,
    pub(super) doomed_at: Option<i64>,
    pub(super) keep: Option<String>,
}

/// In the place of seconds, for what has no end.
const NEVER: i64 = -1;

/// How the ledger writes what is kept.
pub(super) fn keep_text(keep: SnapshotScope) -> &'static str {
    match keep {
        SnapshotScope::Full => "full",
        SnapshotScope::DiskOnly => "filesystem",
    }
}

/// What the ledger wrote; `None` when it never wrote that.
pub(super) fn keep_of(text: &str) -> Option<SnapshotScope> {
    match text {
        "full" => Some(SnapshotScope::Full),
        "filesystem" => Some(SnapshotScope::DiskOnly),
        _ => None,
    }
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
            alias,
            timeout,
            idle_timeout,
            metadata,
            env,
            network,
            ..
        } = &entry.lasting;
        let timeout = match timeout {
            Window::For(span) => signed(span.as_secs()),
            Window::Never => NEVER,
        };
        Self {
            id: entry.id.to_string(),
            template: template.to_string(),
            state: if entry.running { "running" } else { "paused" }.to_owned(),
            epoch: signed(entry.epoch.0),
            started_at: entry.started_at.0,
            end_at: entry.end_at.0,
            timeout,
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
            alias: alias.clone(),
            auto_pause_memory: entry.lasting.auto_pause_keep == SnapshotScope::Full,
            kill_paused: entry.lasting.kill_paused,
            doomed_at: entry.doomed_at.map(|at| at.0),
            keep: entry.keep.map(|keep| keep_text(keep).to_owned()),
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
            doomed_at: row.doomed_at.map(Micros),
            keep: row
                .keep
                .map(|text| keep_of(&text).ok_or_else(|| bad("keep")))
                .transpose()?,
            resources: Resources {
                vcpus: u8::try_from(row.vcpus).map_err(|_| bad("vcpus"))?,
                memory: u64::try_from(row.memory).map_err(|_| bad("memory"))?,
                disk: u64::try_from(row.disk).map_err(|_| bad("disk"))?,
            },
            envd_token: row.envd_token.map(Secret::new),
            traffic_token: row.traffic_token.map(Secret::new),
            lasting: Lasting {
                template: row.template.parse().map_err(|_| bad("template"))?,
                alias: row.alias,
                timeout: match row.timeout {
                    NEVER => Window::Never,
                    span => Window::For(seconds(span, "timeout")?),
                },
                idle_timeout: row
                    .idle_timeout
                    .map(|idle| seconds(idle, "idle_timeout"))
                    .transpose()?,
                auto_pause: row.auto_pause,
                auto_pause_keep: if row.auto_pause_memory {
                    SnapshotScope::Full
                } else {
                    SnapshotScope::DiskOnly
                },
                kill_paused: row.kill_paused,
                auto_resume: row.auto_resume,
                metadata: map(&row.metadata, "metadata")?,
                env: map(&row.env, "env")?,
                network: network.transpose()?,
            },
        })
    }
}

impl Row {
    /// Adds the row.
    pub(super) async fn insert(self, to: &mut SqliteConnection) -> Result<(), sqlx::Error> {
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
        .bind(self.doomed_at)
        .bind(self.keep)
        .execute(to)
        .await?;
        Ok(())
    }
}
