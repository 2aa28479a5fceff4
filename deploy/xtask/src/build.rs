//! `cargo xtask build`: everything that runs.

use anyhow::{Result, bail};

use crate::{apt, guest, step::step, workspace::Workspace};

/// What to build, and how.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Options {
    /// Build `catnap` and `catnap-vmm` with debug assertions and without optimisation
    #[arg(long)]
    pub(crate) debug: bool,
    /// Build only what goes into guests: the kernel, the root disk and the agent
    #[arg(long)]
    pub(crate) guest_only: bool,
}

/// Builds it.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    apt::ensure(apt::BUILD)?;
    let guest = guest::build(workspace)?;
    eprintln!("guest artefacts are in {}", guest.display());
    if options.guest_only {
        return Ok(());
    }
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--package", "catnap", "--package", "vmm"]);
    if !options.debug {
        cargo.arg("--release");
    }
    // Cargo shows its own progress, so its output is not kept from the terminal.
    let status = step("catnap and catnap-vmm", || Ok(cargo.status()?))?;
    if !status.success() {
        bail!("cargo build failed ({status})");
    }
    let profile = if options.debug { "debug" } else { "release" };
    eprintln!(
        "programs are in {}",
        workspace.target.join(profile).display()
    );
    Ok(())
}
