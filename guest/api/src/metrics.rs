//! Resource usage of a guest.

use serde::{Deserialize, Serialize};

/// The response of `GET /metrics`. Sizes are in bytes unless stated otherwise. The guest is untrusted: every value of
/// these types is possible.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metrics {
    /// The time of the sample in Unix seconds, by the clock of the guest.
    pub ts: i64,
    /// The number of CPUs.
    pub cpu_count: u32,
    /// Usage of all CPUs in per cent, 0 to 100, since the previous sample; in the first sample since boot.
    pub cpu_used_pct: f64,
    /// Total memory.
    pub mem_total: u64,
    /// Memory that is not available to programs.
    pub mem_used: u64,
    /// Memory of the page cache.
    pub mem_cache: u64,
    /// [`Metrics::mem_total`] in MiB.
    pub mem_total_mib: u64,
    /// [`Metrics::mem_used`] in MiB.
    pub mem_used_mib: u64,
    /// Used space of the root disk.
    pub disk_used: u64,
    /// Size of the root disk.
    pub disk_total: u64,
}
