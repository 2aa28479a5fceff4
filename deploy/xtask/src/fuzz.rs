//! `cargo xtask fuzz`: looks for input that what reads strangers' bytes does not survive.
//!
//! libFuzzer, guided by the coverage that the stable compiler can be told to record. What it finds lies in the target
//! folder, and so does what it has learned, which the next run begins with.

use std::{fs, process::Command};

use anyhow::{Context, Result, bail};

use crate::{apt, step::shown, workspace::Workspace};

/// The targets, as `fuzz/Cargo.toml` has them.
const TARGETS: [&str; 4] = ["destination", "head", "message", "envelopes"];

/// What has the compiler record where a program has been, and what it compared. The option of the sanitizers that does
/// the same is not stable.
const COVERAGE: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// With a target named, dependencies that run at build time are built without [`COVERAGE`].
const HOST: &str = "x86_64-unknown-linux-gnu";

/// How long to look, and where.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// One target alone
    #[arg(long, value_parser = TARGETS)]
    target: Option<String>,
}

/// Builds the targets and runs them one after the other.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    apt::ensure(&[apt::BUILD, &["g++"]].concat())?;
    let folder = workspace.target.join("fuzz");
    let mut cargo = workspace.cargo();
    cargo
        .args(["build", "--release", "--locked", "--target", HOST])
        .arg("--manifest-path")
        .arg(workspace.path("fuzz/Cargo.toml"))
        .env("CARGO_TARGET_DIR", &folder)
        .env("RUSTFLAGS", COVERAGE.join(" "));
    shown("fuzz targets", &mut cargo)?;
    let targets = TARGETS.iter().filter(|name| {
        let wanted = options.target.as_deref();
        wanted.is_none_or(|wanted| wanted == **name)
    });
    for name in targets {
        let learned = folder.join("corpus").join(name);
        fs::create_dir_all(&learned).with_context(|| format!("make {}", learned.display()))?;
        let found = folder.join(format!("found-{name}-"));
        let mut target = Command::new(folder.join(HOST).join("release").join(name));
        target
            .arg(format!("-max_total_time={}", options.seconds))
            .arg(format!("-artifact_prefix={}", found.display()))
            .args([
                "-timeout=5",
                "-rss_limit_mb=2048",
                "-verbosity=0",
                "-print_final_stats=1",
            ])
            .arg(&learned);
        if let Err(error) = shown(&format!("fuzz {name}"), &mut target) {
            bail!("{error:#}; the input is beside {}", found.display());
        }
    }
    Ok(())
}
