//! The agent as it goes into root disks: static and small.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::{
    step::{logged, step},
    workspace::Workspace,
};

/// A target must be named for the flags to be those of the agent alone, and not of build scripts as well.
const TARGET: &str = "x86_64-unknown-linux-gnu";
const PROFILE: &str = "agent";

/// Builds `catnap-guest` and returns its path.
pub(super) fn build(workspace: &Workspace) -> Result<PathBuf> {
    let log = tempfile::NamedTempFile::new()?;
    // Nothing is relocated at start: every page that is written then is a page fault in the guest.
    let flags = format!(
        "target.{TARGET}.rustflags=[\"-Ctarget-feature=+crt-static\", \"-Crelocation-model=static\"]"
    );
    step("guest agent", || {
        let mut cargo = workspace.cargo();
        cargo
            .args(["build", "--package", "guest", "--bin", "catnap-guest"])
            .args(["--profile", PROFILE, "--target", TARGET, "--config", &flags])
            // These would be used instead of the flags above.
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        logged(&mut cargo, log.path())
    })?;
    let path = workspace
        .target
        .join(TARGET)
        .join(PROFILE)
        .join("catnap-guest");
    if !path.is_file() {
        bail!("cargo left no {}", path.display());
    }
    Ok(path)
}
