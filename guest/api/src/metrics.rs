//! How busy a guest is.

use serde::{Deserialize, Serialize};

/// What the agent answers to `GET /metrics`; in bytes where nothing else is said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// When, in seconds since 1970, by the guest's clock.
    pub ts: i64,
    /// Processors.
    pub cpu_count: u32,
    /// How much of them was used since it was asked last, in per cent of all of them.
    pub cpu_used_pct: f64,
    /// Memory it has.
    pub mem_total: u64,
    /// Memory in use.
    pub mem_used: u64,
    /// Memory that holds files.
    pub mem_cache: u64,
    /// Memory it has, in MiB.
    pub mem_total_mib: u64,
    /// Memory in use, in MiB.
    pub mem_used_mib: u64,
    /// Bytes in use on the root disk.
    pub disk_used: u64,
    /// Bytes the root disk has.
    pub disk_total: u64,
}
