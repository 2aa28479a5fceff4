//! `cargo xtask test`: every check and test.
//!
//! The first step that fails ends the run. The tests run last, so that the summary of their runner ends the output.

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
    step::{run_visible, step},
    tidy,
    workspace::Workspace,
};

/// The same selection for every cargo command, so that nothing is built twice.
const EVERYTHING: &[&str] = &["--workspace", "--all-targets", "--all-features"];

/// Selects the tests.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Run the published clients whole in every combination, rather than a short list for some
    #[arg(long)]
    all: bool,
    /// Arguments for cargo-nextest after `--`, such as names of tests
    #[arg(last = true)]
    nextest: Vec<String>,
}

/// Runs every check, then the tests.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let began = Instant::now();
    apt::ensure_installed(&[apt::BUILD_PACKAGES, clients::DEBIAN_PACKAGES].concat())?;
    let guest = guest::build(workspace)?;
    let clients = clients::install(workspace)?;
    let templates = Cache::find()?.subdirectory("templates")?;
    let cargo = |arguments: &[&str]| {
        let mut cargo = workspace.cargo();
        cargo.args(arguments);
        cargo
    };
    run_visible("format", &mut cargo(&["fmt", "--all", "--check"]))?;
    let mut clippy = cargo(&["clippy"]);
    run_visible(
        "clippy",
        clippy.args(EVERYTHING).args(["--", "-D", "warnings"]),
    )?;
    // Tests start the programs `catnap` and `catnap-vmm`.
    run_visible("programs and tests", cargo(&["build"]).args(EVERYTHING))?;
    step("tidy", || tidy::run(workspace))?;
    run_visible(
        "doctests",
        &mut cargo(&["test", "--doc", "--workspace", "--all-features", "--quiet"]),
    )?;
    ensure_nextest(workspace)?;
    eprintln!("build and checks: {:.1} s", began.elapsed().as_secs_f64());
    warn_without_kvm();

    let mut nextest = cargo(&["nextest", "run"]);
    nextest
        .args(EVERYTHING)
        .args(&options.nextest)
        .env("CATNAP_GUEST_DIR", guest)
        .env("CATNAP_TEMPLATE_CACHE", templates)
        .env("CATNAP_CLIENTS", clients)
        .stdin(Stdio::null());
    if options.all {
        nextest.env("CATNAP_TEST_ALL", "1");
    }
    let status = nextest.status().context("failed to run cargo nextest")?;
    // The runner has printed the failures.
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Installs cargo-nextest if it is missing.
fn ensure_nextest(workspace: &Workspace) -> Result<()> {
    let works = |mut command: Command| -> Result<bool> {
        let status = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .context("failed to run cargo")?;
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
    run_visible(
        "install cargo-nextest (takes minutes, once)",
        install.args(["install", "cargo-nextest", "--locked"]),
    )?;
    if !works(version())? {
        bail!(
            "cargo nextest was installed but does not run: add the bin directory of cargo to PATH"
        );
    }
    Ok(())
}

/// Warns about the tests that skip without KVM.
fn warn_without_kvm() {
    let opened = File::options().read(true).write(true).open("/dev/kvm");
    if let Err(error) = opened {
        eprintln!(
            "\n!!! failed to open /dev/kvm ({error}). These tests need microVMs and SKIP:\n\
             !!!   vmm::flat (all), catnap::e2e (all)\n\
             !!! This run does NOT test the monitor and the gateway with real guests.\n"
        );
    }
}
