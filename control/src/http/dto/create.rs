//! The body of a create request. Unknown members are ignored.

use std::{collections::BTreeMap, time::Duration};

use pool_api::SnapshotScope;
use serde::Deserialize;
use serde_json::Value;

use super::request::{UnlimitedTimeout, lifetime, positive_seconds, scope};
use crate::{
    error::{Feature, ServiceError},
    ledger::SandboxSettings,
    network::Network,
    reference::Reference,
    service::CreateRequest,
};

/// The rules for the members of a create request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum ApiVersion {
    /// `POST /sandboxes`: secure on request, 15 seconds by default, accepts the members of CubeSandbox's clients.
    V1,
    /// `POST /sandboxes` from CubeSandbox's client: no deadline by default, and secure if the network is private, because
    /// that client has no member for it.
    Cube,
    /// `POST /v2/sandboxes`: always secure, 300 seconds by default.
    V2,
}

/// The body of a create request.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct CreateBody {
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

/// The form in which CubeSandbox's clients send `autoPause` and `autoResume`.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
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

/// What happens at the deadline and while paused.
struct PausePolicy {
    auto_pause: bool,
    scope: SnapshotScope,
    kill_paused: bool,
    auto_resume: bool,
}

impl ApiVersion {
    fn default_timeout(self) -> i64 {
        match self {
            Self::V1 => 15,
            Self::Cube => -1,
            Self::V2 => 300,
        }
    }

    fn unlimited_timeout(self) -> UnlimitedTimeout {
        match self {
            Self::Cube => UnlimitedTimeout::Allowed,
            Self::V1 | Self::V2 => UnlimitedTimeout::Refused,
        }
    }
}

impl CreateBody {
    /// Validates the members and applies the defaults.
    pub(in crate::http) fn validate(
        self,
        version: ApiVersion,
        max_lifetime: Duration,
    ) -> Result<CreateRequest, ServiceError> {
        let reference: Reference = self.template_id.parse()?;
        let seconds = self.timeout.unwrap_or(version.default_timeout());
        let lifetime = lifetime(seconds, max_lifetime, version.unlimited_timeout())?;
        let idle_timeout = self.idle_timeout.map(idle_timeout).transpose()?;
        let policy = self.pause_policy()?;
        let env = self.env_vars.unwrap_or_default();
        check_env(&env)?;
        let mut network = self.network.unwrap_or_default();
        network.allow_internet_access = self.allow_internet_access;
        network.validate()?;
        let secure = match version {
            ApiVersion::V2 => true,
            ApiVersion::V1 => self.secure == Some(true),
            ApiVersion::Cube => self.secure.unwrap_or(network.is_private()),
        };
        if network.is_private() && !secure {
            return Err(ServiceError::private_without_envd_token());
        }
        if self.volume_mounts.is_some_and(|mounts| !mounts.is_empty()) {
            return Err(ServiceError::Unsupported(Feature::Volumes));
        }
        if self.iam.is_some_and(|iam| !is_empty(&iam)) {
            return Err(ServiceError::Unsupported(Feature::WorkloadIdentities));
        }
        Ok(CreateRequest {
            reference,
            secure,
            settings: SandboxSettings {
                lifetime,
                idle_timeout,
                auto_pause: policy.auto_pause,
                auto_pause_scope: policy.scope,
                kill_paused: policy.kill_paused,
                auto_resume: policy.auto_resume,
                metadata: self.metadata.unwrap_or_default(),
                env,
                network,
            },
        })
    }
}

impl CreateBody {
    /// Merges E2B's and CubeSandbox's members about pauses.
    fn pause_policy(&self) -> Result<PausePolicy, ServiceError> {
        let lifecycle = self.lifecycle.unwrap_or_default();
        let policy = PausePolicy {
            auto_pause: self
                .auto_pause
                .unwrap_or(lifecycle.on_timeout == Some(OnTimeout::Pause)),
            scope: scope(self.auto_pause_memory),
            kill_paused: lifecycle.on_timeout == Some(OnTimeout::Kill),
            auto_resume: match &self.auto_resume {
                Some(auto) => auto.enabled,
                None => lifecycle.auto_resume == Some(true),
            },
        };
        let message = match policy.scope {
            SnapshotScope::DiskOnly if !policy.auto_pause => {
                "autoPauseMemory can be false only when autoPause is true"
            }
            SnapshotScope::DiskOnly if policy.auto_resume => {
                "autoPauseMemory cannot be false when autoResume is enabled: a request cannot wake a sandbox without \
                 memory"
            }
            SnapshotScope::Full | SnapshotScope::DiskOnly => return Ok(policy),
        };
        Err(ServiceError::Invalid(message.to_owned()))
    }
}

/// Whether a value is null, or an object of empty values.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(members) => members.values().all(is_empty),
        _ => false,
    }
}

fn check_env(env: &BTreeMap<String, String>) -> Result<(), ServiceError> {
    for (name, value) in env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            let name: String = name.chars().take(80).collect();
            return Err(ServiceError::Invalid(format!(
                "envVars has an invalid variable: {name:?}"
            )));
        }
    }
    Ok(())
}

/// The longest idle timeout.
const MAX_IDLE_TIMEOUT: Duration = Duration::from_secs(30 * 86_400);

fn idle_timeout(seconds: i64) -> Result<Duration, ServiceError> {
    let idle = positive_seconds(seconds)
        .ok_or_else(|| ServiceError::Invalid("idleTimeout must be greater than 0".to_owned()))?;
    if idle > MAX_IDLE_TIMEOUT {
        let days = MAX_IDLE_TIMEOUT.as_secs() / 86_400;
        return Err(ServiceError::Invalid(format!(
            "idleTimeout cannot be greater than {days} days"
        )));
    }
    Ok(idle)
}
