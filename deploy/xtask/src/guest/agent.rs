//! The guest agent as installed in root disks: static and optimised for size.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::{
    step::{run_logged, step},
    workspace::Workspace,
};

/// With an explicit target, the flags apply to the agent and not to build scripts.
const TARGET: &str = "x86_64-unknown-linux-gnu";
const PROFILE: &str = "agent";

/// Builds `catnap-guest` and returns its path.
pub(super) fn build(workspace: &Workspace) -> Result<PathBuf> {
    let log = tempfile::NamedTempFile::new()?;
    // Without relocations at start-up, fewer pages are written; each would be a page fault in the guest.
    let flags = format!(
        "target.{TARGET}.rustflags=[\"-Ctarget-feature=+crt-static\", \"-Crelocation-model=static\"]"
    );
    step("guest agent", || {
        let mut cargo = workspace.cargo();
        cargo
            .args(["build", "--package", "guest", "--bin", "catnap-guest"])
            .args(["--profile", PROFILE, "--target", TARGET, "--config", &flags])
            // These variables override the flags above.
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        run_logged(&mut cargo, log.path())
    })?;
    let path = workspace
        .target
        .join(TARGET)
        .join(PROFILE)
        .join("catnap-guest");
    if !path.is_file() {
        bail!("cargo did not create {}", path.display());
    }
    Ok(path)
}
