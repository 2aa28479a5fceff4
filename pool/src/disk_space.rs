//! Free space of the data directory's filesystem.

use std::{io, path::Path};

/// The free space is below the reserve.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} MiB are free on the filesystem of {dir}, of which {} MiB are reserved for pauses: free some space, or kill \
     sandboxes", free >> 20, reserve >> 20
)]
pub(crate) struct NoDiskSpace {
    dir: String,
    free: u64,
    reserve: u64,
}

/// Fails when less than `reserve` bytes are free on the filesystem of a directory. Blocks.
pub(crate) fn check(dir: &Path, reserve: u64) -> io::Result<Result<(), NoDiskSpace>> {
    let stat = rustix::fs::statvfs(dir)?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free >= reserve {
        return Ok(Ok(()));
    }
    Ok(Err(NoDiskSpace {
        dir: dir.display().to_string(),
        free,
        reserve,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_below_the_reserve_is_an_error_with_both() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(check(dir.path(), 0).unwrap(), Ok(()));
        let error = check(dir.path(), u64::MAX)
            .unwrap()
            .unwrap_err()
            .to_string();
        assert!(error.contains("17592186044415 MiB are reserved"), "{error}");
        assert!(check(&dir.path().join("none"), 0).is_err());
    }
}
