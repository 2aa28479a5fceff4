//! A directory, or a whole tree of them, whose changes the kernel tells.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs, io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    rc::Rc,
};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    io::Errno,
};
use tokio::io::{Interest, unix::AsyncFd};

use super::is_missing;
use crate::{messages::filesystem::EventType, sys};

/// Most directories of one tree.
const MOST: usize = 8192;
/// Most changes that are taken at once.
const TURN: usize = 1024;
/// Room for what the kernel tells at once.
const BUFFER: usize = 16 * 1024;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    /// To what, relative to the directory that is watched; `.` is that itself.
    pub(super) name: PathBuf,
    pub(super) kind: EventType,
}

/// Why no more can be told.
#[derive(Debug, thiserror::Error)]
pub(super) enum TreeError {
    #[error("changes came faster than they were taken, and some are lost")]
    Lost,
    #[error("more than {MOST} directories to watch")]
    TooMany,
    #[error("watch {path}")]
    Watch {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("read changes")]
    Read(#[source] io::Error),
}

/// What is watched.
#[derive(Debug)]
pub(super) struct Tree {
    queue: Rc<AsyncFd<OwnedFd>>,
    root: PathBuf,
    recursive: bool,
    /// Each watched directory, relative to the root.
    dirs: BTreeMap<i32, PathBuf>,
    /// What was found in a new directory and told, before the kernel may tell it.
    told: BTreeSet<(i32, OsString)>,
}

/// One event of the kernel's.
struct Raw {
    dir: i32,
    flags: ReadFlags,
    name: Option<OsString>,
}

impl Tree {
    /// Watches `root` from now on, and what is below it if `recursive`. Must be called within a runtime.
    pub(super) fn watch(root: &Path, recursive: bool) -> Result<Self, TreeError> {
        let failed = |source: io::Error| TreeError::Watch {
            path: root.to_path_buf(),
            source,
        };
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(|error| failed(error.into()))?;
        let queue = sys::ready(queue, Interest::READABLE).map_err(failed)?;
        let mut tree = Self {
            queue: Rc::new(queue),
            root: root.to_path_buf(),
            recursive,
            dirs: BTreeMap::new(),
            told: BTreeSet::new(),
        };
        tree.add(Path::new(""), &mut None)?;
        if tree.dirs.is_empty() {
            return Err(failed(io::ErrorKind::NotFound.into()));
        }
        Ok(tree)
    }

    /// What becomes readable when there are changes.
    pub(super) fn queue(&self) -> Rc<AsyncFd<OwnedFd>> {
        Rc::clone(&self.queue)
    }

    /// Takes changes that have happened, and whether these are all. Never waits.
    pub(super) fn take(&mut self) -> Result<(Vec<Change>, bool), TreeError> {
        let mut changes = Vec::new();
        while changes.len() < TURN {
            let raw = self.read()?;
            if raw.is_empty() {
                self.told.clear();
                return Ok((changes, true));
            }
            for event in raw {
                self.note(event, &mut changes)?;
            }
        }
        Ok((changes, false))
    }

    /// What the kernel has ready, as much as fits; nothing when there is nothing.
    fn read(&self) -> Result<Vec<Raw>, TreeError> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut reader = Reader::new(self.queue.get_ref().as_fd(), &mut buffer);
        let mut raw = Vec::new();
        loop {
            match reader.next() {
                Ok(event) => raw.push(Raw {
                    dir: event.wd(),
                    flags: event.events(),
                    name: event
                        .file_name()
                        .map(|name| OsStr::from_bytes(name.to_bytes()).to_owned()),
                }),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(raw),
                Err(error) => return Err(TreeError::Read(error.into())),
            }
            if reader.is_buffer_empty() {
                return Ok(raw);
            }
        }
    }

    fn note(&mut self, event: Raw, changes: &mut Vec<Change>) -> Result<(), TreeError> {
        let flags = event.flags;
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            return Err(TreeError::Lost);
        }
        if flags.contains(ReadFlags::IGNORED) {
            self.dirs.remove(&event.dir);
            return Ok(());
        }
        let Some(dir) = self.dirs.get(&event.dir) else {
            return Ok(());
        };
        let Some(name) = event.name else {
            // What happens to a directory below the root, its parent tells.
            if dir.as_os_str().is_empty()
                && let Some(kind) = kind_of_self(flags)
            {
                let name = PathBuf::from(".");
                changes.push(Change { name, kind });
            }
            return Ok(());
        };
        let path = dir.join(&name);
        let was_told = self.told.remove(&(event.dir, name));
        let appears = flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO);
        if appears && was_told {
            return Ok(());
        }
        if let Some(kind) = kind_of_child(flags) {
            let name = path.clone();
            changes.push(Change { name, kind });
        }
        if self.recursive && flags.contains(ReadFlags::ISDIR) {
            if flags.contains(ReadFlags::CREATE) {
                // It may have been filled before it was watched.
                let mut found = Some(std::mem::take(changes));
                let added = self.add(&path, &mut found);
                *changes = found.unwrap_or_default();
                added?;
            } else if flags.contains(ReadFlags::MOVED_TO) {
                self.add(&path, &mut None)?;
            } else if flags.contains(ReadFlags::MOVED_FROM) {
                self.forget(&path);
            }
        }
        Ok(())
    }

    /// Watches a directory, and what is below it. What is found there is told if there is a list for it.
    fn add(&mut self, dir: &Path, found: &mut Option<Vec<Change>>) -> Result<(), TreeError> {
        let mut waiting = vec![dir.to_path_buf()];
        while let Some(dir) = waiting.pop() {
            let full = self.root.join(&dir);
            match self.add_one(&dir, &full, found, &mut waiting) {
                Ok(()) => {}
                // It has gone, or is another thing by now; its parent tells.
                Err(error) if is_missing(&error) => {}
                Err(source) => return Err(TreeError::Watch { path: full, source }),
            }
            if self.dirs.len() > MOST {
                return Err(TreeError::TooMany);
            }
        }
        Ok(())
    }

    fn add_one(
        &mut self,
        dir: &Path,
        full: &Path,
        found: &mut Option<Vec<Change>>,
        waiting: &mut Vec<PathBuf>,
    ) -> io::Result<()> {
        let mask = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::MOVE
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR
            | WatchFlags::DONT_FOLLOW;
        let number = inotify::add_watch(self.queue.get_ref(), full, mask)?;
        self.dirs.insert(number, dir.to_path_buf());
        if !self.recursive {
            return Ok(());
        }
        for child in fs::read_dir(full)? {
            let child = child?;
            let name = dir.join(child.file_name());
            let kind = child.file_type()?;
            if let Some(changes) = found {
                self.told.insert((number, child.file_name()));
                changes.extend(of_found(&child, kind).map(|kind| Change {
                    name: name.clone(),
                    kind,
                }));
            }
            if kind.is_dir() {
                waiting.push(name);
            }
        }
        Ok(())
    }

    /// Stops watching a directory that went elsewhere, and what is below it.
    fn forget(&mut self, dir: &Path) {
        let gone = self
            .dirs
            .extract_if(.., |_, watched| watched.starts_with(dir));
        for (number, _) in gone {
            // It may have been deleted since.
            let _removed = inotify::remove_watch(self.queue.get_ref(), number);
        }
    }
}

/// What must have happened to something that is there: a file with something in it was also written.
fn of_found(child: &fs::DirEntry, kind: fs::FileType) -> impl Iterator<Item = EventType> {
    let written = kind.is_file() && child.metadata().is_ok_and(|metadata| metadata.len() > 0);
    [EventType::EVENT_TYPE_CREATE]
        .into_iter()
        .chain(written.then_some(EventType::EVENT_TYPE_WRITE))
}

fn kind_of_child(flags: ReadFlags) -> Option<EventType> {
    Some(
        if flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
            EventType::EVENT_TYPE_CREATE
        } else if flags.contains(ReadFlags::DELETE) {
            EventType::EVENT_TYPE_REMOVE
        } else if flags.contains(ReadFlags::MOVED_FROM) {
            EventType::EVENT_TYPE_RENAME
        } else if flags.contains(ReadFlags::MODIFY) {
            EventType::EVENT_TYPE_WRITE
        } else if flags.contains(ReadFlags::ATTRIB) {
            EventType::EVENT_TYPE_CHMOD
        } else {
            return None;
        },
    )
}

fn kind_of_self(flags: ReadFlags) -> Option<EventType> {
    Some(if flags.contains(ReadFlags::DELETE_SELF) {
        EventType::EVENT_TYPE_REMOVE
    } else if flags.contains(ReadFlags::MOVE_SELF) {
        EventType::EVENT_TYPE_RENAME
    } else if flags.contains(ReadFlags::ATTRIB) {
        EventType::EVENT_TYPE_CHMOD
    } else {
        return None;
    })
}

#[cfg(test)]
mod test {
    use super::*;

    fn names(changes: &[Change]) -> Vec<&str> {
        changes
            .iter()
            .map(|change| change.name.to_str().unwrap())
            .collect()
    }

    #[tokio::test]
    async fn what_is_found_and_told_by_the_kernel_as_well_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut tree = Tree::watch(dir.path(), true).unwrap();
        fs::create_dir(dir.path().join("new")).unwrap();
        // As if a file came between the watching of a new directory and the look into it.
        tree.add(Path::new("new"), &mut None).unwrap();
        fs::write(dir.path().join("new/file"), "").unwrap();
        let (changes, all) = tree.take().unwrap();
        assert_eq!((names(&changes), all), (vec!["new", "new/file"], true));
        // The next one of that name is another.
        fs::remove_file(dir.path().join("new/file")).unwrap();
        fs::write(dir.path().join("new/file"), "").unwrap();
        let (changes, _) = tree.take().unwrap();
        assert_eq!(names(&changes), ["new/file", "new/file"]);
    }

    #[tokio::test]
    async fn what_was_written_before_its_directory_was_watched_is_told_as_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut tree = Tree::watch(dir.path(), true).unwrap();
        fs::create_dir(dir.path().join("new")).unwrap();
        fs::write(dir.path().join("new/full"), "text").unwrap();
        fs::write(dir.path().join("new/empty"), "").unwrap();
        let (changes, _) = tree.take().unwrap();
        let of = |name: &str| -> Vec<EventType> {
            let named = changes.iter().filter(|one| one.name == Path::new(name));
            named.map(|one| one.kind).collect()
        };
        let [created, written] = [EventType::EVENT_TYPE_CREATE, EventType::EVENT_TYPE_WRITE];
        assert_eq!(of("new/full"), [created, written]);
        assert_eq!(of("new/empty"), [created]);
    }

    #[tokio::test]
    async fn the_directory_itself_is_told_as_a_dot() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        let mut tree = Tree::watch(&root, false).unwrap();
        fs::remove_dir(&root).unwrap();
        let (changes, _) = tree.take().unwrap();
        assert_eq!(names(&changes), ["."]);
        assert_eq!(changes[0].kind, EventType::EVENT_TYPE_REMOVE);
        assert!(matches!(
            Tree::watch(&root, true),
            Err(TreeError::Watch { .. })
        ));
    }
}
