//! Bodies of requests about a sandbox. Unknown members are ignored.

use std::time::Duration;

use pool_api::SnapshotScope;
use serde::Deserialize;

use crate::{error::ServiceError, http::extract::ClientKind, time::Lifetime};

/// The body of a connect request.
#[derive(Debug, Default, Deserialize)]
pub(in crate::http) struct ConnectBody {
    pub(in crate::http) timeout: Option<i64>,
    pub(in crate::http) memory: Option<bool>,
}

/// The body of a resume request.
#[derive(Debug, Default, Deserialize)]
pub(in crate::http) struct ResumeBody {
    pub(in crate::http) timeout: Option<i64>,
    pub(in crate::http) memory: Option<bool>,
}

/// The body of a pause request.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct PauseBody {
    pub(in crate::http) memory: Option<bool>,
    pub(in crate::http) require_healthy_guest: Option<bool>,
}

/// The body of a snapshot request.
#[derive(Debug, Default, Deserialize)]
pub(in crate::http) struct SnapshotBody {
    pub(in crate::http) name: Option<String>,
    pub(in crate::http) memory: Option<bool>,
}

/// The body of a rollback request.
#[derive(Debug, Deserialize)]
pub(in crate::http) struct RollbackBody {
    #[serde(rename = "snapshotID")]
    pub(in crate::http) snapshot_id: String,
}

/// The body of a fork request.
#[derive(Debug, Default, Deserialize)]
pub(in crate::http) struct ForkBody {
    pub(in crate::http) timeout: Option<i64>,
    pub(in crate::http) count: Option<i64>,
}

/// The body of a timeout request.
#[derive(Debug, Deserialize)]
pub(in crate::http) struct TimeoutBody {
    pub(in crate::http) timeout: i64,
}

/// The body of a refresh request.
#[derive(Debug, Default, Deserialize)]
pub(in crate::http) struct RefreshBody {
    pub(in crate::http) duration: Option<i64>,
}

/// Whether a timeout of -1 means no deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum UnlimitedTimeout {
    Allowed,
    Refused,
}

impl UnlimitedTimeout {
    /// CubeSandbox's clients may ask for it. E2B's contract refuses it.
    pub(in crate::http) fn of(client: ClientKind) -> Self {
        match client {
            ClientKind::Cube => Self::Allowed,
            ClientKind::E2b | ClientKind::Other => Self::Refused,
        }
    }
}

/// Converts the member `memory`.
pub(in crate::http) fn scope(memory: Option<bool>) -> SnapshotScope {
    if memory == Some(false) {
        SnapshotScope::DiskOnly
    } else {
        SnapshotScope::Full
    }
}

/// Converts a number of seconds above zero.
pub(super) fn positive_seconds(seconds: i64) -> Option<Duration> {
    u64::try_from(seconds)
        .ok()
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs)
}

/// Converts the timeout of a start.
pub(in crate::http) fn lifetime(
    seconds: i64,
    max: Duration,
    unlimited: UnlimitedTimeout,
) -> Result<Lifetime, ServiceError> {
    if unlimited == UnlimitedTimeout::Allowed && seconds == -1 {
        return Ok(Lifetime::Unlimited);
    }
    let span = positive_seconds(seconds)
        .ok_or_else(|| ServiceError::Invalid("Timeout must be greater than 0".to_owned()))?;
    if span > max {
        let hours = max.as_secs() / 3600;
        return Err(ServiceError::Invalid(format!(
            "Timeout cannot be greater than {hours} hours"
        )));
    }
    Ok(Lifetime::For(span))
}

/// Converts the timeout of a running sandbox, which may be zero.
pub(in crate::http) fn remaining_lifetime(
    seconds: i64,
    max: Duration,
    unlimited: UnlimitedTimeout,
) -> Result<Lifetime, ServiceError> {
    if unlimited == UnlimitedTimeout::Allowed && seconds == -1 {
        return Ok(Lifetime::Unlimited);
    }
    let span = u64::try_from(seconds).map(Duration::from_secs);
    let span =
        span.map_err(|_| ServiceError::Invalid("Timeout must not be negative".to_owned()))?;
    if span > max {
        return Err(ServiceError::Invalid(
            "Max instance length exceeded".to_owned(),
        ));
    }
    Ok(Lifetime::For(span))
}
