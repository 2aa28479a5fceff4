//! The writable layers of running machines.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use snapshotter::Layout;
use tracing::warn;
use vmm_api::TopLayer;

/// The prefix of the files' names in a sandbox's directory.
const PREFIX: &str = "top-";

/// The file of one writable layer. It has a name of its own, which is removed when it is dropped; a snapshot that took
/// the layer over has linked the file.
#[derive(Debug)]
pub(crate) struct TopFile {
    file: Arc<File>,
    path: PathBuf,
    layout: Layout,
}

impl TopFile {
    /// Creates an empty layer for a disk of this size in bytes. Blocks.
    pub(crate) fn create(dir: &Path, disk: u64) -> io::Result<Self> {
        let blocks = u32::try_from(disk / vmm_api::PAGE_SIZE as u64).map_err(io::Error::other)?;
        let layout = Layout::new(blocks);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let temporary = tempfile::Builder::new()
            .prefix(PREFIX)
            .suffix(".blk")
            .make_in(dir, |path| options.open(path))?;
        temporary.as_file().set_len(layout.len())?;
        let (file, path) = temporary.keep().map_err(|error| error.error)?;
        Ok(Self {
            file: Arc::new(file),
            path,
            layout,
        })
    }

    /// Returns the layer for a monitor.
    pub(crate) fn layer(&self) -> io::Result<TopLayer> {
        Ok(TopLayer {
            file: self.file.try_clone()?,
            blocks_offset: self.layout.pages_offset,
        })
    }

    /// Returns the open file.
    pub(crate) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Removes the layers that an earlier process left in a sandbox's directory. Blocks.
    pub(crate) fn remove_stale(dir: &Path) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let stale = |name: &str| name.starts_with(PREFIX) || name == "top.blk";
            if name.to_str().is_some_and(stale) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

impl Drop for TopFile {
    fn drop(&mut self) {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let error = error_chain::chain(&error);
                warn!(path = %self.path.display(), %error, "failed to remove top disk layer");
            }
            _ => {}
        }
    }
}
