//! Bodies of requests. Unknown members are accepted.

use std::time::Duration;

use pool_api::SnapshotScope;
use serde::Deserialize;

use crate::{sandboxes::Failure, time::Window};

/// Connect.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Connect {
    pub(crate) timeout: Option<i64>,
    pub(crate) memory: Option<bool>,
}

/// Resume.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Resume {
    pub(crate) timeout: Option<i64>,
    pub(crate) memory: Option<bool>,
}

/// Pause.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Pause {
    pub(crate) memory: Option<bool>,
    pub(crate) require_healthy_guest: Option<bool>,
}

/// Snapshot.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) name: Option<String>,
    pub(crate) memory: Option<bool>,
}

/// Rollback.
#[derive(Debug, Deserialize)]
pub(crate) struct Rollback {
    #[serde(rename = "snapshotID")]
    pub(crate) snapshot_id: String,
}

/// Fork.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Fork {
    pub(crate) timeout: Option<i64>,
    pub(crate) count: Option<i64>,
}

/// Timeout.
#[derive(Debug, Deserialize)]
pub(crate) struct Timeout {
    pub(crate) timeout: i64,
}

/// Refresh.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Refresh {
    pub(crate) duration: Option<i64>,
}

/// What is kept, or woken from, when this is said of memory.
pub(crate) fn keep(memory: Option<bool>) -> SnapshotScope {
    if memory == Some(false) {
        SnapshotScope::DiskOnly
    } else {
        SnapshotScope::Full
    }
}

/// What a caller gives a sandbox, if it is more than nothing and not too much. `never`: -1 is for ever.
pub(crate) fn window(seconds: i64, longest: Duration, never: bool) -> Result<Window, Failure> {
    if never && seconds == -1 {
        return Ok(Window::Never);
    }
    let span = u64::try_from(seconds)
        .ok()
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs);
    let span = span.ok_or_else(|| Failure::Invalid("Timeout must be greater than 0".to_owned()))?;
    if span > longest {
        let hours = longest.as_secs() / 3600;
        return Err(Failure::Invalid(format!(
            "Timeout cannot be greater than {hours} hours"
        )));
    }
    Ok(Window::For(span))
}

/// As [`window`], for one that may be over at once.
pub(crate) fn timeout(seconds: i64, longest: Duration) -> Result<Window, Failure> {
    if seconds == -1 {
        return Ok(Window::Never);
    }
    let span = u64::try_from(seconds).map(Duration::from_secs);
    let span = span.map_err(|_| Failure::Invalid("Timeout must not be negative".to_owned()))?;
    if span > longest {
        return Err(Failure::Invalid("Max instance length exceeded".to_owned()));
    }
    Ok(Window::For(span))
}
