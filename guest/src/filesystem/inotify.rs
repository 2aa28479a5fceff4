//! Watches a directory, or a tree of directories, with inotify.

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

use super::error::is_missing;
use crate::{messages::filesystem::EventType, sys};

/// The most directories of one tree.
const MAX_DIRS: usize = 8192;
/// The number of changes after which a batch ends.
const BATCH_LEN: usize = 1024;
/// The size of the buffer for one read.
const READ_BUFFER_LEN: usize = 16 * 1024;

/// A change of a file or a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    /// The path relative to the watched directory; `.` is that directory.
    pub(super) path: PathBuf,
    pub(super) kind: EventType,
}

/// Items that were read from the inotify queue.
#[derive(Debug)]
pub(super) struct Batch<T> {
    pub(super) items: Vec<T>,
    pub(super) queue: QueueState,
}

/// The state of the inotify queue after a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QueueState {
    Drained,
    HasMore,
}

/// An error that ends a watch.
#[derive(Debug, thiserror::Error)]
pub(super) enum WatchError {
    #[error("changes came faster than they were read, and some are lost")]
    Overflow,
    #[error("more than {MAX_DIRS} directories to watch")]
    TooManyDirs,
    #[error("failed to watch {path}")]
    AddWatch {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to read changes")]
    Read(#[source] io::Error),
}

/// The directories to watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecursiveMode {
    /// The root and everything below it.
    Recursive,
    /// The root alone.
    NonRecursive,
}

/// An inotify instance with the directories it watches.
#[derive(Debug)]
pub(super) struct TreeWatcher {
    queue: Rc<AsyncFd<OwnedFd>>,
    root: PathBuf,
    mode: RecursiveMode,
    /// Paths relative to the root, by watch descriptor.
    dirs: BTreeMap<i32, PathBuf>,
    /// Entries that a scan of a new directory reported, and whose inotify event may follow.
    reported: BTreeSet<(i32, OsString)>,
}

/// An inotify event.
struct InotifyEvent {
    dir: i32,
    flags: ReadFlags,
    name: Option<OsString>,
}

impl TreeWatcher {
    /// Watches `root` according to `mode`. Must be called within a runtime.
    pub(super) fn new(root: &Path, mode: RecursiveMode) -> Result<Self, WatchError> {
        let failed = |source: io::Error| WatchError::AddWatch {
            path: root.to_path_buf(),
            source,
        };
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(|error| failed(error.into()))?;
        let queue = sys::async_fd(queue, Interest::READABLE).map_err(failed)?;
        let mut tree = Self {
            queue: Rc::new(queue),
            root: root.to_path_buf(),
            mode,
            dirs: BTreeMap::new(),
            reported: BTreeSet::new(),
        };
        tree.add_tree(Path::new(""), &mut None)?;
        if tree.dirs.is_empty() {
            return Err(failed(io::ErrorKind::NotFound.into()));
        }
        Ok(tree)
    }

    /// The inotify queue, which becomes readable when there are changes.
    pub(super) fn queue(&self) -> Rc<AsyncFd<OwnedFd>> {
        Rc::clone(&self.queue)
    }

    /// Reads available changes without waiting.
    pub(super) fn read_changes(&mut self) -> Result<Batch<Change>, WatchError> {
        let mut changes = Vec::new();
        while changes.len() < BATCH_LEN {
            let events = self.read_events()?;
            if events.is_empty() {
                self.reported.clear();
                return Ok(Batch {
                    items: changes,
                    queue: QueueState::Drained,
                });
            }
            for event in events {
                self.apply(event, &mut changes)?;
            }
        }
        Ok(Batch {
            items: changes,
            queue: QueueState::HasMore,
        })
    }

    /// Reads one buffer of events; an empty vector means that the queue is empty.
    fn read_events(&self) -> Result<Vec<InotifyEvent>, WatchError> {
        let mut buffer = [MaybeUninit::uninit(); READ_BUFFER_LEN];
        let mut reader = Reader::new(self.queue.get_ref().as_fd(), &mut buffer);
        let mut events = Vec::new();
        loop {
            match reader.next() {
                Ok(event) => events.push(InotifyEvent {
                    dir: event.wd(),
                    flags: event.events(),
                    name: event
                        .file_name()
                        .map(|name| OsStr::from_bytes(name.to_bytes()).to_owned()),
                }),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(events),
                Err(error) => return Err(WatchError::Read(error.into())),
            }
            if reader.is_buffer_empty() {
                return Ok(events);
            }
        }
    }

    /// Converts an event to changes, and follows directories that appear or disappear.
    fn apply(&mut self, event: InotifyEvent, changes: &mut Vec<Change>) -> Result<(), WatchError> {
        let flags = event.flags;
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            return Err(WatchError::Overflow);
        }
        if flags.contains(ReadFlags::IGNORED) {
            self.dirs.remove(&event.dir);
            return Ok(());
        }
        let Some(dir) = self.dirs.get(&event.dir) else {
            return Ok(());
        };
        let Some(name) = event.name else {
            // For directories below the root, the parent's event reports the same change.
            if dir.as_os_str().is_empty()
                && let Some(kind) = kind_of_self(flags)
            {
                let path = PathBuf::from(".");
                changes.push(Change { path, kind });
            }
            return Ok(());
        };
        let path = dir.join(&name);
        let was_reported = self.reported.remove(&(event.dir, name));
        let appears = flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO);
        if appears && was_reported {
            return Ok(());
        }
        if let Some(kind) = kind_of_child(flags) {
            let path = path.clone();
            changes.push(Change { path, kind });
        }
        if self.mode == RecursiveMode::Recursive && flags.contains(ReadFlags::ISDIR) {
            if flags.contains(ReadFlags::CREATE) {
                // Entries may have been created before the watch was added.
                let mut report = Some(std::mem::take(changes));
                let added = self.add_tree(&path, &mut report);
                *changes = report.unwrap_or_default();
                added?;
            } else if flags.contains(ReadFlags::MOVED_TO) {
                self.add_tree(&path, &mut None)?;
            } else if flags.contains(ReadFlags::MOVED_FROM) {
                self.remove_tree(&path);
            }
        }
        Ok(())
    }

    /// Watches a directory and everything below it. Adds the entries that it finds to `report`, if there is one.
    fn add_tree(&mut self, dir: &Path, report: &mut Option<Vec<Change>>) -> Result<(), WatchError> {
        let mut pending = vec![dir.to_path_buf()];
        while let Some(dir) = pending.pop() {
            let full = self.root.join(&dir);
            match self.add_dir(&dir, &full, report, &mut pending) {
                Ok(()) => {}
                // Removed or replaced in the meantime, which the parent's events report.
                Err(error) if is_missing(&error) => {}
                Err(source) => return Err(WatchError::AddWatch { path: full, source }),
            }
            if self.dirs.len() > MAX_DIRS {
                return Err(WatchError::TooManyDirs);
            }
        }
        Ok(())
    }

    fn add_dir(
        &mut self,
        dir: &Path,
        full: &Path,
        report: &mut Option<Vec<Change>>,
        pending: &mut Vec<PathBuf>,
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
        let descriptor = inotify::add_watch(self.queue.get_ref(), full, mask)?;
        self.dirs.insert(descriptor, dir.to_path_buf());
        if self.mode == RecursiveMode::NonRecursive {
            return Ok(());
        }
        for child in fs::read_dir(full)? {
            let child = child?;
            let path = dir.join(child.file_name());
            let file_type = child.file_type()?;
            if let Some(changes) = report {
                self.reported.insert((descriptor, child.file_name()));
                changes.extend(implied_events(&child, file_type).map(|kind| Change {
                    path: path.clone(),
                    kind,
                }));
            }
            if file_type.is_dir() {
                pending.push(path);
            }
        }
        Ok(())
    }

    /// Stops watching a directory that was moved away, and everything below it.
    fn remove_tree(&mut self, dir: &Path) {
        let removed = self
            .dirs
            .extract_if(.., |_, watched| watched.starts_with(dir));
        for (descriptor, _) in removed {
            // Fails if the directory was deleted since.
            let _removed = inotify::remove_watch(self.queue.get_ref(), descriptor);
        }
    }
}

/// Events that an existing entry implies: its creation, and a write if it is a file with content.
fn implied_events(child: &fs::DirEntry, kind: fs::FileType) -> impl Iterator<Item = EventType> {
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
mod tests {
    use super::*;

    fn paths(batch: &Batch<Change>) -> Vec<&str> {
        batch
            .items
            .iter()
            .map(|change| change.path.to_str().unwrap())
            .collect()
    }

    #[tokio::test]
    async fn scanned_entry_is_not_reported_again_by_inotify() {
        let dir = tempfile::tempdir().unwrap();
        let mut tree = TreeWatcher::new(dir.path(), RecursiveMode::Recursive).unwrap();
        fs::create_dir(dir.path().join("new")).unwrap();
        // A file created between adding the watch of a new directory and scanning it.
        tree.add_tree(Path::new("new"), &mut None).unwrap();
        fs::write(dir.path().join("new/file"), "").unwrap();
        let batch = tree.read_changes().unwrap();
        assert_eq!(paths(&batch), ["new", "new/file"]);
        assert_eq!(batch.queue, QueueState::Drained);
        // A later file with the same name is another entry.
        fs::remove_file(dir.path().join("new/file")).unwrap();
        fs::write(dir.path().join("new/file"), "").unwrap();
        let batch = tree.read_changes().unwrap();
        assert_eq!(paths(&batch), ["new/file", "new/file"]);
    }

    #[tokio::test]
    async fn write_before_the_watch_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let mut tree = TreeWatcher::new(dir.path(), RecursiveMode::Recursive).unwrap();
        fs::create_dir(dir.path().join("new")).unwrap();
        fs::write(dir.path().join("new/full"), "text").unwrap();
        fs::write(dir.path().join("new/empty"), "").unwrap();
        let changes = tree.read_changes().unwrap().items;
        let kinds = |path: &str| -> Vec<EventType> {
            let changes = changes
                .iter()
                .filter(|change| change.path == Path::new(path));
            changes.map(|change| change.kind).collect()
        };
        let [created, written] = [EventType::EVENT_TYPE_CREATE, EventType::EVENT_TYPE_WRITE];
        assert_eq!(kinds("new/full"), [created, written]);
        assert_eq!(kinds("new/empty"), [created]);
    }

    #[tokio::test]
    async fn watched_directory_removal_is_reported_as_dot() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        let mut tree = TreeWatcher::new(&root, RecursiveMode::NonRecursive).unwrap();
        fs::remove_dir(&root).unwrap();
        let batch = tree.read_changes().unwrap();
        assert_eq!(paths(&batch), ["."]);
        assert_eq!(batch.items[0].kind, EventType::EVENT_TYPE_REMOVE);
        assert!(matches!(
            TreeWatcher::new(&root, RecursiveMode::Recursive),
            Err(WatchError::AddWatch { .. })
        ));
    }
}
