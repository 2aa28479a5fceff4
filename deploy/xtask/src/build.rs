//! `cargo xtask build`: every program.

use anyhow::Result;

use crate::{apt, guest, step::run_visible, workspace::Workspace};

/// Selects the programs and their profile.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct Options {
    /// Build `catnap` and `catnap-vmm` with debug assertions and without optimisation
    #[arg(long)]
    pub(crate) debug: bool,
    /// Build only the guest kernel, root disk and agent
    #[arg(long)]
    pub(crate) guest_only: bool,
}

/// Builds the guest artefacts and the programs.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    apt::ensure_installed(apt::BUILD_PACKAGES)?;
    let guest = guest::build(workspace)?;
    eprintln!("guest artefacts: {}", guest.display());
    if options.guest_only {
        return Ok(());
    }
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--package", "catnap", "--package", "vmm"]);
    if !options.debug {
        cargo.arg("--release");
    }
    run_visible("catnap and catnap-vmm", &mut cargo)?;
    let profile = if options.debug { "debug" } else { "release" };
    eprintln!("programs: {}", workspace.target.join(profile).display());
    Ok(())
}
