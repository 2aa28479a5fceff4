//! Samples CPU, memory and disk usage of the guest for `GET /metrics`.

use std::{cell::Cell, fs, io};

use guest_api::Metrics;
use nix::sys::statvfs::statvfs;

const MIB: u64 = 1 << 20;

/// An error reading usage from the kernel.
#[derive(Debug, thiserror::Error)]
#[error("failed to read {source_name}")]
pub(crate) struct MetricsError {
    source_name: &'static str,
    #[source]
    source: io::Error,
}

/// CPU time since boot, in ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct CpuTicks {
    busy: u64,
    total: u64,
    cpus: u32,
}

/// Measures CPU usage between two samples.
#[derive(Debug, Default)]
pub(crate) struct UsageSampler {
    last: Cell<CpuTicks>,
}

impl UsageSampler {
    /// Reads current usage. `ts` is the time in Unix seconds.
    pub(crate) fn sample(&self, ts: i64) -> Result<Metrics, MetricsError> {
        let failed = |source_name| {
            move |source| MetricsError {
                source_name,
                source,
            }
        };
        let stat = fs::read_to_string("/proc/stat").map_err(failed("/proc/stat"))?;
        let info = fs::read_to_string("/proc/meminfo").map_err(failed("/proc/meminfo"))?;
        let disk = statvfs("/")
            .map_err(io::Error::from)
            .map_err(failed("size of the root disk"))?;
        let ticks = parse_stat(&stat);
        let last = self.last.replace(ticks);
        let mem = |name| parse_meminfo(&info, name);
        let (total, cache) = (mem("MemTotal"), mem("Cached"));
        let used = total.saturating_sub(mem("MemAvailable"));
        let blocks = disk.blocks().saturating_sub(disk.blocks_free());
        Ok(Metrics {
            ts,
            cpu_count: ticks.cpus,
            cpu_used_pct: used_percent(last, ticks),
            mem_total: total,
            mem_used: used,
            mem_cache: cache,
            mem_total_mib: total / MIB,
            mem_used_mib: used / MIB,
            disk_used: blocks.saturating_mul(disk.fragment_size()),
            disk_total: disk.blocks().saturating_mul(disk.fragment_size()),
        })
    }
}

fn used_percent(last: CpuTicks, now: CpuTicks) -> f64 {
    let total = now.total.saturating_sub(last.total);
    let busy = now.busy.saturating_sub(last.busy).min(total);
    if total == 0 {
        return 0.0;
    }
    // Tenths of a per cent fit into u32, which converts to f64 without loss.
    let tenths = u32::try_from(u128::from(busy) * 1000 / u128::from(total)).unwrap_or(1000);
    f64::from(tenths) / 10.0
}

/// Parses `cpu user nice system idle iowait irq softirq steal ...`, followed by a line for each CPU.
fn parse_stat(text: &str) -> CpuTicks {
    let mut ticks = CpuTicks::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("cpu") => {
                let numbers = words.take(8).map(|word| word.parse::<u64>().unwrap_or(0));
                for (column, number) in numbers.enumerate() {
                    ticks.total = ticks.total.saturating_add(number);
                    if !matches!(column, 3 | 4) {
                        ticks.busy = ticks.busy.saturating_add(number);
                    }
                }
            }
            Some(name) if name.starts_with("cpu") => ticks.cpus = ticks.cpus.saturating_add(1),
            _ => {}
        }
    }
    ticks
}

/// Parses `Name:   123 kB` to bytes.
fn parse_meminfo(text: &str, name: &str) -> u64 {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = value.and_then(|value| value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cpu_usage_is_measured_between_samples() {
        let before = parse_stat("cpu 10 0 10 70 10 0 0 0 5 0\ncpu0 1\ncpu1 1\nintr 3\n");
        assert_eq!(
            before,
            CpuTicks {
                busy: 20,
                total: 100,
                cpus: 2
            }
        );
        let after = CpuTicks {
            busy: 70,
            total: 200,
            cpus: 2,
        };
        assert!((used_percent(before, after) - 50.0).abs() < 1e-9);
        assert!(used_percent(after, after) < 1e-9);
    }

    #[test]
    fn metrics_of_the_running_kernel_are_plausible() {
        let metrics = UsageSampler::default().sample(7).unwrap();
        assert!(
            metrics.cpu_count > 0 && metrics.mem_total > metrics.mem_used && metrics.mem_used > 0,
            "{metrics:?}"
        );
        assert!(
            metrics.disk_total >= metrics.disk_used && metrics.disk_total > 0,
            "{metrics:?}"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_text_does_not_panic(text: String, name in "[A-Z]?") {
            let ticks = parse_stat(&text);
            prop_assert!(ticks.busy <= ticks.total);
            let _bytes = parse_meminfo(&text, &name);
        }
    }
}
