//! The service `filesystem.Filesystem`.
//!
//! Like E2B's agent, this one reads and writes as root, and assigns created files to the caller's user.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use http::Request;
use hyper::body::Incoming;
use tokio::task::spawn_blocking;

use crate::{
    create_dirs,
    filesystem::{self, EntryReader, FileOperation, WatchScope, file_error, is_missing},
    messages::filesystem::{
        CreateWatcherRequest, EntryInfo, GetWatcherEventsRequest, ListDirRequest, ListDirResponse,
        MakeDirRequest, MakeDirResponse, MoveRequest, MoveResponse, RemoveRequest, RemoveResponse,
        RemoveWatcherRequest, StatRequest, StatResponse, WatchDirRequest,
    },
    path,
    response::HttpResponse,
    rpc::{Call, Code, Context, RpcError},
    state::AgentState,
    user::User,
};

/// The common prefix of the procedures' paths.
pub(crate) const PATH_PREFIX: &str = "/filesystem.Filesystem/";

/// Handles a call of the service.
pub(crate) async fn handle(state: &AgentState, request: Request<Incoming>) -> HttpResponse {
    let path = request.uri().path().to_owned();
    let call = match Call::from_request(request) {
        Ok(call) => call,
        Err(response) => return *response,
    };
    match path.strip_prefix(PATH_PREFIX).unwrap_or_default() {
        "Stat" => {
            call.unary(async |request, context| stat(state, &request, context))
                .await
        }
        "MakeDir" => {
            call.unary(async |request, context| make_dir(state, request, context).await)
                .await
        }
        "Move" => {
            call.unary(async |request, context| move_entry(state, request, context).await)
                .await
        }
        "ListDir" => {
            call.unary(async |request, context| list_dir(state, request, context).await)
                .await
        }
        "Remove" => {
            call.unary(async |request, context| remove(state, request, context).await)
                .await
        }
        "WatchDir" => {
            call.server_stream(async |request: WatchDirRequest, context| {
                filesystem::stream_changes(watch_scope(state, context, &request)?)
            })
            .await
        }
        "CreateWatcher" => {
            call.unary(async |request: CreateWatcherRequest, context| {
                let scope = watch_scope(state, context, &request.into())?;
                state.watchers().create(scope)
            })
            .await
        }
        "GetWatcherEvents" => {
            call.unary(async |request: GetWatcherEventsRequest, _| {
                state.watchers().events(&request.watcher_id)
            })
            .await
        }
        "RemoveWatcher" => {
            call.unary(async |request: RemoveWatcherRequest, _| {
                state.watchers().remove(&request.watcher_id)
            })
            .await
        }
        _ => call.unknown_procedure(path.trim_start_matches('/')),
    }
}

fn stat(
    state: &AgentState,
    request: &StatRequest,
    context: &Context,
) -> Result<StatResponse, RpcError> {
    let target = Target::resolve(state, context, &request.path)?;
    Ok(StatResponse {
        entry: target.entry(state)?.into(),
    })
}

async fn make_dir(
    state: &AgentState,
    request: MakeDirRequest,
    context: &Context,
) -> Result<MakeDirResponse, RpcError> {
    let target = Target::resolve(state, context, &request.path)?;
    let path = target.path.display();
    match fs::metadata(&target.path) {
        Ok(metadata) if metadata.is_dir() => {
            return Err(RpcError::new(
                Code::AlreadyExists,
                format!("directory already exists: {path}"),
            ));
        }
        Ok(_) => {
            return Err(RpcError::invalid_argument(format!(
                "path already exists but it is not a directory: {path}"
            )));
        }
        Err(_) => {}
    }
    state.disk().writable().await;
    create_dirs::create_dirs(&target.path, &target.user)
        .map_err(|error| file_error(FileOperation::MakeDir, &error.path, &error.source))?;
    Ok(MakeDirResponse {
        entry: target.entry(state)?.into(),
    })
}

async fn move_entry(
    state: &AgentState,
    request: MoveRequest,
    context: &Context,
) -> Result<MoveResponse, RpcError> {
    let source = Target::resolve(state, context, &request.source)?;
    let destination = Target::resolve(state, context, &request.destination)?;
    fs::symlink_metadata(&source.path)
        .map_err(|error| file_error(FileOperation::Move, &source.path, &error))?;
    state.disk().writable().await;
    create_dirs::create_parents(&destination.path, &destination.user)
        .map_err(|error| file_error(FileOperation::MakeDir, &error.path, &error.source))?;
    fs::rename(&source.path, &destination.path)
        .map_err(|error| file_error(FileOperation::Move, &source.path, &error))?;
    Ok(MoveResponse {
        entry: destination.entry(state)?.into(),
    })
}

async fn list_dir(
    state: &AgentState,
    request: ListDirRequest,
    context: &Context,
) -> Result<ListDirResponse, RpcError> {
    let target = Target::resolve(state, context, &request.path)?;
    target.require_dir()?;
    let reader = EntryReader::new(state.root());
    let entries = filesystem::list(&reader, &target.path, request.depth.max(1)).await?;
    Ok(ListDirResponse { entries })
}

/// Removes a file or a tree. Large trees are removed on another thread, so that other calls proceed.
async fn remove(
    state: &AgentState,
    request: RemoveRequest,
    context: &Context,
) -> Result<RemoveResponse, RpcError> {
    let target = Target::resolve(state, context, &request.path)?;
    state.disk().writable().await;
    let removed = match fs::symlink_metadata(&target.path) {
        Ok(metadata) if metadata.is_dir() => {
            let path = target.path.clone();
            match spawn_blocking(move || fs::remove_dir_all(path)).await {
                Ok(removed) => removed,
                Err(error) => Err(io::Error::other(error)),
            }
        }
        Ok(_) => fs::remove_file(&target.path),
        Err(error) => Err(error),
    };
    match removed {
        Ok(()) => Ok(RemoveResponse::default()),
        Err(error) if is_missing(&error) => Ok(RemoveResponse::default()),
        Err(error) => Err(file_error(FileOperation::Remove, &target.path, &error)),
    }
}

fn watch_scope(
    state: &AgentState,
    context: &Context,
    request: &WatchDirRequest,
) -> Result<WatchScope, RpcError> {
    let target = Target::resolve(state, context, &request.path)?;
    target.require_dir()?;
    WatchScope::new(state.root(), target.path, request)
}

/// The user and the path of a request.
struct Target {
    user: User,
    path: PathBuf,
}

impl Target {
    fn resolve(state: &AgentState, context: &Context, path: &str) -> Result<Self, RpcError> {
        let user = state.user(context.user.as_deref())?;
        let path = path::resolve(Path::new(path), &user.home, &state.workdir(&user))
            .map_err(|error| RpcError::invalid_argument(error.to_string()))?;
        Ok(Self { user, path })
    }

    fn entry(&self, state: &AgentState) -> Result<EntryInfo, RpcError> {
        EntryReader::new(state.root())
            .read(&self.path)
            .map_err(|error| file_error(FileOperation::Stat, &self.path, &error))
    }

    fn require_dir(&self) -> Result<(), RpcError> {
        let metadata = fs::metadata(&self.path)
            .map_err(|error| file_error(FileOperation::Stat, &self.path, &error))?;
        if metadata.is_dir() {
            Ok(())
        } else {
            Err(RpcError::invalid_argument(format!(
                "path is not a directory: {}",
                self.path.display()
            )))
        }
    }
}
