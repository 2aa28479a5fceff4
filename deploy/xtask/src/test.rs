//! `cargo xtask test`: every check and test.
//!
//! The first step that fails ends the run. The tests come last, so that their runner's own summary is the last thing said.

use std::{
    fs::File,
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail};

use crate::{
    apt,
    cache::Cache,
    clients, guest,
    step::{shown, step},
    tidy,
    workspace::Workspace,
};

/// What cargo is asked for, always the same, so that nothing is built twice.
const EVERYTHING: &[&str] = &["--workspace", "--all-targets", "--all-features"];

/// Which tests to run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// What cargo-nextest is given, after `--`: names of tests, for one
    #[arg(last = true)]
    nextest: Vec<String>,
}

/// Runs them all.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let began = Instant::now();
    apt::ensure(&[apt::BUILD, clients::PACKAGES].concat())?;
    let guest = guest::build(workspace)?;
    let clients = clients::install(workspace)?;
    let templates = Cache::find()?.folder("templates")?;
    let cargo = |arguments: &[&str]| {
        let mut cargo = workspace.cargo();
        cargo.args(arguments);
        cargo
    };
    shown("format", &mut cargo(&["fmt", "--all", "--check"]))?;
    let mut clippy = cargo(&["clippy"]);
    shown(
        "clippy",
        clippy.args(EVERYTHING).args(["--", "-D", "warnings"]),
    )?;
    // `catnap` and `catnap-vmm`, which tests start, and the tests themselves.
    shown("programs and tests", cargo(&["build"]).args(EVERYTHING))?;
    step("tidy", || tidy::run(workspace))?;
    shown(
        "doctests",
        &mut cargo(&["test", "--doc", "--workspace", "--all-features", "--quiet"]),
    )?;
    ensure_nextest(workspace)?;
    eprintln!(
        "before the tests: {:.1} s altogether",
        began.elapsed().as_secs_f64()
    );
    warn_without_kvm();

    let mut nextest = cargo(&["nextest", "run"]);
    nextest
        .args(EVERYTHING)
        .args(&options.nextest)
        .env("CATNAP_GUEST_DIR", guest)
        .env("CATNAP_TEMPLATE_CACHE", templates)
        .env("CATNAP_CLIENTS", clients)
        .stdin(Stdio::null());
    let status = nextest.status().context("run cargo nextest")?;
    // The runner has said it all.
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Installs cargo-nextest where there is none.
fn ensure_nextest(workspace: &Workspace) -> Result<()> {
    let works = |mut command: Command| -> Result<bool> {
        let status = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .context("run cargo")?;
        Ok(status.success())
    };
    let version = || {
        let mut cargo = workspace.cargo();
        cargo.args(["nextest", "--version"]);
        cargo
    };
    if works(version())? {
        return Ok(());
    }
    let mut install = workspace.cargo();
    shown(
        "cargo-nextest (some minutes, once)",
        install.args(["install", "cargo-nextest", "--locked"]),
    )?;
    if !works(version())? {
        bail!("cargo nextest was installed and does not run: is cargo's bin folder in PATH?");
    }
    Ok(())
}

/// Says what is not tested where no machine can run.
fn warn_without_kvm() {
    let opened = File::options().read(true).write(true).open("/dev/kvm");
    if let Err(error) = opened {
        eprintln!(
            "\n!!! /dev/kvm cannot be opened ({error}). No microVM runs here, so these tests SKIP:\n\
             !!!   vmm::flat (all), catnap::e2e (all)\n\
             !!! The machine monitor and the whole path are NOT tested by this run.\n"
        );
    }
}
