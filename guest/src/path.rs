//! Resolves the paths of requests: absolute, below `~`, or relative to the working directory.

use std::{
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

/// The path contains a zero byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("path contains a zero byte")]
pub(crate) struct InvalidPath;

/// Resolves `path` to an absolute path without `.` and `..`, lexically: symbolic links are not read. The empty path is
/// the working directory.
pub(crate) fn resolve(path: &Path, home: &Path, workdir: &Path) -> Result<PathBuf, InvalidPath> {
    if path.as_os_str().as_bytes().contains(&0) {
        return Err(InvalidPath);
    }
    let full = match path.strip_prefix("~") {
        Ok(below) => home.join(below),
        Err(_) => workdir.join(path),
    };
    let mut normalized = PathBuf::from("/");
    for part in full.components() {
        match part {
            Component::Normal(name) => normalized.push(name),
            Component::ParentDir => {
                normalized.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Ok(normalized)
}

#[cfg(test)]
mod tests {
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
    fn path_resolves_against_root_home_or_workdir() {
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
        fn arbitrary_path_resolves_to_a_normalized_one(path: String) {
            if let Ok(resolved) = resolve(Path::new(&path), Path::new("/h"), Path::new("/w")) {
                prop_assert!(resolved.is_absolute());
                prop_assert!(resolved.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_))));
            }
        }
    }
}
