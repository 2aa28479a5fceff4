//! `process.Process`: running programs for callers.
//!
//! A process belongs to the guest and not to the call that started it: a caller that goes away takes nothing with it, and
//! another one may follow the process later. Output goes to whoever follows, at the pace of the slowest of them; with
//! nobody following it is dropped.

mod event;
mod exit;
mod follow;
mod input;
mod launch;
mod pty;
mod table;

use std::{rc::Rc, time::Duration};

use buffa::EnumValue;
use http::Request;
use hyper::body::Incoming;
use tokio::{task::spawn_local, time::timeout};

use self::{event::Events, input::Kind, table::Process};
use crate::{
    agent::Agent,
    messages::{
        process::{
            CloseStdinRequest, CloseStdinResponse, ConnectRequest, ListRequest, ListResponse, PTY,
            ProcessInfo, ProcessInput, ProcessSelector, SendInputRequest, SendInputResponse,
            SendSignalRequest, SendSignalResponse, Signal, StartRequest, StreamInputRequest,
            StreamInputResponse, UpdateRequest, UpdateResponse,
        },
        process_oneof::{Input, InputEvent, Selector},
    },
    respond::Answer,
    rpc::{Call, Code, Context, Inbox, RpcError},
};

pub use self::table::Reap;
pub(crate) use self::{exit::Exit, launch::Launch, table::Processes};

/// What the path of every procedure begins with.
pub(crate) const SERVICE: &str = "/process.Process/";

/// How long a caller that kills a process waits for its end.
const DYING: Duration = Duration::from_secs(2);

/// Answers a call of the service.
pub(crate) async fn answer(agent: Rc<Agent>, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    let call = match Call::of(request) {
        Ok(call) => call,
        Err(answer) => return *answer,
    };
    let processes = agent.processes();
    match path.strip_prefix(SERVICE).unwrap_or_default() {
        "Start" => {
            call.server_stream(async |request, context| start(&agent, request, context))
                .await
        }
        "Connect" => {
            call.server_stream(async |request: ConnectRequest, _| {
                Ok(Events::of(&*processes.find(selector(&request.process)?)?))
            })
            .await
        }
        "List" => {
            call.unary(async |_: ListRequest, _| Ok(list(processes)))
                .await
        }
        "Update" => {
            call.unary(async |request, _| update(processes, &request))
                .await
        }
        "SendSignal" => {
            call.unary(async |request, _| send_signal(processes, &request).await)
                .await
        }
        "SendInput" => {
            call.unary(async |request: SendInputRequest, _| {
                let process = processes.find_running(selector(&request.process)?)?;
                send_input(&process, request.input.into_option()).await?;
                Ok(SendInputResponse::default())
            })
            .await
        }
        "StreamInput" => {
            call.client_stream(async |inbox| stream_input(processes, inbox).await)
                .await
        }
        "CloseStdin" => {
            call.unary(async |request: CloseStdinRequest, _| {
                let process = processes.find_running(selector(&request.process)?)?;
                process.input.close_by_caller()?;
                Ok(CloseStdinResponse::default())
            })
            .await
        }
        _ => call.unknown(path.trim_start_matches('/')),
    }
}

fn start(
    agent: &Agent,
    mut request: StartRequest,
    context: &Context,
) -> Result<crate::rpc::Feed<event::Message>, RpcError> {
    let user = context.user(agent)?;
    let config = request
        .process
        .take()
        .ok_or_else(|| RpcError::invalid("process is missing"))?;
    let launch = Launch::of(agent, user, &config)?;
    let started = match request.pty.as_option() {
        Some(pty) => launch.start_on_pty(pty::size(pty)),
        None => launch.start(request.stdin.unwrap_or(true)),
    };
    let started = started.map_err(|error| launch.refusal(&error))?;
    let (process, exit) = agent
        .processes()
        .add(started.pid, started.input, config, request.tag);
    let events = Events::of(&process);
    spawn_local(follow::follow(
        process,
        started.output,
        exit,
        context.deadline,
    ));
    Ok(events)
}

fn list(processes: &Processes) -> ListResponse {
    let info = |process: &Rc<Process>| ProcessInfo {
        config: process.config.clone().into(),
        pid: process.pid,
        tag: process.tag.clone(),
    };
    ListResponse {
        processes: processes.running().iter().map(info).collect(),
    }
}

fn update(processes: &Processes, request: &UpdateRequest) -> Result<UpdateResponse, RpcError> {
    let process = processes.find_running(selector(&request.process)?)?;
    if let Some(pty) = request
        .pty
        .as_option()
        .filter(|pty: &&PTY| pty.size.is_set())
    {
        process.input.resize(pty::size(pty))?;
    }
    Ok(UpdateResponse::default())
}

async fn send_signal(
    processes: &Processes,
    request: &SendSignalRequest,
) -> Result<SendSignalResponse, RpcError> {
    let process = processes.find_running(selector(&request.process)?)?;
    let EnumValue::Known(signal @ (Signal::SIGNAL_SIGKILL | Signal::SIGNAL_SIGTERM)) =
        request.signal
    else {
        return Err(RpcError::invalid(
            "signal is neither SIGNAL_SIGKILL nor SIGNAL_SIGTERM",
        ));
    };
    process.signal(signal)?;
    if signal == Signal::SIGNAL_SIGKILL {
        // Whoever looks for it next does not find it. It cannot refuse, but the kernel may take its time.
        let _late = timeout(DYING, process.ended()).await;
    }
    Ok(SendSignalResponse::default())
}

async fn send_input(process: &Process, input: Option<ProcessInput>) -> Result<(), RpcError> {
    match input.and_then(|input| input.input) {
        Some(Input::Stdin(bytes)) => process.input.write(Kind::Stdin, &bytes).await,
        Some(Input::Pty(bytes)) => process.input.write(Kind::Pty, &bytes).await,
        None => Err(RpcError::invalid("input is missing")),
    }
}

/// Writes what the caller streams, as fast as the process takes it.
async fn stream_input(
    processes: &Processes,
    mut inbox: Inbox<StreamInputRequest>,
) -> Result<StreamInputResponse, RpcError> {
    let mut target = None;
    while let Some(message) = inbox.next().await? {
        match (message.event, &target) {
            (Some(InputEvent::Start(start)), None) => {
                target = Some(processes.find_running(selector(&start.process)?)?);
            }
            (Some(InputEvent::Start(_)), Some(_)) => {
                return Err(RpcError::invalid("the stream has started already"));
            }
            (Some(InputEvent::Data(data)), Some(process)) => {
                send_input(process, data.input.into_option()).await?;
            }
            (Some(InputEvent::Data(_)), None) => {
                return Err(RpcError::new(
                    Code::InvalidArgument,
                    "the stream does not start with a start event",
                ));
            }
            (Some(InputEvent::Keepalive(_)) | None, _) => {}
        }
    }
    Ok(StreamInputResponse::default())
}

/// Which process a caller means.
fn selector(
    field: &buffa::MessageField<ProcessSelector, impl buffa::ProtoBox<ProcessSelector>>,
) -> Result<&Selector, RpcError> {
    field
        .as_option()
        .and_then(|selector| selector.selector.as_ref())
        .ok_or_else(|| RpcError::invalid("process selector is missing"))
}
