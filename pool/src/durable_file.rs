//! Files that are replaced atomically and durably.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
};

/// Failure of [`replace`].
#[derive(Debug, thiserror::Error)]
#[error("failed to write {name}")]
pub(crate) struct ReplaceError {
    name: String,
    /// Whether a reader, now or after a crash, may find the new content.
    pub(crate) visible: Visible,
    #[source]
    source: io::Error,
}

/// The visibility of content whose write failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visible {
    /// The old content is in place.
    No,
    /// The new content is in place, but may be lost in a crash.
    Maybe,
}

/// Replaces a file of a directory, mode 0600; the new content is durable on return.
pub(crate) fn replace(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), ReplaceError> {
    let failed = |visible| {
        move |source| ReplaceError {
            name: name.to_owned(),
            visible,
            source,
        }
    };
    let write = || {
        // Opened first: after the rename, no descriptor may be available.
        let directory = File::open(dir)?;
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(dir.join(name)).map_err(|error| error.error)?;
        Ok(directory)
    };
    let directory = write().map_err(failed(Visible::No))?;
    sync(&directory, dir).map_err(failed(Visible::Maybe))
}

#[cfg(not(test))]
fn sync(directory: &File, _path: &Path) -> io::Result<()> {
    directory.sync_all()
}

/// Fails in a directory with a file of the name [`FAIL_SYNC`].
#[cfg(test)]
fn sync(directory: &File, path: &Path) -> io::Result<()> {
    if path.join(FAIL_SYNC).exists() {
        return Err(io::Error::from_raw_os_error(5));
    }
    directory.sync_all()
}

/// The name of the file that makes [`replace`] fail after its rename.
#[cfg(test)]
pub(crate) const FAIL_SYNC: &str = "fail-sync";

/// Removes a file durably; one that does not exist is no error.
pub(crate) fn remove(dir: &Path, name: &str) -> io::Result<()> {
    match std::fs::remove_file(dir.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    }
    File::open(dir)?.sync_all()
}

impl ReplaceError {
    /// The content could not be made.
    pub(crate) fn not_written(name: &str, source: io::Error) -> Self {
        Self {
            name: name.to_owned(),
            visible: Visible::No,
            source,
        }
    }
}

impl From<ReplaceError> for io::Error {
    fn from(error: ReplaceError) -> Self {
        Self::new(error.source.kind(), error)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn failed_directory_sync_may_be_visible() {
        let dir = tempfile::tempdir().unwrap();
        replace(dir.path(), "a", b"old").unwrap();
        fs::write(dir.path().join(FAIL_SYNC), "").unwrap();
        let error = replace(dir.path(), "a", b"new").unwrap_err();
        assert_eq!(error.visible, Visible::Maybe);
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"new");
        let error = replace(&dir.path().join("none"), "a", b"new").unwrap_err();
        assert_eq!(error.visible, Visible::No);
    }
}
