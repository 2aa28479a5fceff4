//! Making directories, and giving what was made to its user.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, fchown, lchown},
    path::{Path, PathBuf},
};

use crate::user::User;

/// A directory that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("make directory {path}")]
pub(crate) struct PlaceError {
    pub(crate) path: PathBuf,
    #[source]
    pub(crate) source: io::Error,
}

/// Makes the directories above `path` that are missing, and gives each to `user`.
pub(crate) fn make_parents(path: &Path, user: &User) -> Result<(), PlaceError> {
    match path.parent() {
        Some(parent) => make_dirs(parent, user),
        None => Ok(()),
    }
}

/// Makes a directory and those above it that are missing, and gives each to `user`.
pub(crate) fn make_dirs(path: &Path, user: &User) -> Result<(), PlaceError> {
    let failed = |dir: &Path| {
        let path = dir.to_path_buf();
        move |source: io::Error| PlaceError { path, source }
    };
    let mut missing = Vec::new();
    for dir in path.ancestors() {
        if is_dir(dir).map_err(failed(dir))? {
            break;
        }
        missing.push(dir);
    }
    for dir in missing.into_iter().rev() {
        DirBuilder::new()
            .mode(0o755)
            .create(dir)
            .and_then(|()| {
                let who = &user.credentials;
                lchown(dir, Some(who.uid.as_raw()), Some(who.gid.as_raw()))
            })
            .map_err(failed(dir))?;
    }
    Ok(())
}

/// Gives a file to `user`.
pub(crate) fn give(file: &File, user: &User) -> io::Result<()> {
    let who = &user.credentials;
    fchown(file, Some(who.uid.as_raw()), Some(who.gid.as_raw()))
}

/// Whether the directory is there already, or the error of looking.
fn is_dir(path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(found) => Ok(found.is_dir()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
