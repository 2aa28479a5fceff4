//! `cargo xtask build`: everything that runs.

use anyhow::Result;

use crate::{apt, guest, step::shown, workspace::Workspace};

/// What to build, and how.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
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
    shown("catnap and catnap-vmm", &mut cargo)?;
    let profile = if options.debug { "debug" } else { "release" };
    eprintln!(
        "programs are in {}",
        workspace.target.join(profile).display()
    );
    Ok(())
}
