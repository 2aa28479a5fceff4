//! `filesystem.Filesystem`: looking at files, moving them, and being told of their changes.
//!
//! The agent works as root, as E2B's does, and gives what it makes to the caller's user.

mod entry;
mod tree;
mod walk;
mod watch;

use std::{
    fs, io,
    path::{Path, PathBuf},
    rc::Rc,
};

use http::Request;
use hyper::body::Incoming;
use tokio::task::spawn_blocking;

pub(crate) use self::watch::Watchers;
use self::{entry::Entries, watch::Scope};
use crate::{
    agent::Agent,
    messages::filesystem::{
        CreateWatcherRequest, EntryInfo, GetWatcherEventsRequest, ListDirRequest, ListDirResponse,
        MakeDirRequest, MakeDirResponse, MoveRequest, MoveResponse, RemoveRequest, RemoveResponse,
        RemoveWatcherRequest, StatRequest, StatResponse, WatchDirRequest,
    },
    path, place,
    respond::{self, Answer},
    rpc::{Call, Code, Context, RpcError},
    user::User,
};

/// What the path of every procedure begins with.
pub(crate) const SERVICE: &str = "/filesystem.Filesystem/";

/// Answers a call of the service.
pub(crate) async fn answer(agent: Rc<Agent>, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    let call = match Call::of(request) {
        Ok(call) => call,
        Err(answer) => return *answer,
    };
    let agent = &*agent;
    match path.strip_prefix(SERVICE).unwrap_or_default() {
        "Stat" => {
            call.unary(async |request, context| stat(agent, &request, context))
                .await
        }
        "MakeDir" => {
            call.unary(async |request, context| make_dir(agent, request, context).await)
                .await
        }
        "Move" => {
            call.unary(async |request, context| move_entry(agent, request, context).await)
                .await
        }
        "ListDir" => {
            call.unary(async |request, context| list_dir(agent, request, context).await)
                .await
        }
        "Remove" => {
            call.unary(async |request, context| remove(agent, request, context).await)
                .await
        }
        "WatchDir" => {
            call.server_stream(async |request: WatchDirRequest, context| {
                watch::stream(Scope::of(agent, context, &request)?)
            })
            .await
        }
        "CreateWatcher" => {
            call.unary(async |request: CreateWatcherRequest, context| {
                let scope = Scope::of(agent, context, &request.into())?;
                agent.watchers().create(scope)
            })
            .await
        }
        "GetWatcherEvents" => {
            call.unary(async |request: GetWatcherEventsRequest, _| {
                agent.watchers().events(&request.watcher_id)
            })
            .await
        }
        "RemoveWatcher" => {
            call.unary(async |request: RemoveWatcherRequest, _| {
                agent.watchers().remove(&request.watcher_id)
            })
            .await
        }
        _ => call.unknown(path.trim_start_matches('/')),
    }
}

fn stat(agent: &Agent, request: &StatRequest, context: &Context) -> Result<StatResponse, RpcError> {
    let target = Target::of(agent, context, &request.path)?;
    Ok(StatResponse {
        entry: target.entry(agent)?.into(),
    })
}

async fn make_dir(
    agent: &Agent,
    request: MakeDirRequest,
    context: &Context,
) -> Result<MakeDirResponse, RpcError> {
    let target = Target::of(agent, context, &request.path)?;
    let shown = target.path.display();
    match fs::metadata(&target.path) {
        Ok(found) if found.is_dir() => {
            return Err(RpcError::new(
                Code::AlreadyExists,
                format!("directory already exists: {shown}"),
            ));
        }
        Ok(_) => {
            return Err(RpcError::invalid(format!(
                "path already exists but it is not a directory: {shown}"
            )));
        }
        Err(_) => {}
    }
    agent.disk().writable().await;
    place::make_dirs(&target.path, &target.user)
        .map_err(|error| failure("make directory", &error.path, &error.source))?;
    Ok(MakeDirResponse {
        entry: target.entry(agent)?.into(),
    })
}

async fn move_entry(
    agent: &Agent,
    request: MoveRequest,
    context: &Context,
) -> Result<MoveResponse, RpcError> {
    let source = Target::of(agent, context, &request.source)?;
    let destination = Target::of(agent, context, &request.destination)?;
    fs::symlink_metadata(&source.path).map_err(|error| failure("move", &source.path, &error))?;
    agent.disk().writable().await;
    place::make_parents(&destination.path, &destination.user)
        .map_err(|error| failure("make directory", &error.path, &error.source))?;
    fs::rename(&source.path, &destination.path)
        .map_err(|error| failure("move", &source.path, &error))?;
    Ok(MoveResponse {
        entry: destination.entry(agent)?.into(),
    })
}

async fn list_dir(
    agent: &Agent,
    request: ListDirRequest,
    context: &Context,
) -> Result<ListDirResponse, RpcError> {
    let target = Target::of(agent, context, &request.path)?;
    target.must_be_dir("path")?;
    let entries = Entries::new(agent.root());
    let entries = walk::list(&entries, &target.path, request.depth.max(1)).await?;
    Ok(ListDirResponse { entries })
}

/// Whoever is deleting a large tree must not keep the agent from everybody else.
async fn remove(
    agent: &Agent,
    request: RemoveRequest,
    context: &Context,
) -> Result<RemoveResponse, RpcError> {
    let target = Target::of(agent, context, &request.path)?;
    agent.disk().writable().await;
    let removed = match fs::symlink_metadata(&target.path) {
        Ok(found) if found.is_dir() => {
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
        Err(error) => Err(failure("remove", &target.path, &error)),
    }
}

/// What a caller names, and as whom.
struct Target {
    user: User,
    path: PathBuf,
}

impl Target {
    fn of(agent: &Agent, context: &Context, named: &str) -> Result<Self, RpcError> {
        let user = context.user(agent)?;
        let path = path::resolve(Path::new(named), &user.home, &agent.workdir(&user))
            .map_err(|error| RpcError::invalid(error.to_string()))?;
        Ok(Self { user, path })
    }

    fn entry(&self, agent: &Agent) -> Result<EntryInfo, RpcError> {
        Entries::new(agent.root())
            .entry(&self.path)
            .map_err(|error| failure("stat", &self.path, &error))
    }

    /// `what` is how the error calls it.
    fn must_be_dir(&self, what: &str) -> Result<(), RpcError> {
        let found =
            fs::metadata(&self.path).map_err(|error| failure("stat", &self.path, &error))?;
        if found.is_dir() {
            Ok(())
        } else {
            Err(RpcError::invalid(format!(
                "{what} is not a directory: {}",
                self.path.display()
            )))
        }
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// How a caller is told that `verb` failed on `path`.
fn failure(verb: &str, path: &Path, error: &io::Error) -> RpcError {
    use io::ErrorKind as Kind;
    let shown = path.display();
    match error.kind() {
        Kind::NotFound => RpcError::new(
            Code::NotFound,
            format!("file or directory not found: {shown}"),
        ),
        Kind::NotADirectory if verb == "stat" => RpcError::new(
            Code::NotFound,
            format!("file or directory not found: {shown}"),
        ),
        Kind::StorageFull | Kind::QuotaExceeded => RpcError::new(
            Code::ResourceExhausted,
            "not enough disk space available".to_owned(),
        ),
        Kind::NotADirectory
        | Kind::IsADirectory
        | Kind::AlreadyExists
        | Kind::DirectoryNotEmpty
        | Kind::InvalidInput
        | Kind::InvalidFilename => RpcError::invalid(format!("{verb} {shown}: {error}")),
        Kind::CrossesDevices | Kind::ReadOnlyFilesystem | Kind::ResourceBusy => {
            RpcError::new(Code::FailedPrecondition, format!("{verb} {shown}: {error}"))
        }
        Kind::PermissionDenied => {
            RpcError::new(Code::PermissionDenied, format!("{verb} {shown}: {error}"))
        }
        _ => RpcError::new(
            Code::Internal,
            format!("{verb} {shown}: {}", respond::chain(error)),
        ),
    }
}
