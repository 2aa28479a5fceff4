//! `GET /metrics`: how busy the guest is.

use std::{cell::Cell, fs, io};

use guest_api::Metrics;
use nix::sys::statvfs::statvfs;

const MIB: u64 = 1 << 20;

/// The kernel did not tell.
#[derive(Debug, thiserror::Error)]
#[error("read {what}")]
pub(crate) struct MetricsError {
    what: &'static str,
    #[source]
    source: io::Error,
}

/// Ticks of the processors since the guest booted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Ticks {
    busy: u64,
    all: u64,
    cpus: u32,
}

/// Remembers the ticks at the last answer: usage is what they grew by since.
#[derive(Debug, Default)]
pub(crate) struct Load {
    last: Cell<Ticks>,
}

impl Load {
    /// The numbers now; `ts` is in seconds of 1970.
    pub(crate) fn read(&self, ts: i64) -> Result<Metrics, MetricsError> {
        let failed = |what| move |source| MetricsError { what, source };
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

fn used_percent(last: Ticks, now: Ticks) -> f64 {
    let all = now.all.saturating_sub(last.all);
    let busy = now.busy.saturating_sub(last.busy).min(all);
    if all == 0 {
        return 0.0;
    }
    // Tenths, so that no precision is lost on the way to a float.
    let tenths = u32::try_from(u128::from(busy) * 1000 / u128::from(all)).unwrap_or(1000);
    f64::from(tenths) / 10.0
}

/// `cpu user nice system idle iowait irq softirq steal ...`, and a line for each processor.
fn parse_stat(text: &str) -> Ticks {
    let mut ticks = Ticks::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("cpu") => {
                let numbers = words.take(8).map(|word| word.parse::<u64>().unwrap_or(0));
                for (at, number) in numbers.enumerate() {
                    ticks.all = ticks.all.saturating_add(number);
                    if !matches!(at, 3 | 4) {
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

/// `Name:   123 kB`, in bytes.
fn parse_meminfo(text: &str, name: &str) -> u64 {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = value.and_then(|value| value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn usage_is_what_grew_since_the_last_answer() {
        let before = parse_stat("cpu 10 0 10 70 10 0 0 0 5 0\ncpu0 1\ncpu1 1\nintr 3\n");
        assert_eq!(
            before,
            Ticks {
                busy: 20,
                all: 100,
                cpus: 2
            }
        );
        let after = Ticks {
            busy: 70,
            all: 200,
            cpus: 2,
        };
        assert!((used_percent(before, after) - 50.0).abs() < 1e-9);
        assert!(used_percent(after, after) < 1e-9);
    }

    #[test]
    fn the_real_kernel_is_understood() {
        let metrics = Load::default().read(7).unwrap();
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
        fn any_text_is_read(text: String, name in "[A-Z]?") {
            let ticks = parse_stat(&text);
            prop_assert!(ticks.busy <= ticks.all);
            let _bytes = parse_meminfo(&text, &name);
        }
    }
}
