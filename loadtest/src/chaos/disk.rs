//! A small filesystem of its own for the data directory.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use tempfile::TempDir;

/// Bytes that a full disk has left.
const LEFT: u64 = 256 << 10;

/// An ext4 filesystem in a file, mounted. Dropping it unmounts it.
#[derive(Debug)]
pub(super) struct LoopDisk {
    dir: TempDir,
    mount: PathBuf,
}

impl LoopDisk {
    /// Creates and mounts a filesystem of this size in MiB. Needs root.
    pub(super) fn create(mib: u64) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let (image, mount) = (dir.path().join("image"), dir.path().join("mount"));
        File::create(&image)?.set_len(mib << 20)?;
        std::fs::create_dir(&mount)?;
        run(Command::new("mkfs.ext4").arg("-q").arg(&image))?;
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(&image)
            .arg(&mount))?;
        Ok(Self { dir, mount })
    }

    pub(super) fn path(&self) -> &Path {
        &self.mount
    }

    /// Takes almost all free space, until the returned guard is dropped.
    pub(super) fn fill(&self) -> anyhow::Result<FullDisk> {
        let path = self.mount.join("filler");
        let file = File::create(&path)?;
        let stat = statvfs(&self.mount)?;
        let free = (stat.f_bavail * stat.f_frsize).saturating_sub(LEFT);
        let filled = FullDisk(path);
        if free > 0 {
            fallocate(&file, FallocateFlags::empty(), 0, free)?;
        }
        Ok(filled)
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("umount").arg(&self.mount)) {
            let left = self.dir.path().display();
            eprintln!("failed to unmount the filesystem in {left}: {error:#}");
        }
    }
}

/// A disk without free space. Dropping it frees the space.
#[derive(Debug)]
pub(super) struct FullDisk(PathBuf);

impl Drop for FullDisk {
    fn drop(&mut self) {
        // The campaign would report the full disk by its violations.
        drop(std::fs::remove_file(&self.0));
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command
        .status()
        .with_context(|| format!("failed to run {program}"))?;
    ensure!(status.success(), "{program} failed: {status}");
    Ok(())
}
