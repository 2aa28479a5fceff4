//! `cargo xtask tidy`: the rules that a machine can check.

use anyhow::Result;

use crate::workspace::Workspace;

/// Checks them all.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let _ = workspace;
    Ok(())
}
