//! A directory of a test's own.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{append, build::Built, files_below};

/// A data directory and the gateway's log. It is gone with the value; that of a test that was killed goes with the next.
#[derive(Debug)]
pub(crate) struct WorkDir {
    dir: TempDir,
    /// Locked as long as somebody uses the directory.
    _owner: File,
}

/// What is in a data directory beside the template.
#[derive(Debug)]
pub(crate) struct Left {
    /// Files and directories of sandboxes, and their snapshots.
    pub(crate) of_sandboxes: Vec<PathBuf>,
    /// Directories of monitors.
    pub(crate) runs: usize,
    /// Sockets, anywhere.
    pub(crate) sockets: Vec<PathBuf>,
}

impl WorkDir {
    /// A fresh one, with the template in its data directory.
    pub(super) fn with_template(built: &Built) -> Self {
        let work = Self::empty(built);
        fs::create_dir(work.data()).unwrap();
        for part in ["templates", "snapshots"] {
            link_all(&built.template.join(part), &work.data().join(part)).unwrap();
        }
        work
    }

    /// A fresh one, without a data directory.
    pub(crate) fn empty(built: &Built) -> Self {
        let all = built.cache.join("work");
        fs::create_dir_all(&all).unwrap();
        let guard = File::create(built.cache.join("work.lock")).unwrap();
        guard.lock().unwrap();
        for entry in fs::read_dir(&all).unwrap() {
            let path = entry.unwrap().path();
            let abandoned =
                File::open(path.join("owner")).is_ok_and(|owner| owner.try_lock().is_ok());
            if abandoned {
                fs::remove_dir_all(&path).unwrap();
            }
        }
        let dir = TempDir::new_in(&all).unwrap();
        let owner = File::create(dir.path().join("owner")).unwrap();
        owner.lock().unwrap();
        Self { dir, _owner: owner }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    pub(super) fn append_log(&self) -> File {
        append(&self.path().join("log"))
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.path().join("log")).unwrap_or_default()
    }

    /// What guests said on their consoles.
    pub(super) fn consoles(&self) -> Vec<(PathBuf, String)> {
        let mut found = files_below(&self.data().join("sandboxes"));
        found.retain(|path| path.ends_with("console.log"));
        let text = |path: &PathBuf| {
            String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
        };
        found
            .into_iter()
            .map(|path| (path.clone(), text(&path)))
            .collect()
    }

    /// Which of its lives a paused sandbox was written down in.
    pub(crate) fn epoch(&self, sandbox: &str) -> u64 {
        let record = self.record(sandbox);
        record["epoch"]
            .as_u64()
            .unwrap_or_else(|| panic!("{record}"))
    }

    /// The directory of the snapshot that a paused sandbox wakes from.
    pub(crate) fn snapshot(&self, sandbox: &str) -> PathBuf {
        let record = self.record(sandbox);
        let id = record["snapshot"]
            .as_str()
            .unwrap_or_else(|| panic!("{record}"));
        self.data().join("snapshots").join(id)
    }

    /// What is remembered of a paused sandbox.
    fn record(&self, sandbox: &str) -> Value {
        let path = self
            .data()
            .join("sandboxes")
            .join(sandbox)
            .join("sandbox.json");
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    /// Directories of snapshots that are not the template's.
    pub(crate) fn snapshots(&self) -> Vec<PathBuf> {
        let template = fs::read_to_string(self.data().join("templates/base.json")).unwrap();
        let mut found = entries(&self.data().join("snapshots"));
        found.retain(|path| !template.contains(path.file_name().unwrap().to_str().unwrap()));
        found
    }

    /// What is there now beside the template.
    pub(crate) fn left(&self) -> Left {
        let data = self.data();
        let mut of_sandboxes = self.snapshots();
        of_sandboxes.extend(entries(&data.join("sandboxes")));
        of_sandboxes.extend(entries(&data.join("staging")));
        let mut sockets = files_below(&data);
        sockets
            .retain(|path| fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket()));
        Left {
            of_sandboxes,
            runs: entries(&data.join("run")).len(),
            sockets,
        }
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(dir).into_iter().flatten();
    found.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// Links every file: those of snapshots are never changed, and others are replaced.
fn link_all(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            link_all(&entry.path(), &target)?;
        } else {
            fs::hard_link(entry.path(), target)?;
        }
    }
    Ok(())
}
