//! The body of a creation. Unknown members are accepted.

use std::{collections::BTreeMap, time::Duration};

use pool_api::SnapshotScope;
use serde::Deserialize;
use serde_json::Value;

use super::request::{keep, window};
use crate::{
    ledger::Lasting,
    network::Network,
    reference::Reference,
    sandboxes::{Failure, NewSandbox},
};

/// Which of the two creations it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Generation {
    /// Secured if asked for, short-lived, and open to what CubeSandbox's clients send.
    First,
    /// As the first, from one of those clients: it has no end unless it is given one, and is secured if it is private,
    /// for which those clients have no other word.
    Cube,
    /// Always secured.
    Second,
}

/// A sandbox to be made.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct New {
    #[serde(rename = "templateID")]
    template_id: String,
    timeout: Option<i64>,
    auto_pause: Option<bool>,
    auto_pause_memory: Option<bool>,
    auto_resume: Option<AutoResume>,
    lifecycle: Option<Lifecycle>,
    secure: Option<bool>,
    #[serde(rename = "allow_internet_access")]
    allow_internet_access: Option<bool>,
    network: Option<Network>,
    metadata: Option<BTreeMap<String, String>>,
    env_vars: Option<BTreeMap<String, String>>,
    idle_timeout: Option<i64>,
    volume_mounts: Option<Vec<Value>>,
    iam: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct AutoResume {
    #[serde(default)]
    enabled: bool,
}

/// How CubeSandbox's clients say what E2B's say with `autoPause` and `autoResume`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Lifecycle {
    on_timeout: Option<OnTimeout>,
    auto_resume: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OnTimeout {
    Kill,
    Pause,
}

impl Generation {
    fn default_timeout(self) -> i64 {
        match self {
            Self::First => 15,
            Self::Cube => -1,
            Self::Second => 300,
        }
    }
}

impl New {
    /// What is meant.
    pub(crate) fn meant(
        self,
        generation: Generation,
        longest: Duration,
    ) -> Result<NewSandbox, Failure> {
        let reference: Reference = self.template_id.parse()?;
        let never = generation != Generation::Second;
        let seconds = self.timeout.unwrap_or(generation.default_timeout());
        let timeout = window(seconds, longest, never)?;
        let idle_timeout = self.idle_timeout.map(idle).transpose()?;
        let on_timeout = self.lifecycle.as_ref().and_then(|cycle| cycle.on_timeout);
        let auto_pause = self
            .auto_pause
            .unwrap_or(on_timeout == Some(OnTimeout::Pause));
        let auto_resume = match &self.auto_resume {
            Some(auto) => auto.enabled,
            None => self.lifecycle.as_ref().and_then(|cycle| cycle.auto_resume) == Some(true),
        };
        let auto_pause_keep = keep(self.auto_pause_memory);
        check_keep(auto_pause_keep, auto_pause, auto_resume)?;
        let env = self.env_vars.unwrap_or_default();
        check_env(&env)?;
        let mut network = self.network.unwrap_or_default();
        network.allow_internet_access = self.allow_internet_access;
        network.check()?;
        let secure = match generation {
            Generation::Second => true,
            Generation::First => self.secure == Some(true),
            Generation::Cube => self.secure.unwrap_or(network.is_private()),
        };
        if network.is_private() && !secure {
            return Err(Failure::insecure());
        }
        if self.volume_mounts.is_some_and(|mounts| !mounts.is_empty()) {
            return Err(Failure::Later("volumes are"));
        }
        if self.iam.is_some_and(|iam| !is_empty(&iam)) {
            return Err(Failure::Later("workload identities are"));
        }
        let lasting = Lasting {
            template: reference.name.clone(),
            alias: None,
            timeout,
            idle_timeout,
            auto_pause,
            auto_pause_keep,
            kill_paused: on_timeout == Some(OnTimeout::Kill),
            auto_resume,
            metadata: self.metadata.unwrap_or_default(),
            env,
            network: network.kept(),
        };
        Ok(NewSandbox {
            reference,
            lasting,
            secure,
            private: network.is_private(),
        })
    }
}

/// Whether nothing is said, however it is said.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(members) => members.values().all(is_empty),
        _ => false,
    }
}

fn check_keep(keep: SnapshotScope, auto_pause: bool, auto_resume: bool) -> Result<(), Failure> {
    if keep == SnapshotScope::Full {
        return Ok(());
    }
    let message = if !auto_pause {
        "autoPauseMemory can be false only when autoPause is true"
    } else if auto_resume {
        "autoPauseMemory cannot be false when autoResume is enabled: a request cannot wake a sandbox without memory"
    } else {
        return Ok(());
    };
    Err(Failure::Invalid(message.to_owned()))
}

fn check_env(env: &BTreeMap<String, String>) -> Result<(), Failure> {
    for (name, value) in env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            let name: String = name.chars().take(80).collect();
            return Err(Failure::Invalid(format!(
                "envVars has a variable that cannot be set: {name:?}"
            )));
        }
    }
    Ok(())
}

fn idle(seconds: i64) -> Result<Duration, Failure> {
    let span = u64::try_from(seconds)
        .ok()
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs);
    span.ok_or_else(|| Failure::Invalid("idleTimeout must be greater than 0".to_owned()))
}
