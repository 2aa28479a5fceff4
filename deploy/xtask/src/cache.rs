//! What is expensive to make and is kept outside the clone.
//!
//! An entry is a folder named after its kind and the hash of everything it is made from. It is made in a temporary folder
//! beside it and renamed into place, under a lock for its kind: it is there whole or not at all, and two builds never make
//! it twice.

use std::{
    env,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// A folder of entries.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    dir: PathBuf,
}

/// The hash of everything an entry is made from.
#[derive(Debug)]
pub(crate) struct Key(blake3::Hasher);

impl Cache {
    /// `$CATNAP_CACHE`, else `$XDG_CACHE_HOME/catnap`, else `~/.cache/catnap`.
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
                "the cache folder must be an absolute path, and {} is not",
                dir.display()
            ),
            None => bail!("no cache folder: set CATNAP_CACHE or HOME"),
        }
    }

    /// The entry's folder, made by `make` (which is given an empty folder) if it is not there.
    pub(crate) fn entry(
        &self,
        kind: &str,
        key: &Key,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let entry = self.dir.join(format!("{kind}-{}", key.text()));
        if entry.exists() {
            return Ok(entry);
        }
        fs::create_dir_all(&self.dir)
            .with_context(|| format!("make cache folder {}", self.dir.display()))?;
        let _lock = self.lock(kind)?;
        if entry.exists() {
            return Ok(entry);
        }
        let prefix = format!(".making-{kind}-");
        self.remove_unfinished(&prefix)?;
        let making = tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir_in(&self.dir)
            .with_context(|| format!("make folder in {}", self.dir.display()))?;
        let inside = making.path().join("entry");
        fs::create_dir(&inside)?;
        make(&inside).with_context(|| format!("make {}", entry.display()))?;
        sync(&inside)?;
        fs::rename(&inside, &entry).with_context(|| format!("name {}", entry.display()))?;
        Ok(entry)
    }

    /// A folder in which somebody else keeps things by their own rules.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("make folder {}", dir.display()))?;
        Ok(dir)
    }

    fn lock(&self, kind: &str) -> Result<File> {
        let path = self.dir.join(format!("{kind}.lock"));
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                eprintln!("waiting for another build that makes the {kind} ...");
                file.lock()
                    .with_context(|| format!("lock {}", path.display()))?;
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("lock {}", path.display()));
            }
        }
        Ok(file)
    }

    /// Removes what an interrupted build left. The lock for the kind is held.
    fn remove_unfinished(&self, prefix: &str) -> Result<()> {
        for found in fs::read_dir(&self.dir)? {
            let found = found?;
            if found.file_name().to_string_lossy().starts_with(prefix) {
                fs::remove_dir_all(found.path())
                    .with_context(|| format!("remove {}", found.path().display()))?;
            }
        }
        Ok(())
    }
}

/// Writes the files of an entry through to the disk, so that a power cut leaves no named entry with holes in it.
fn sync(dir: &Path) -> Result<()> {
    for found in fs::read_dir(dir)? {
        let path = found?.path();
        File::open(&path)
            .and_then(|file| file.sync_all())
            .with_context(|| format!("sync {}", path.display()))?;
    }
    Ok(())
}

impl Key {
    /// A key of nothing but the version of the recipe, to be raised when the recipe changes.
    pub(crate) fn new(recipe: &str) -> Self {
        Self(blake3::Hasher::new()).with(recipe.as_bytes())
    }

    /// Adds something the entry is made from.
    pub(crate) fn with(mut self, part: &[u8]) -> Self {
        // The length keeps parts apart.
        self.0.update(&part.len().to_le_bytes());
        self.0.update(part);
        self
    }

    /// Adds a file's bytes.
    pub(crate) fn with_file(self, path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        Ok(self.with(&bytes))
    }

    /// The hash itself, to be a part of another key.
    pub(crate) fn digest(&self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }

    fn text(&self) -> String {
        self.0.finalize().to_hex().chars().take(20).collect()
    }
}

#[cfg(test)]
mod test {
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
    fn an_entry_is_made_once_for_each_key() {
        let (_dir, cache) = cache();
        let made = Cell::new(0);
        let make = |part: &[u8]| {
            cache
                .entry("thing", &Key::new("1").with(part), |dir| {
                    made.set(made.get() + 1);
                    Ok(fs::write(dir.join("file"), part)?)
                })
                .unwrap()
        };
        let (a, again, b) = (make(b"a"), make(b"a"), make(b"b"));
        assert_eq!(a, again);
        assert_ne!(a, b);
        assert_eq!(made.get(), 2);
        assert_eq!(fs::read(a.join("file")).unwrap(), b"a");
    }

    #[test]
    fn a_failed_or_interrupted_build_leaves_no_entry() {
        let (_dir, cache) = cache();
        let key = Key::new("1");
        let failed = cache.entry("thing", &key, |dir| {
            fs::write(dir.join("half"), "x")?;
            bail!("no space")
        });
        failed.unwrap_err();
        fs::create_dir(cache.dir.join(".making-thing-killed")).unwrap();
        let entry = cache
            .entry("thing", &key, |dir| Ok(fs::write(dir.join("whole"), "x")?))
            .unwrap();
        assert!(entry.join("whole").exists() && !entry.join("half").exists());
        let left: Vec<_> = fs::read_dir(&cache.dir)
            .unwrap()
            .map(|found| found.unwrap().file_name())
            .collect();
        assert_eq!(left.len(), 2, "{left:?}"); // the entry and the lock
    }

    #[test]
    fn builds_at_the_same_time_make_it_once() {
        let (_dir, cache) = cache();
        let made = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    cache
                        .entry("thing", &Key::new("1"), |dir| {
                            made.fetch_add(1, Ordering::SeqCst);
                            Ok(fs::write(dir.join("file"), "x")?)
                        })
                        .unwrap()
                });
            }
        });
        assert_eq!(made.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn parts_of_a_key_are_kept_apart() {
        assert_ne!(
            Key::new("1").with(b"ab").with(b"c").text(),
            Key::new("1").with(b"a").with(b"bc").text()
        );
    }
}
