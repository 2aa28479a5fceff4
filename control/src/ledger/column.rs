//! Encodings of columns.
//!
//! These names on disk differ from those in the code:
//!
//! | on disk | in the code |
//! | --- | --- |
//! | `sandboxes.doomed_at` | `SandboxRecord::kill_at` |
//! | `sandboxes.keep`: `full`, `filesystem` | `SandboxRecord::pause_scope`: `Full`, `DiskOnly` |
//! | `sandboxes.timeout`: seconds, -1 | `SandboxSettings::lifetime`: `For`, `Unlimited` |
//! | `sandboxes.auto_pause_memory`: 1, 0 | `SandboxSettings::auto_pause_scope`: `Full`, `DiskOnly` |
//! | `builds.keep` | `Build::scope` |
//! | `answers` | [`super::StoredResponse`] |

use std::str::FromStr;

use pool_api::{Resources, SnapshotScope};

use super::error::LedgerError;

/// Stands for an unlimited lifetime in a column of seconds.
pub(super) const UNLIMITED: i64 = -1;

/// Encodes a scope.
pub(super) fn scope_text(scope: SnapshotScope) -> &'static str {
    match scope {
        SnapshotScope::Full => "full",
        SnapshotScope::DiskOnly => "filesystem",
    }
}

/// Decodes a scope.
pub(super) fn scope_from_text(text: &str) -> Option<SnapshotScope> {
    match text {
        "full" => Some(SnapshotScope::Full),
        "filesystem" => Some(SnapshotScope::DiskOnly),
        _ => None,
    }
}

/// Converts to SQLite's signed integers, saturating; no value here comes near the limit.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Parses a text column of the row with key `id`.
pub(super) fn parse<T: FromStr>(
    text: &str,
    id: &str,
    column: &'static str,
) -> Result<T, LedgerError> {
    text.parse().map_err(|_| malformed(id, column))
}

/// The error for an invalid column of the row with key `id`.
pub(super) fn malformed(id: &str, column: &'static str) -> LedgerError {
    LedgerError::Malformed {
        id: id.to_owned(),
        column,
    }
}

/// Decodes the columns `vcpus`, `memory` and `disk` of the row with key `id`.
pub(super) fn resources(
    vcpus: i64,
    memory: i64,
    disk: i64,
    id: &str,
) -> Result<Resources, LedgerError> {
    Ok(Resources {
        vcpus: u8::try_from(vcpus).map_err(|_| malformed(id, "vcpus"))?,
        memory: u64::try_from(memory).map_err(|_| malformed(id, "memory"))?,
        disk: u64::try_from(disk).map_err(|_| malformed(id, "disk"))?,
    })
}
