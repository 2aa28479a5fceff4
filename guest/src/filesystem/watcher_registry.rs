//! Watchers that buffer changes until the caller polls them.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

use error_chain::chain;
use tokio::task::{AbortHandle, spawn_local};
use tracing::debug;

use super::{
    inotify::{QueueState, WatchError},
    watch_scope::{WatchScope, rpc_error},
};
use crate::{
    messages::filesystem::{
        CreateWatcherResponse, FilesystemEvent, GetWatcherEventsResponse, RemoveWatcherResponse,
    },
    rpc::{Code, RpcError},
};

/// The most watchers. The kernel allows 128 inotify instances per user, and streams need some of them.
const MAX_WATCHERS: usize = 100;
/// The most changes that a watcher buffers.
const MAX_BUFFERED: usize = 16_384;

/// The polled watchers, by ID.
#[derive(Debug, Default)]
pub(crate) struct WatcherRegistry {
    watchers: RefCell<BTreeMap<String, Rc<Watcher>>>,
    last_id: Cell<u64>,
}

#[derive(Debug)]
struct Watcher {
    state: RefCell<WatcherState>,
    task: RefCell<Option<AbortHandle>>,
}

#[derive(Debug)]
struct WatcherState {
    scope: WatchScope,
    buffer: VecDeque<FilesystemEvent>,
    /// The error that ended the watch, reported once the buffer is empty.
    error: Option<RpcError>,
}

/// The state of a watcher after a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Continues,
    Ended,
}

impl WatcherRegistry {
    /// Creates a watcher, which buffers changes from now on.
    pub(crate) fn create(&self, scope: WatchScope) -> Result<CreateWatcherResponse, RpcError> {
        let mut watchers = self.watchers.borrow_mut();
        if watchers.len() >= MAX_WATCHERS {
            return Err(RpcError::new(
                Code::ResourceExhausted,
                format!("more than {MAX_WATCHERS} watchers"),
            ));
        }
        self.last_id.set(self.last_id.get() + 1);
        let watcher_id = format!("w{}", self.last_id.get());
        let queue = scope.queue();
        let watcher = Rc::new(Watcher {
            state: RefCell::new(WatcherState {
                scope,
                buffer: VecDeque::new(),
                error: None,
            }),
            task: RefCell::default(),
        });
        let weak = Rc::downgrade(&watcher);
        let task = spawn_local(async move {
            while let Ok(mut ready) = queue.readable().await {
                let Some(watcher) = weak.upgrade() else {
                    return;
                };
                match watcher.state.borrow_mut().collect() {
                    Progress::Continues => ready.clear_ready(),
                    Progress::Ended => return,
                }
            }
        });
        *watcher.task.borrow_mut() = Some(task.abort_handle());
        watchers.insert(watcher_id.clone(), watcher);
        Ok(CreateWatcherResponse { watcher_id })
    }

    /// Returns all changes since the last call, including those that are not read from the kernel yet.
    pub(crate) fn events(&self, id: &str) -> Result<GetWatcherEventsResponse, RpcError> {
        let watcher = self.watchers.borrow().get(id).cloned();
        let watcher = watcher.ok_or_else(|| not_found(id))?;
        let mut state = watcher.state.borrow_mut();
        if state.error.is_none() {
            state.collect();
        }
        if state.buffer.is_empty()
            && let Some(error) = state.error.clone()
        {
            return Err(error);
        }
        Ok(GetWatcherEventsResponse {
            events: state.buffer.drain(..).collect(),
        })
    }

    /// Removes a watcher.
    pub(crate) fn remove(&self, id: &str) -> Result<RemoveWatcherResponse, RpcError> {
        match self.watchers.borrow_mut().remove(id) {
            Some(_) => Ok(RemoveWatcherResponse::default()),
            None => Err(not_found(id)),
        }
    }
}

impl WatcherState {
    /// Reads all available changes into the buffer. A full buffer ends the watcher: further changes are lost.
    fn collect(&mut self) -> Progress {
        loop {
            match self.scope.read_events() {
                Ok(batch) => {
                    let room = MAX_BUFFERED.saturating_sub(self.buffer.len());
                    let overflow = batch.items.len() > room;
                    self.buffer.extend(batch.items.into_iter().take(room));
                    if overflow {
                        self.error = Some(rpc_error(&WatchError::Overflow));
                        return Progress::Ended;
                    }
                    if batch.queue == QueueState::Drained {
                        return Progress::Continues;
                    }
                }
                Err(error) => {
                    debug!(error = %chain(&error), "watcher failed");
                    self.error = Some(error);
                    return Progress::Ended;
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

fn not_found(id: &str) -> RpcError {
    RpcError::new(
        Code::NotFound,
        format!("watcher with id {} not found", id.escape_default()),
    )
}
