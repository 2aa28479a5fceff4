//! `cargo xtask fuzz`: coverage-guided fuzzing of the parsers of untrusted input.
//!
//! libFuzzer uses the coverage instrumentation of the stable compiler. Findings and the corpus are in the target
//! directory; the next run starts with that corpus.

use std::{fs, process::Command};

use anyhow::{Context, Result, bail};

use crate::{apt, step::run_visible, workspace::Workspace};

/// The fuzz targets that `fuzz/Cargo.toml` declares.
const TARGETS: [&str; 4] = ["destination", "head", "message", "envelopes"];

/// Compiler flags that record coverage and the operands of comparisons. The equivalent sanitizer option is unstable.
const COVERAGE: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// With an explicit target, build scripts and procedural macros are built without [`COVERAGE`].
const HOST: &str = "x86_64-unknown-linux-gnu";

/// Selects the targets and their duration.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Run only this target
    #[arg(long, value_parser = TARGETS)]
    target: Option<String>,
}

/// Builds the targets and runs one after the other.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    apt::ensure_installed(&[apt::BUILD_PACKAGES, &["g++"]].concat())?;
    let dir = workspace.target.join("fuzz");
    let mut cargo = workspace.cargo();
    cargo
        .args(["build", "--release", "--locked", "--target", HOST])
        .arg("--manifest-path")
        .arg(workspace.path("fuzz/Cargo.toml"))
        .env("CARGO_TARGET_DIR", &dir)
        .env("RUSTFLAGS", COVERAGE.join(" "));
    run_visible("fuzz targets", &mut cargo)?;
    let selected = TARGETS.iter().filter(|name| {
        let only = options.target.as_deref();
        only.is_none_or(|only| only == **name)
    });
    for name in selected {
        let corpus = dir.join("corpus").join(name);
        fs::create_dir_all(&corpus)
            .with_context(|| format!("failed to create {}", corpus.display()))?;
        let findings = dir.join(format!("found-{name}-"));
        let mut target = Command::new(dir.join(HOST).join("release").join(name));
        target
            .arg(format!("-max_total_time={}", options.seconds))
            .arg(format!("-artifact_prefix={}", findings.display()))
            .args([
                "-timeout=5",
                "-rss_limit_mb=2048",
                "-verbosity=0",
                "-print_final_stats=1",
            ])
            .arg(&corpus);
        if let Err(error) = run_visible(&format!("fuzz {name}"), &mut target) {
            bail!("{error:#}; the failing input is at {}*", findings.display());
        }
    }
    Ok(())
}
