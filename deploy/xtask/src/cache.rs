//! Build outputs that are cached outside the repository.
//!
//! An entry is a directory named after its kind and the hash of its inputs. It is created in a temporary directory and
//! renamed into place under a lock for its kind, so an entry is always complete and concurrent builds create it once.

use std::{
    env,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// The cache directory.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    dir: PathBuf,
}

/// The hash of the inputs of an entry.
#[derive(Debug)]
pub(crate) struct Key(blake3::Hasher);

impl Cache {
    /// Selects `$CATNAP_CACHE`, else `$XDG_CACHE_HOME/catnap`, else `~/.cache/catnap`.
    pub(crate) fn find() -> Result<Self> {
        let set = |name: &str| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let dir = set("CATNAP_CACHE")
            .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("catnap")))
            .or_else(|| set("HOME").map(|dir| dir.join(".cache/catnap")));
        match dir {
            Some(dir) if dir.is_absolute() => Ok(Self { dir }),
            Some(dir) => bail!(
                "the path of the cache directory must be absolute: {}",
                dir.display()
            ),
            None => bail!("no cache directory: set CATNAP_CACHE or HOME"),
        }
    }

    /// Returns the directory of an entry. If it does not exist, `create` fills an empty directory.
    pub(crate) fn get_or_create(
        &self,
        kind: &str,
        key: &Key,
        create: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let entry = self.dir.join(format!("{kind}-{}", key.short_hex()));
        if entry.exists() {
            return Ok(entry);
        }
        fs::create_dir_all(&self.dir)
            .with_context(|| format!("failed to create {}", self.dir.display()))?;
        let _lock = self.lock(kind)?;
        if entry.exists() {
            return Ok(entry);
        }
        let prefix = format!(".making-{kind}-");
        self.remove_unfinished(&prefix)?;
        let temporary = tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir_in(&self.dir)
            .with_context(|| format!("failed to create a directory in {}", self.dir.display()))?;
        let contents = temporary.path().join("entry");
        fs::create_dir(&contents)?;
        create(&contents).with_context(|| format!("failed to create {}", entry.display()))?;
        sync(&contents)?;
        fs::rename(&contents, &entry)
            .with_context(|| format!("failed to rename to {}", entry.display()))?;
        Ok(entry)
    }

    /// Creates a directory whose content another program manages.
    pub(crate) fn subdirectory(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("failed to create {}", dir.display()))?;
        Ok(dir)
    }

    fn lock(&self, kind: &str) -> Result<File> {
        let path = self.dir.join(format!("{kind}.lock"));
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("failed to open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                eprintln!("waiting for another build of the {kind} ...");
                file.lock()
                    .with_context(|| format!("failed to lock {}", path.display()))?;
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("failed to lock {}", path.display()));
            }
        }
        Ok(file)
    }

    /// Removes the temporary directories of interrupted builds. The caller holds the lock of the kind.
    fn remove_unfinished(&self, prefix: &str) -> Result<()> {
        for found in fs::read_dir(&self.dir)? {
            let found = found?;
            if found.file_name().to_string_lossy().starts_with(prefix) {
                fs::remove_dir_all(found.path())
                    .with_context(|| format!("failed to remove {}", found.path().display()))?;
            }
        }
        Ok(())
    }
}

/// Syncs the files of an entry to disk, so that an entry is complete after a power failure.
fn sync(dir: &Path) -> Result<()> {
    for found in fs::read_dir(dir)? {
        let path = found?.path();
        File::open(&path)
            .and_then(|file| file.sync_all())
            .with_context(|| format!("failed to sync {}", path.display()))?;
    }
    Ok(())
}

impl Key {
    /// Creates a key from the version of the build steps. Raise the version when the steps change.
    pub(crate) fn new(version: &str) -> Self {
        Self(blake3::Hasher::new()).with(version.as_bytes())
    }

    /// Adds an input.
    pub(crate) fn with(mut self, input: &[u8]) -> Self {
        // The length delimits the inputs.
        self.0.update(&input.len().to_le_bytes());
        self.0.update(input);
        self
    }

    /// Adds the content of a file.
    pub(crate) fn with_file(self, path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
        Ok(self.with(&bytes))
    }

    /// The hash, as an input of another key.
    pub(crate) fn digest(&self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }

    fn short_hex(&self) -> String {
        self.0.finalize().to_hex().chars().take(20).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, sync::atomic::AtomicU32, sync::atomic::Ordering, thread};

    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache {
            dir: dir.path().join("cache"),
        };
        (dir, cache)
    }

    #[test]
    fn entry_is_created_once_for_each_key() {
        let (_dir, cache) = cache();
        let created = Cell::new(0);
        let create = |input: &[u8]| {
            cache
                .get_or_create("thing", &Key::new("1").with(input), |dir| {
                    created.set(created.get() + 1);
                    Ok(fs::write(dir.join("file"), input)?)
                })
                .unwrap()
        };
        let (a, again, b) = (create(b"a"), create(b"a"), create(b"b"));
        assert_eq!(a, again);
        assert_ne!(a, b);
        assert_eq!(created.get(), 2);
        assert_eq!(fs::read(a.join("file")).unwrap(), b"a");
    }

    #[test]
    fn failed_or_interrupted_build_leaves_no_entry() {
        let (_dir, cache) = cache();
        let key = Key::new("1");
        let failed = cache.get_or_create("thing", &key, |dir| {
            fs::write(dir.join("half"), "x")?;
            bail!("no space")
        });
        failed.unwrap_err();
        fs::create_dir(cache.dir.join(".making-thing-killed")).unwrap();
        let entry = cache
            .get_or_create("thing", &key, |dir| Ok(fs::write(dir.join("whole"), "x")?))
            .unwrap();
        assert!(entry.join("whole").exists() && !entry.join("half").exists());
        let left: Vec<_> = fs::read_dir(&cache.dir)
            .unwrap()
            .map(|found| found.unwrap().file_name())
            .collect();
        assert_eq!(left.len(), 2, "{left:?}"); // the entry and the lock
    }

    #[test]
    fn concurrent_builds_create_an_entry_once() {
        let (_dir, cache) = cache();
        let created = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    cache
                        .get_or_create("thing", &Key::new("1"), |dir| {
                            created.fetch_add(1, Ordering::SeqCst);
                            Ok(fs::write(dir.join("file"), "x")?)
                        })
                        .unwrap()
                });
            }
        });
        assert_eq!(created.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn inputs_of_a_key_are_delimited() {
        assert_ne!(
            Key::new("1").with(b"ab").with(b"c").short_hex(),
            Key::new("1").with(b"a").with(b"bc").short_hex()
        );
    }
}
