//! Paths as callers name them: absolute, below `~`, or in the working directory.

use std::{
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

/// A path that no file can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("path holds a zero byte")]
pub(crate) struct InvalidPath;

/// An absolute path without `.` and `..`, as its text goes; symbolic links are the kernel's affair. The empty path is the
/// working directory.
pub(crate) fn resolve(path: &Path, home: &Path, workdir: &Path) -> Result<PathBuf, InvalidPath> {
    if path.as_os_str().as_bytes().contains(&0) {
        return Err(InvalidPath);
    }
    let full = match path.strip_prefix("~") {
        Ok(below) => home.join(below),
        Err(_) => workdir.join(path),
    };
    let mut clean = PathBuf::from("/");
    for part in full.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Ok(clean)
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::*;

    fn resolved(path: &str) -> PathBuf {
        resolve(
            Path::new(path),
            Path::new("/home/user"),
            Path::new("/srv/work"),
        )
        .unwrap()
    }

    #[test]
    fn a_path_is_absolute_or_at_home_or_in_the_working_directory() {
        assert_eq!(resolved("/a//b/./../c"), Path::new("/a/c"));
        assert_eq!(resolved("~/x"), Path::new("/home/user/x"));
        assert_eq!(resolved("~"), Path::new("/home/user"));
        assert_eq!(resolved("a/b"), Path::new("/srv/work/a/b"));
        assert_eq!(resolved(""), Path::new("/srv/work"));
        assert_eq!(resolved("../../../../etc"), Path::new("/etc"));
        assert_eq!(resolved("~user"), Path::new("/srv/work/~user"));
    }

    proptest! {
        #[test]
        fn any_path_resolves_to_a_clean_one(path: String) {
            if let Ok(clean) = resolve(Path::new(&path), Path::new("/h"), Path::new("/w")) {
                prop_assert!(clean.is_absolute());
                prop_assert!(clean.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_))));
            }
        }
    }
}
