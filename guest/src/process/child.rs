//! A process of a caller: its state, its followers and its signals.

use std::{
    cell::{Cell, RefCell},
    io,
    time::Duration,
};

use guest_api::envd::ExitStatus;
use nix::{
    errno::Errno,
    sys::signal::{Signal as UnixSignal, killpg},
    unistd::Pid,
};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

use super::{
    event::{self, EventMessage},
    input::InputChannel,
};
use crate::{
    messages::process::{ProcessConfig, Signal},
    rpc::{Code, ResponseStream, RpcError},
};

/// The time for which an ended process can still be found.
const RETENTION: Duration = Duration::from_secs(30);
/// Events that are buffered for a slow follower. A full buffer stops reading the process's output.
const FOLLOWER_BUFFER: usize = 4;

/// The sending half of a follower's event stream.
pub(super) type Follower = mpsc::Sender<Result<EventMessage, RpcError>>;

/// A process that a caller started.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) config: ProcessConfig,
    pub(crate) tag: Option<String>,
    pub(crate) input: InputChannel,
    pub(super) followers: RefCell<Vec<Follower>>,
    state: RefCell<ProcessState>,
    ended: Notify,
    killed: Cell<bool>,
}

#[derive(Debug)]
enum ProcessState {
    /// Not reaped: the kernel cannot reuse the process ID.
    Running,
    /// Reaped, with output still to be read.
    Reaped,
    Ended {
        exit: ExitStatus,
        at: Instant,
    },
}

impl Process {
    pub(super) fn new(
        pid: u32,
        input: InputChannel,
        config: ProcessConfig,
        tag: Option<String>,
    ) -> Self {
        Self {
            pid,
            config,
            tag,
            input,
            followers: RefCell::default(),
            state: RefCell::new(ProcessState::Running),
            ended: Notify::new(),
            killed: Cell::new(false),
        }
    }

    /// Streams a start event, then all further events. For an ended process: the start and the end event. Dropping the
    /// stream does not affect the process.
    pub(crate) fn follow(&self) -> ResponseStream<EventMessage> {
        let (sender, messages) = mpsc::channel(FOLLOWER_BUFFER);
        // A new channel has room for two events.
        let _sent = sender.try_send(Ok(event::start(self.pid)));
        match self.exit_status() {
            Some(exit) => {
                let _sent = sender.try_send(Ok(event::end(exit)));
            }
            None => self.followers.borrow_mut().push(sender),
        }
        ResponseStream {
            messages,
            keepalive: event::keepalive,
        }
    }

    /// The exit status, once the process was reaped and its output was read.
    pub(super) fn exit_status(&self) -> Option<ExitStatus> {
        match &*self.state.borrow() {
            ProcessState::Ended { exit, .. } => Some(*exit),
            ProcessState::Running | ProcessState::Reaped => None,
        }
    }

    /// Returns whether the agent sent SIGKILL, so that further output need not be awaited.
    pub(super) fn was_killed(&self) -> bool {
        self.killed.get()
    }

    /// Records that the process was reaped.
    pub(super) fn set_reaped(&self) {
        let mut state = self.state.borrow_mut();
        if matches!(*state, ProcessState::Running) {
            *state = ProcessState::Reaped;
        }
    }

    /// Records the end of the process.
    pub(super) fn set_ended(&self, exit: ExitStatus) {
        *self.state.borrow_mut() = ProcessState::Ended {
            exit,
            at: Instant::now(),
        };
        self.ended.notify_waiters();
    }

    /// Waits until [`Process::set_ended`] was called.
    pub(crate) async fn ended(&self) {
        loop {
            let ended = self.ended.notified();
            if self.exit_status().is_some() {
                return;
            }
            ended.await;
        }
    }

    /// Returns whether the process ended too long ago to be found.
    pub(super) fn is_expired(&self) -> bool {
        matches!(&*self.state.borrow(), ProcessState::Ended { at, .. } if at.elapsed() > RETENTION)
    }

    /// Sends a signal to the process group that the process leads.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), RpcError> {
        let unix = match signal {
            Signal::SIGNAL_UNSPECIFIED => return Ok(()),
            Signal::SIGNAL_SIGTERM => UnixSignal::SIGTERM,
            Signal::SIGNAL_SIGKILL => UnixSignal::SIGKILL,
        };
        if unix == UnixSignal::SIGKILL {
            self.killed.set(true);
        }
        if !matches!(*self.state.borrow(), ProcessState::Running) {
            return Ok(());
        }
        signal_group(self.pid, unix)
            .map_err(|error| RpcError::new(Code::Internal, format!("send signal: {error}")))
    }
}

/// Signals the process group of `pid`, which every started process leads.
pub(super) fn signal_group(pid: u32, signal: UnixSignal) -> io::Result<()> {
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    match killpg(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
