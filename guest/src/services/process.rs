//! The service `process.Process`.

use std::{fs, path::PathBuf, rc::Rc, time::Duration};

use buffa::EnumValue;
use http::Request;
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::{
    messages::{
        process::{
            CloseStdinRequest, CloseStdinResponse, ConnectRequest, ListRequest, ListResponse, PTY,
            ProcessConfig, ProcessInfo, ProcessInput, ProcessSelector, SendInputRequest,
            SendInputResponse, SendSignalRequest, SendSignalResponse, Signal, StartRequest,
            StreamInputRequest, StreamInputResponse, UpdateRequest, UpdateResponse,
        },
        process_oneof::{Input, InputEvent, Selector},
    },
    process::{
        self, EventMessage, InputKind, Launch, Process, ProcessIo, ProcessOptions, Processes,
    },
    response::HttpResponse,
    rpc::{Call, Context, RequestStream, ResponseStream, RpcError},
    state::AgentState,
    user::User,
};

/// The common prefix of the procedures' paths.
pub(crate) const PATH_PREFIX: &str = "/process.Process/";

/// The longest time that a caller waits for a killed process to exit.
const KILL_WAIT: Duration = Duration::from_secs(2);

/// Handles a call of the service.
pub(crate) async fn handle(state: &AgentState, request: Request<Incoming>) -> HttpResponse {
    let path = request.uri().path().to_owned();
    let call = match Call::from_request(request) {
        Ok(call) => call,
        Err(response) => return *response,
    };
    let processes = state.processes();
    match path.strip_prefix(PATH_PREFIX).unwrap_or_default() {
        "Start" => {
            call.server_stream(async |request, context| start(state, request, context))
                .await
        }
        "Connect" => {
            call.server_stream(async |request: ConnectRequest, _| {
                Ok(processes.find(selector(&request.process)?)?.follow())
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
            call.client_stream(async |messages| stream_input(processes, messages).await)
                .await
        }
        "CloseStdin" => {
            call.unary(async |request: CloseStdinRequest, _| {
                let process = processes.find_running(selector(&request.process)?)?;
                process.input.close_stdin()?;
                Ok(CloseStdinResponse::default())
            })
            .await
        }
        _ => call.unknown_procedure(path.trim_start_matches('/')),
    }
}

fn start(
    state: &AgentState,
    mut request: StartRequest,
    context: &Context,
) -> Result<ResponseStream<EventMessage>, RpcError> {
    let user = state.user(context.user.as_deref())?;
    let config = request
        .process
        .take()
        .ok_or_else(|| RpcError::invalid_argument("process is missing"))?;
    let launch = launch(state, user, &config)?;
    let io = match request.pty.as_option() {
        Some(pty) => ProcessIo::Pty(process::window_size(pty)),
        None if request.stdin.unwrap_or(true) => ProcessIo::Pipes,
        None => ProcessIo::OutputPipes,
    };
    let options = ProcessOptions {
        io,
        config,
        tag: request.tag,
        deadline: context.deadline,
    };
    process::start(state.processes(), &launch, options).map_err(|error| launch.spawn_error(&error))
}

/// Completes a caller's request with the guest's environment and working directory.
fn launch(state: &AgentState, user: User, config: &ProcessConfig) -> Result<Launch, RpcError> {
    if config.cmd.is_empty() {
        return Err(RpcError::invalid_argument("cmd is empty"));
    }
    let mut env = state.environment(Some(&user));
    for (name, value) in &config.envs {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(RpcError::invalid_argument(format!(
                "'{}' cannot be set in an environment",
                name.escape_default()
            )));
        }
        env.insert(name.clone(), value.clone());
    }
    let workdir = state.workdir(&user);
    let cwd = match config.cwd.as_deref() {
        None | Some("") => workdir,
        Some(cwd) => match cwd.strip_prefix('~') {
            Some(below) if below.is_empty() || below.starts_with('/') => {
                user.home.join(below.trim_start_matches('/'))
            }
            _ => workdir.join(cwd),
        },
    };
    if !fs::metadata(&cwd).is_ok_and(|metadata| metadata.is_dir()) {
        let text = format!("cwd '{}' does not exist", cwd.display());
        return Err(RpcError::invalid_argument(text));
    }
    Ok(Launch {
        program: PathBuf::from(&config.cmd),
        args: config.args.clone(),
        env,
        cwd,
        user: Some(user),
    })
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
        process.input.resize(process::window_size(pty))?;
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
        return Err(RpcError::invalid_argument(
            "signal is neither SIGNAL_SIGKILL nor SIGNAL_SIGTERM",
        ));
    };
    process.signal(signal)?;
    if signal == Signal::SIGNAL_SIGKILL {
        // The caller's next list or lookup must not find the process. Its end may be delayed by the kernel.
        let _elapsed = timeout(KILL_WAIT, process.ended()).await;
    }
    Ok(SendSignalResponse::default())
}

async fn send_input(process: &Process, input: Option<ProcessInput>) -> Result<(), RpcError> {
    match input.and_then(|input| input.input) {
        Some(Input::Stdin(bytes)) => process.input.write(InputKind::Stdin, &bytes).await,
        Some(Input::Pty(bytes)) => process.input.write(InputKind::Pty, &bytes).await,
        None => Err(RpcError::invalid_argument("input is missing")),
    }
}

/// Writes the caller's messages to the process that the first one selects, at the pace of the process.
async fn stream_input(
    processes: &Processes,
    mut messages: RequestStream<StreamInputRequest>,
) -> Result<StreamInputResponse, RpcError> {
    let mut target = None;
    while let Some(message) = messages.next().await? {
        match (message.event, &target) {
            (Some(InputEvent::Start(start)), None) => {
                target = Some(processes.find_running(selector(&start.process)?)?);
            }
            (Some(InputEvent::Start(_)), Some(_)) => {
                return Err(RpcError::invalid_argument("the stream has started already"));
            }
            (Some(InputEvent::Data(data)), Some(process)) => {
                send_input(process, data.input.into_option()).await?;
            }
            (Some(InputEvent::Data(_)), None) => {
                return Err(RpcError::invalid_argument(
                    "the stream does not start with a start event",
                ));
            }
            (Some(InputEvent::Keepalive(_)) | None, _) => {}
        }
    }
    Ok(StreamInputResponse::default())
}

fn selector(
    field: &buffa::MessageField<ProcessSelector, impl buffa::ProtoBox<ProcessSelector>>,
) -> Result<&Selector, RpcError> {
    field
        .as_option()
        .and_then(|selector| selector.selector.as_ref())
        .ok_or_else(|| RpcError::invalid_argument("process selector is missing"))
}
