//! Cache of files whose digest was checked.

use std::{collections::HashMap, fs::File, io, os::unix::fs::MetadataExt, sync::Arc};

use parking_lot::Mutex;

use crate::Digest;

/// A file's device, inode, modification time and length at its check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct FileStamp {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    len: u64,
}

/// The file that was checked last, locked while one is checked.
type Checked = Arc<Mutex<Option<FileStamp>>>;

/// Remembers checked files, so that a hundred forks of one snapshot read its disk once. A file that was written since has
/// another modification time and is checked again.
#[derive(Debug, Default)]
pub(crate) struct Verified {
    files: Mutex<HashMap<Digest, Checked>>,
}

impl Verified {
    /// Maximum entries; a full cache forgets one for each new one.
    const MAX: usize = 1 << 16;

    /// Returns whether the file matches the digest. `verify` runs at most once at a time for a digest, and not at all when
    /// the file was checked before.
    pub(crate) fn check<E: From<io::Error>>(
        &self,
        digest: Digest,
        file: &File,
        verify: impl FnOnce() -> Result<bool, E>,
    ) -> Result<bool, E> {
        let stamp = FileStamp::of(file)?;
        let checked = self.entry(digest);
        let mut checked = checked.lock();
        if *checked == Some(stamp) {
            return Ok(true);
        }
        let matches = verify()?;
        *checked = matches.then_some(stamp);
        Ok(matches)
    }

    /// Records a file whose content this process has just digested.
    pub(crate) fn insert(&self, digest: Digest, file: &File) -> io::Result<()> {
        let stamp = FileStamp::of(file)?;
        *self.entry(digest).lock() = Some(stamp);
        Ok(())
    }

    fn entry(&self, digest: Digest) -> Checked {
        let mut files = self.files.lock();
        if files.len() >= Self::MAX
            && !files.contains_key(&digest)
            && let Some(oldest) = files.keys().next().copied()
        {
            files.remove(&oldest);
        }
        Arc::clone(files.entry(digest).or_default())
    }
}

impl FileStamp {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            // The modification time: links change the change time.
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            len: metadata.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn file_is_verified_once_until_it_is_written() {
        let verified = Verified::default();
        let mut file = tempfile::tempfile().unwrap();
        let digest = Digest::of(b"x");
        let mut calls = 0;
        let mut check = |file: &File| {
            verified.check(digest, file, || {
                calls += 1;
                Ok::<_, io::Error>(true)
            })
        };
        assert!(check(&file).unwrap() && check(&file).unwrap());
        file.write_all(b"more").unwrap();
        assert!(check(&file).unwrap());
        assert_eq!(calls, 2);
    }

    #[test]
    fn failed_check_is_repeated() {
        let verified = Verified::default();
        let file = tempfile::tempfile().unwrap();
        for expected in [false, true] {
            let outcome = verified.check(Digest::of(b"x"), &file, || Ok::<_, io::Error>(expected));
            assert_eq!(outcome.unwrap(), expected);
        }
    }
}
