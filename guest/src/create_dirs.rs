//! Creates directories and assigns files to users.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, fchown, lchown},
    path::{Path, PathBuf},
};

use crate::user::User;

/// An error creating a directory.
#[derive(Debug, thiserror::Error)]
#[error("failed to create directory {path}")]
pub(crate) struct CreateDirError {
    pub(crate) path: PathBuf,
    #[source]
    pub(crate) source: io::Error,
}

/// Creates the missing parents of `path`, owned by `user`.
pub(crate) fn create_parents(path: &Path, user: &User) -> Result<(), CreateDirError> {
    match path.parent() {
        Some(parent) => create_dirs(parent, user),
        None => Ok(()),
    }
}

/// Creates a directory and its missing parents, owned by `user`.
pub(crate) fn create_dirs(path: &Path, user: &User) -> Result<(), CreateDirError> {
    let failed = |dir: &Path| {
        let path = dir.to_path_buf();
        move |source: io::Error| CreateDirError { path, source }
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
                let owner = &user.credentials;
                lchown(dir, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))
            })
            .map_err(failed(dir))?;
    }
    Ok(())
}

/// Changes the owner and the group of a file to those of `user`.
pub(crate) fn chown_to(file: &File, user: &User) -> io::Result<()> {
    let owner = &user.credentials;
    fchown(file, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))
}

fn is_dir(path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.is_dir()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
