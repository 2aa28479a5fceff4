//! A watched directory, whose changes are reported as messages.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    rc::Rc,
};

use error_chain::chain;
use rustix::fs::statfs;
use tokio::io::unix::AsyncFd;

use super::{
    entry::EntryReader,
    error::{FileOperation, file_error},
    inotify::{Batch, Change, RecursiveMode, TreeWatcher, WatchError},
};
use crate::{
    messages::filesystem::{CreateWatcherRequest, EventType, FilesystemEvent, WatchDirRequest},
    rpc::{Code, RpcError},
};

/// `f_type` of file systems that other machines change without inotify events: NFS, CIFS, SMB, SMB2, FUSE.
const NETWORK_FILESYSTEMS: [u32; 5] = [0x6969, 0xff53_4d42, 0x517b, 0xfe53_4d42, 0x6573_5546];

/// A directory that is watched for a caller.
#[derive(Debug)]
pub(crate) struct WatchScope {
    tree: TreeWatcher,
    /// The directory's path in the request, which entries repeat.
    dir: PathBuf,
    /// The root of `/etc/passwd`, if the caller wants entries.
    entries_root: Option<PathBuf>,
}

impl WatchScope {
    /// Watches `dir` from now on. User names are read below `root`.
    pub(crate) fn new(
        root: &Path,
        dir: PathBuf,
        request: &WatchDirRequest,
    ) -> Result<Self, RpcError> {
        let canonical = dir
            .canonicalize()
            .map_err(|error| file_error(FileOperation::Stat, &dir, &error))?;
        if !request.allow_network_mounts && is_network_filesystem(&canonical) {
            return Err(RpcError::invalid_argument(format!(
                "cannot watch path on network filesystem: {}",
                dir.display()
            )));
        }
        let mode = if request.recursive {
            RecursiveMode::Recursive
        } else {
            RecursiveMode::NonRecursive
        };
        let tree = TreeWatcher::new(&canonical, mode).map_err(|error| rpc_error(&error))?;
        Ok(Self {
            tree,
            dir,
            entries_root: request.include_entry.then(|| root.to_path_buf()),
        })
    }

    /// The queue that becomes readable when there are changes.
    pub(super) fn queue(&self) -> Rc<AsyncFd<OwnedFd>> {
        self.tree.queue()
    }

    /// Reads available changes without waiting.
    pub(super) fn read_events(&mut self) -> Result<Batch<FilesystemEvent>, RpcError> {
        let batch = self
            .tree
            .read_changes()
            .map_err(|error| rpc_error(&error))?;
        let reader = match &self.entries_root {
            Some(root) if !batch.items.is_empty() => Some(EntryReader::new(root)),
            _ => None,
        };
        let event = |change: Change| {
            let entry = match (&reader, change.kind) {
                (
                    Some(reader),
                    EventType::EVENT_TYPE_CREATE
                    | EventType::EVENT_TYPE_WRITE
                    | EventType::EVENT_TYPE_CHMOD,
                ) => reader.read(&self.dir.join(&change.path)).ok(),
                _ => None,
            };
            FilesystemEvent {
                name: change.path.to_string_lossy().into_owned(),
                r#type: change.kind.into(),
                entry: entry.into(),
            }
        };
        Ok(Batch {
            items: batch.items.into_iter().map(event).collect(),
            queue: batch.queue,
        })
    }
}

impl From<CreateWatcherRequest> for WatchDirRequest {
    fn from(request: CreateWatcherRequest) -> Self {
        Self {
            path: request.path,
            recursive: request.recursive,
            include_entry: request.include_entry,
            allow_network_mounts: request.allow_network_mounts,
        }
    }
}

/// Converts an error of a watch into one for the caller.
pub(super) fn rpc_error(error: &WatchError) -> RpcError {
    let code = match error {
        WatchError::Overflow | WatchError::TooManyDirs => Code::ResourceExhausted,
        WatchError::AddWatch { path, source } => match source.raw_os_error() {
            // The user's limit of inotify instances, or of watches.
            Some(nix::libc::EMFILE | nix::libc::ENOSPC) => Code::ResourceExhausted,
            _ => return file_error(FileOperation::Watch, path, source),
        },
        WatchError::Read(_) => Code::Internal,
    };
    RpcError::new(code, chain(error).to_string())
}

fn is_network_filesystem(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| {
        NETWORK_FILESYSTEMS
            .iter()
            .any(|kind| i64::from(*kind) == stat.f_type)
    })
}
