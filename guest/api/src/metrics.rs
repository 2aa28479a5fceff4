//! How busy a guest is.

use serde::{Deserialize, Serialize};

/// The answer of `GET /metrics`, in bytes where nothing else is said. The guest wrote it: what it says can be anything,
/// and is at least of these types.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metrics {
    /// When it was measured, in seconds of 1970 by the guest's clock.
    pub ts: i64,
    /// Processors.
    pub cpu_count: u32,
    /// Per cent of all of them that were busy since the last answer, 0 to 100; since the guest's start in the first.
    pub cpu_used_pct: f64,
    /// Memory there is.
    pub mem_total: u64,
    /// Memory that programs could not have.
    pub mem_used: u64,
    /// Memory that keeps files and can be had.
    pub mem_cache: u64,
    /// [`Metrics::mem_total`] in MiB.
    pub mem_total_mib: u64,
    /// [`Metrics::mem_used`] in MiB.
    pub mem_used_mib: u64,
    /// What is used of the root disk.
    pub disk_used: u64,
    /// The size of the root disk.
    pub disk_total: u64,
}
