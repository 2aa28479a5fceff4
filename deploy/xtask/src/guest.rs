//! What goes into guests: the kernel, the root disk of the `base` template, and the agent.

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

/// Builds what is not in the cache yet and leaves links in `target/guest`, whose path is returned.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf> {
    apt::require_bookworm()?;
    let cache = Cache::find()?;
    let agent = agent::build(workspace)?;
    let image = rootfs::build(workspace, &cache, &agent)?;
    let kernel = kernel::build(workspace, &cache)?;
    let dir = workspace.target.join("guest");
    fs::create_dir_all(&dir).with_context(|| format!("make folder {}", dir.display()))?;
    link(&kernel, &dir.join("vmlinux"))?;
    link(&image, &dir.join("base.ext4"))?;
    link(&agent, &dir.join("catnap-guest"))?;
    Ok(dir)
}

/// Makes `name` a link to `to`, whatever it was before, at one instant.
fn link(to: &Path, name: &Path) -> Result<()> {
    let temporary = name.with_extension("new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", temporary.display()));
        }
        _ => {}
    }
    symlink(to, &temporary).with_context(|| format!("link {}", temporary.display()))?;
    fs::rename(&temporary, name).with_context(|| format!("name {}", name.display()))
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_link_replaces_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let name = dir.path().join("vmlinux");
        link(Path::new("/old"), &name).unwrap();
        link(Path::new("/new"), &name).unwrap();
        assert_eq!(fs::read_link(&name).unwrap(), Path::new("/new"));
    }
}
