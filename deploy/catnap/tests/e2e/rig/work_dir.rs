//! The work directory of a test.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{artefacts::Artefacts, files_below, open_append};

/// A directory with the data directory and the log of a gateway. Dropping it removes it; a later test removes that of a
/// killed test.
#[derive(Debug)]
pub(crate) struct WorkDir {
    dir: TempDir,
    /// Locked while the directory is in use.
    _owner: File,
}

/// The content of a data directory besides the template.
#[derive(Debug)]
pub(crate) struct RemainingFiles {
    /// Files and directories of sandboxes, and snapshots.
    pub(crate) sandbox_files: Vec<PathBuf>,
    /// The number of run directories of monitors.
    pub(crate) run_dirs: usize,
    /// Sockets.
    pub(crate) sockets: Vec<PathBuf>,
}

impl WorkDir {
    /// Creates a work directory with the template in its data directory.
    pub(super) fn with_template(artefacts: &Artefacts) -> Self {
        let work = Self::empty(artefacts);
        fs::create_dir(work.data()).unwrap();
        for part in ["templates", "snapshots", "bases"] {
            let from = artefacts.template.join(part);
            hard_link_tree(&from, &work.data().join(part)).unwrap();
        }
        work
    }

    /// Creates a work directory without a data directory.
    fn empty(artefacts: &Artefacts) -> Self {
        let parent = artefacts.cache.join("work");
        fs::create_dir_all(&parent).unwrap();
        let lock = File::create(artefacts.cache.join("work.lock")).unwrap();
        lock.lock().unwrap();
        for entry in fs::read_dir(&parent).unwrap() {
            let path = entry.unwrap().path();
            let abandoned =
                File::open(path.join("owner")).is_ok_and(|owner| owner.try_lock().is_ok());
            if abandoned {
                fs::remove_dir_all(&path).unwrap();
            }
        }
        let dir = TempDir::new_in(&parent).unwrap();
        let owner = File::create(dir.path().join("owner")).unwrap();
        owner.lock().unwrap();
        Self { dir, _owner: owner }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    pub(super) fn append_log(&self) -> File {
        open_append(&self.path().join("log"))
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.path().join("log")).unwrap_or_default()
    }

    /// Reads the consoles of guests.
    pub(super) fn consoles(&self) -> Vec<(PathBuf, String)> {
        let mut files = files_below(&self.data().join("sandboxes"));
        files.retain(|path| path.ends_with("console.log"));
        let read = |path: &PathBuf| {
            String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
        };
        files
            .into_iter()
            .map(|path| (path.clone(), read(&path)))
            .collect()
    }

    /// Returns the epoch in which a paused sandbox was paused.
    pub(crate) fn epoch(&self, sandbox: &str) -> u64 {
        let record = self.record(sandbox);
        record["epoch"]
            .as_u64()
            .unwrap_or_else(|| panic!("{record}"))
    }

    /// Returns the directory of the snapshot that a paused sandbox wakes from.
    pub(crate) fn snapshot(&self, sandbox: &str) -> PathBuf {
        let record = self.record(sandbox);
        let id = record["snapshot"]
            .as_str()
            .unwrap_or_else(|| panic!("{record}"));
        self.data().join("snapshots").join(id)
    }

    /// Reads the record of a paused sandbox.
    fn record(&self, sandbox: &str) -> Value {
        let path = self
            .data()
            .join("sandboxes")
            .join(sandbox)
            .join("sandbox.json");
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    /// Lists snapshots that are not the template's.
    fn snapshots(&self) -> Vec<PathBuf> {
        let template = fs::read_to_string(self.data().join("templates/base.json")).unwrap();
        let mut snapshots = entries(&self.data().join("snapshots"));
        snapshots.retain(|path| !template.contains(path.file_name().unwrap().to_str().unwrap()));
        snapshots
    }

    pub(crate) fn remaining(&self) -> RemainingFiles {
        let data = self.data();
        let mut sandbox_files = self.snapshots();
        sandbox_files.extend(entries(&data.join("sandboxes")));
        sandbox_files.extend(entries(&data.join("staging")));
        let mut sockets = files_below(&data);
        sockets
            .retain(|path| fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket()));
        RemainingFiles {
            sandbox_files,
            run_dirs: entries(&data.join("run")).len(),
            sockets,
        }
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect()
}

/// Copies a tree with hard links: the gateway replaces files, and never changes them.
fn hard_link_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            hard_link_tree(&entry.path(), &target)?;
        } else {
            fs::hard_link(entry.path(), target)?;
        }
    }
    Ok(())
}
