//! `process.Process`: running programs for callers.
//!
//! A process belongs to the guest and not to the call that started it: a caller that goes away takes nothing with it, and
//! another one may follow the process later. Output goes to whoever follows, at the pace of the slowest of them; with
//! nobody following it is dropped.

mod events;
mod exit;
mod follow;
mod launch;
mod message;
mod table;

use std::{rc::Rc, time::Duration};

use http::{HeaderMap, Request, StatusCode};
use hyper::body::Incoming;
use serde::Serialize;
use tokio::{io::AsyncWriteExt, task::spawn_local};

use self::{
    events::Events,
    message::{
        CloseStdinRequest, ConnectRequest, ListResponse, ListedProcess, SendInputRequest,
        SendSignalRequest, StartRequest,
    },
    table::Process,
};
use crate::{
    agent::Agent,
    respond::{self, Answer},
    rpc::{self, Code, RpcError},
    user::UserError,
};

pub use self::table::Reap;
pub(crate) use self::{exit::Exit, launch::Launch, table::Processes};

/// What the path of every procedure begins with.
pub(crate) const SERVICE: &str = "/process.Process/";

/// How often a stream without events says that it is alive, when its caller does not say.
const KEEPALIVE: Duration = Duration::from_secs(90);

/// The message that says nothing.
#[derive(Serialize)]
struct Empty {}

/// Answers a call of the service.
pub(crate) async fn answer(agent: Rc<Agent>, request: Request<Incoming>) -> Answer {
    let procedure = request
        .uri()
        .path()
        .strip_prefix(SERVICE)
        .unwrap_or_default()
        .to_owned();
    let Some(streams) = rpc::is_stream(request.headers()) else {
        return respond::error(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content type is not that of Connect with JSON",
        );
    };
    let (parts, body) = request.into_parts();
    let result = match respond::collect(body).await {
        Err(error) => Err(RpcError::new(Code::InvalidArgument, respond::chain(&error))),
        Ok(body) if streams => match rpc::decode_one(&body) {
            Ok(message) => stream(&agent, &procedure, &parts.headers, message),
            Err(error) => Err(error),
        },
        Ok(body) => unary(&agent, &procedure, &body).await,
    };
    match result {
        Ok(answer) => answer,
        Err(error) if streams => error.into_stream(),
        Err(error) => error.into_unary(),
    }
}

fn stream(
    agent: &Agent,
    procedure: &str,
    headers: &HeaderMap,
    message: &[u8],
) -> Result<Answer, RpcError> {
    let keepalive = headers
        .get("keepalive-ping-interval")
        .and_then(|value| value.to_str().ok()?.parse::<u32>().ok())
        .filter(|seconds| *seconds > 0)
        .map_or(KEEPALIVE, |seconds| Duration::from_secs(seconds.into()));
    let events = match procedure {
        "Start" => start(agent, headers, rpc::decode(message)?, keepalive)?,
        "Connect" => {
            let request: ConnectRequest = rpc::decode(message)?;
            Events::of(&*agent.processes().find(&request.process)?, keepalive)
        }
        _ => return Err(unknown(procedure)),
    };
    Ok(rpc::stream(events.into_answer()))
}

async fn unary(agent: &Agent, procedure: &str, message: &[u8]) -> Result<Answer, RpcError> {
    let processes = agent.processes();
    match procedure {
        "List" => {
            let processes = processes.running().iter().map(listed).collect();
            return Ok(rpc::unary(&ListResponse { processes }));
        }
        "SendSignal" => {
            let request: SendSignalRequest = rpc::decode(message)?;
            processes
                .find_running(&request.process)?
                .signal(request.signal)?;
        }
        "SendInput" => {
            let request: SendInputRequest = rpc::decode(message)?;
            send_input(&*processes.find_running(&request.process)?, &request).await?;
        }
        "CloseStdin" => {
            let request: CloseStdinRequest = rpc::decode(message)?;
            processes
                .find_running(&request.process)?
                .stdin
                .lock()
                .await
                .take();
        }
        _ => return Err(unknown(procedure)),
    }
    Ok(rpc::unary(&Empty {}))
}

fn start(
    agent: &Agent,
    headers: &HeaderMap,
    request: StartRequest,
    keepalive: Duration,
) -> Result<Events, RpcError> {
    if request.pty.is_some() {
        return Err(RpcError::new(
            Code::Unimplemented,
            "pseudo terminals are not supported yet",
        ));
    }
    let deadline = rpc::timeout(headers)?;
    let named = rpc::basic_user(headers)?;
    let user = agent.user(named.as_deref()).map_err(|error| match error {
        UserError::Unknown(_) => RpcError::new(Code::Unauthenticated, error.to_string()),
        UserError::Read(_) => RpcError::new(Code::Internal, respond::chain(&error)),
    })?;
    let launch = Launch::of(agent, user, &request.process)?;
    let started = launch
        .start(request.stdin.unwrap_or(true))
        .map_err(|error| launch.refusal(&error))?;
    let (process, exit) =
        agent
            .processes()
            .add(started.pid, started.stdin, request.process, request.tag);
    let events = Events::of(&process, keepalive);
    spawn_local(follow::follow(
        process,
        started.stdout,
        started.stderr,
        exit,
        deadline,
    ));
    Ok(events)
}

fn listed(process: &Rc<Process>) -> ListedProcess {
    ListedProcess {
        config: process.config.clone(),
        pid: process.pid,
        tag: process.tag.clone(),
    }
}

async fn send_input(process: &Process, request: &SendInputRequest) -> Result<(), RpcError> {
    let Some(text) = &request.input.stdin else {
        return Err(RpcError::new(
            Code::Unimplemented,
            "pseudo terminals are not supported yet",
        ));
    };
    let bytes = rpc::from_base64(text)
        .ok_or_else(|| RpcError::new(Code::InvalidArgument, "input is not base64"))?;
    let mut stdin = process.stdin.lock().await;
    let closed = || RpcError::new(Code::FailedPrecondition, "stdin of the process is not open");
    let pipe = stdin.as_mut().ok_or_else(closed)?;
    if pipe.write_all(&bytes).await.is_err() {
        *stdin = None;
        return Err(closed());
    }
    Ok(())
}

fn unknown(procedure: &str) -> RpcError {
    RpcError::new(
        Code::Unimplemented,
        format!("procedure process.Process/{procedure} is not implemented"),
    )
}
