//! Telling callers what changes in a directory, by a stream or when they ask.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    io,
    path::{Path, PathBuf},
    rc::Rc,
};

use rustix::fs::statfs;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, spawn_local},
};
use tracing::debug;

use super::{
    Target,
    entry::Entries,
    failure,
    tree::{Change, Tree, TreeError},
};
use crate::{
    agent::Agent,
    messages::{
        filesystem::{
            CreateWatcherRequest, CreateWatcherResponse, EventType, FilesystemEvent,
            GetWatcherEventsResponse, RemoveWatcherResponse, WatchDirRequest, WatchDirResponse,
            watch_dir_response::{KeepAlive, StartEvent},
        },
        filesystem_oneof::WatchEvent,
    },
    respond,
    rpc::{Code, Context, Feed, RpcError},
};

/// Most watchers that wait to be asked. The kernel has 128 queues for a user, and streams need some.
const MOST: usize = 100;
/// Most changes that one of them keeps.
const KEPT: usize = 16_384;
/// Changes that wait for a slow reader of a stream; with more the kernel keeps them.
const WAITING: usize = 16;

/// `f_type` of file systems whose changes are made elsewhere: NFS, CIFS, SMB, SMB2, FUSE.
const NETWORK: [u32; 5] = [0x6969, 0xff53_4d42, 0x517b, 0xfe53_4d42, 0x6573_5546];

/// A directory that is watched for a caller.
#[derive(Debug)]
pub(super) struct Scope {
    tree: Tree,
    /// As the caller named it, for the entries.
    shown: PathBuf,
    /// Below which the users are, when entries are wanted.
    entries: Option<PathBuf>,
}

/// Those that wait to be asked.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    known: RefCell<BTreeMap<String, Rc<Watcher>>>,
    last: Cell<u64>,
}

#[derive(Debug)]
struct Watcher {
    state: RefCell<State>,
    task: RefCell<Option<AbortHandle>>,
}

#[derive(Debug)]
struct State {
    scope: Scope,
    kept: VecDeque<FilesystemEvent>,
    /// Why nothing can be told any more, or something is missing.
    error: Option<RpcError>,
}

// === impl Scope ===

impl Scope {
    pub(super) fn of(
        agent: &Agent,
        context: &Context,
        request: &WatchDirRequest,
    ) -> Result<Self, RpcError> {
        let target = Target::of(agent, context, &request.path)?;
        target.must_be_dir("path")?;
        let root = target
            .path
            .canonicalize()
            .map_err(|error| failure("stat", &target.path, &error))?;
        if !request.allow_network_mounts && is_elsewhere(&root) {
            return Err(RpcError::invalid(format!(
                "cannot watch path on network filesystem: {}",
                target.path.display()
            )));
        }
        let tree = Tree::watch(&root, request.recursive).map_err(|error| refusal(&error))?;
        Ok(Self {
            tree,
            shown: target.path,
            entries: request.include_entry.then(|| agent.root().to_path_buf()),
        })
    }

    /// What has happened, and whether it is all.
    fn take(&mut self) -> Result<(Vec<FilesystemEvent>, bool), RpcError> {
        let (changes, all) = self.tree.take().map_err(|error| refusal(&error))?;
        if changes.is_empty() {
            return Ok((Vec::new(), all));
        }
        let entries = self.entries.as_deref().map(Entries::new);
        let event = |change: Change| {
            let entry = match (&entries, change.kind) {
                (
                    Some(entries),
                    EventType::EVENT_TYPE_CREATE
                    | EventType::EVENT_TYPE_WRITE
                    | EventType::EVENT_TYPE_CHMOD,
                ) => entries.entry(&self.shown.join(&change.name)).ok(),
                _ => None,
            };
            FilesystemEvent {
                name: change.name.to_string_lossy().into_owned(),
                r#type: change.kind.into(),
                entry: entry.into(),
            }
        };
        Ok((changes.into_iter().map(event).collect(), all))
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

/// Tells what happens as it happens, for as long as somebody listens.
pub(super) fn stream(scope: Scope) -> Result<Feed<WatchDirResponse>, RpcError> {
    let (sender, messages) = mpsc::channel(WAITING);
    // There is room in a new channel.
    let _sent = sender.try_send(Ok(message(StartEvent {})));
    spawn_local(async move {
        if let Err(error) = tell(scope, &sender).await {
            // The caller may have gone.
            let _sent = sender.send(Err(error)).await;
        }
    });
    Ok(Feed {
        messages,
        alive: || message(KeepAlive {}),
    })
}

async fn tell(
    mut scope: Scope,
    sender: &mpsc::Sender<Result<WatchDirResponse, RpcError>>,
) -> Result<(), RpcError> {
    let queue = scope.tree.queue();
    loop {
        let mut ready = tokio::select! {
            () = sender.closed() => return Ok(()),
            ready = queue.readable() => ready.map_err(|error| unread(&error))?,
        };
        let (events, all) = scope.take()?;
        if all {
            ready.clear_ready();
        }
        for event in events {
            if sender.send(Ok(message(event))).await.is_err() {
                return Ok(());
            }
        }
    }
}

fn message(event: impl Into<WatchEvent>) -> WatchDirResponse {
    WatchDirResponse {
        event: Some(event.into()),
    }
}

// === impl Watchers ===

impl Watchers {
    /// Starts to keep what happens.
    pub(super) fn create(&self, scope: Scope) -> Result<CreateWatcherResponse, RpcError> {
        let mut known = self.known.borrow_mut();
        if known.len() >= MOST {
            return Err(RpcError::new(
                Code::ResourceExhausted,
                format!("more than {MOST} watchers"),
            ));
        }
        self.last.set(self.last.get() + 1);
        let watcher_id = format!("w{}", self.last.get());
        let queue = scope.tree.queue();
        let watcher = Rc::new(Watcher {
            state: RefCell::new(State {
                scope,
                kept: VecDeque::new(),
                error: None,
            }),
            task: RefCell::default(),
        });
        let weak = Rc::downgrade(&watcher);
        let task = spawn_local(async move {
            while let Ok(mut ready) = queue.readable().await {
                match weak.upgrade() {
                    Some(watcher) if watcher.state.borrow_mut().keep() => ready.clear_ready(),
                    _ => return,
                }
            }
        });
        *watcher.task.borrow_mut() = Some(task.abort_handle());
        known.insert(watcher_id.clone(), watcher);
        Ok(CreateWatcherResponse { watcher_id })
    }

    /// What has happened since the last time. What happened before this was asked is in it.
    pub(super) fn events(&self, id: &str) -> Result<GetWatcherEventsResponse, RpcError> {
        let watcher = self.known.borrow().get(id).cloned();
        let watcher = watcher.ok_or_else(|| unknown(id))?;
        let mut state = watcher.state.borrow_mut();
        if state.error.is_none() {
            state.keep();
        }
        if state.kept.is_empty()
            && let Some(error) = state.error.clone()
        {
            return Err(error);
        }
        Ok(GetWatcherEventsResponse {
            events: state.kept.drain(..).collect(),
        })
    }

    /// Keeps it no longer.
    pub(super) fn remove(&self, id: &str) -> Result<RemoveWatcherResponse, RpcError> {
        match self.known.borrow_mut().remove(id) {
            Some(_) => Ok(RemoveWatcherResponse::default()),
            None => Err(unknown(id)),
        }
    }
}

impl State {
    /// Takes what has happened; whether more can follow. What there is no room for is lost, which is told once the rest
    /// was taken.
    fn keep(&mut self) -> bool {
        loop {
            match self.scope.take() {
                Ok((events, all)) => {
                    let room = KEPT.saturating_sub(self.kept.len());
                    let lost = events.len() > room;
                    self.kept.extend(events.into_iter().take(room));
                    if lost {
                        self.error = Some(refusal(&TreeError::Lost));
                        return false;
                    }
                    if all {
                        return true;
                    }
                }
                Err(error) => {
                    debug!(%error, "a watcher ended");
                    self.error = Some(error);
                    return false;
                }
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().take() {
            task.abort();
        }
    }
}

fn unknown(id: &str) -> RpcError {
    RpcError::new(
        Code::NotFound,
        format!("watcher with id {} not found", id.escape_default()),
    )
}

fn unread(error: &io::Error) -> RpcError {
    RpcError::new(Code::Internal, format!("wait for changes: {error}"))
}

fn refusal(error: &TreeError) -> RpcError {
    let code = match error {
        TreeError::Lost | TreeError::TooMany => Code::ResourceExhausted,
        TreeError::Watch { path, source } => match source.raw_os_error() {
            // The kernel has no more queues, or no more watches.
            Some(nix::libc::EMFILE | nix::libc::ENOSPC) => Code::ResourceExhausted,
            _ => return failure("watch", path, source),
        },
        TreeError::Read(_) => Code::Internal,
    };
    RpcError::new(code, respond::chain(error))
}

/// Whether changes of a directory can be made where this kernel does not see them.
fn is_elsewhere(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| NETWORK.iter().any(|kind| i64::from(*kind) == found.f_type))
}
