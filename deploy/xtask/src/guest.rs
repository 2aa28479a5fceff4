//! The guest kernel, the root disk of the `base` template, and the guest agent.

mod agent;
mod kernel;
mod rootfs;

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{apt, cache::Cache, workspace::Workspace};

/// Builds what the cache lacks, and returns `target/guest` with links to the artefacts.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf> {
    apt::require_bookworm()?;
    let cache = Cache::find()?;
    let agent = agent::build(workspace)?;
    let image = rootfs::build(workspace, &cache, &agent)?;
    let kernel = kernel::build(workspace, &cache)?;
    let dir = workspace.target.join("guest");
    fs::create_dir_all(&dir).with_context(|| format!("failed to create {}", dir.display()))?;
    link(&kernel, &dir.join("vmlinux"))?;
    link(&image, &dir.join("base.ext4"))?;
    link(&agent, &dir.join("catnap-guest"))?;
    Ok(dir)
}

/// Atomically replaces `name` by a symbolic link to `target`.
fn link(target: &Path, name: &Path) -> Result<()> {
    let temporary = name.with_extension("new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("failed to remove {}", temporary.display()));
        }
        _ => {}
    }
    symlink(target, &temporary)
        .with_context(|| format!("failed to create the link {}", temporary.display()))?;
    fs::rename(&temporary, name).with_context(|| format!("failed to rename to {}", name.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_replaces_an_existing_file() {
        let dir = tempfile::tempdir().unwrap();
        let name = dir.path().join("vmlinux");
        link(Path::new("/old"), &name).unwrap();
        link(Path::new("/new"), &name).unwrap();
        assert_eq!(fs::read_link(&name).unwrap(), Path::new("/new"));
    }
}
