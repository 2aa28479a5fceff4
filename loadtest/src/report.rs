//! Report: rows of measurements, with the machine and the command.

use std::{fs, io::Write, time::Duration};

use crate::histogram::Histogram;

/// Measurements of one run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    /// Facts that are no durations.
    notes: Vec<String>,
}

#[derive(Debug)]
struct Row {
    name: String,
    p50: Duration,
    p99: Duration,
    count: u64,
    floor: Option<Duration>,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a row; `floor` is the p50 of the kernel operations alone.
    pub(crate) fn add(
        &mut self,
        name: impl Into<String>,
        histogram: &Histogram,
        floor: Option<Duration>,
    ) {
        let (p50, p99, count) = (histogram.p50(), histogram.p99(), histogram.count());
        self.rows.push(Row {
            name: name.into(),
            p50,
            p99,
            count,
            floor,
        });
    }

    /// Adds a line of text.
    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    pub(crate) fn print(&self, json: bool) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if !json {
            writeln!(out, "machine: {}", machine())?;
            writeln!(
                out,
                "command: {}",
                std::env::args().collect::<Vec<_>>().join(" ")
            )?;
            writeln!(
                out,
                "{:<52} {:>12} {:>12} {:>7} {:>12} {:>7}",
                "", "p50", "p99", "count", "floor", "ratio"
            )?;
        }
        for row in &self.rows {
            let ratio = row
                .floor
                .map(|floor| row.p50.as_secs_f64() / floor.as_secs_f64().max(1e-9));
            if json {
                let value = serde_json::json!({
                    "name": row.name, "p50_ns": row.p50.as_nanos(), "p99_ns": row.p99.as_nanos(), "count": row.count,
                    "floor_ns": row.floor.map(|floor| floor.as_nanos()), "ratio": ratio,
                });
                writeln!(out, "{value}")?;
                continue;
            }
            let floor = row.floor.map_or_else(String::new, format_duration);
            let ratio = ratio.map_or_else(String::new, |ratio| format!("{ratio:.1}"));
            let (p50, p99) = (format_duration(row.p50), format_duration(row.p99));
            writeln!(
                out,
                "{:<52} {p50:>12} {p99:>12} {:>7} {floor:>12} {ratio:>7}",
                row.name, row.count
            )?;
        }
        for note in &self.notes {
            if json {
                writeln!(out, "{}", serde_json::json!({ "note": note }))?;
            } else {
                writeln!(out, "{note}")?;
            }
        }
        Ok(())
    }
}

fn format_duration(duration: Duration) -> String {
    let micros = duration.as_secs_f64() * 1e6;
    if micros < 10.0 {
        format!("{micros:.2} us")
    } else if micros < 10_000.0 {
        format!("{micros:.0} us")
    } else {
        format!("{:.1} ms", micros / 1e3)
    }
}

fn machine() -> String {
    let first_value = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text
            .lines()
            .find(|line| line.starts_with(key))
            .unwrap_or_default()
            .to_owned();
        line.split_once(':')
            .map_or(line.clone(), |(_, value)| value.trim().to_owned())
    };
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kvm = ["kvm_pvm", "kvm_amd", "kvm_intel"]
        .into_iter()
        .find(|module| fs::metadata(format!("/sys/module/{module}")).is_ok())
        .unwrap_or("no KVM module");
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{} x {}, Linux {}, {kvm}",
        cpus,
        first_value("/proc/cpuinfo", "model name"),
        kernel.trim()
    )
}
