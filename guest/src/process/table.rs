//! The table of started processes, and the task that reaps them.
//!
//! One task waits for `SIGCHLD`. As pid 1 it reaps every child, including orphans; otherwise only processes that this
//! agent started. All of it runs on one thread: a process that is not marked as reaped still owns its process ID.

use std::{cell::RefCell, collections::BTreeMap, io, rc::Rc};

use error_chain::chain;
use guest_api::envd::ExitStatus;
use nix::sys::signal::Signal as UnixSignal;
use rustix::process::{Pid, WaitOptions, WaitStatus, wait, waitpid};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    task::spawn_local,
};
use tracing::warn;

use super::{
    child::{Process, signal_group},
    input::InputChannel,
    launch::Launch,
};
use crate::{
    messages::{process::ProcessConfig, process_oneof::Selector},
    rpc::{Code, RpcError},
};

/// The processes that the agent reaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reap {
    /// Every child, as pid 1 must.
    All,
    /// Processes that the agent started.
    Own,
}

/// The processes that the agent started.
#[derive(Debug, Clone)]
pub(crate) struct Processes(Rc<Table>);

#[derive(Debug, Default)]
struct Table {
    processes: RefCell<BTreeMap<u32, Rc<Process>>>,
    /// Receivers of exit statuses, of processes that are not reaped yet.
    waiters: RefCell<BTreeMap<u32, oneshot::Sender<ExitStatus>>>,
}

/// A process without input, output and followers.
#[derive(Debug)]
pub(crate) struct DetachedChild {
    pid: u32,
    exit: ExitWaiter,
}

/// Waits for the exit of one process.
#[derive(Debug)]
pub(super) struct ExitWaiter(oneshot::Receiver<ExitStatus>);

impl Processes {
    /// Creates an empty table and spawns the reaping task. Must be called within a `LocalSet`.
    pub(crate) fn start(reap: Reap) -> io::Result<Self> {
        let table = Rc::new(Table::default());
        let mut children = signal(SignalKind::child())?;
        let weak = Rc::downgrade(&table);
        spawn_local(async move {
            while children.recv().await.is_some() {
                let Some(table) = weak.upgrade() else { return };
                match reap {
                    Reap::All => table.reap_all(),
                    Reap::Own => table.reap_own(),
                }
            }
        });
        Ok(Self(table))
    }

    /// Adds a process that was just started.
    pub(super) fn add(
        &self,
        pid: u32,
        input: InputChannel,
        config: ProcessConfig,
        tag: Option<String>,
    ) -> (Rc<Process>, ExitWaiter) {
        let process = Rc::new(Process::new(pid, input, config, tag));
        let mut processes = self.0.processes.borrow_mut();
        processes.retain(|_, process| !process.is_expired());
        processes.insert(pid, Rc::clone(&process));
        (process, self.0.wait_for(pid))
    }

    /// Starts a process without input and output.
    pub(crate) fn spawn_detached(&self, launch: &Launch) -> io::Result<DetachedChild> {
        let pid = launch.spawn_detached()?;
        Ok(DetachedChild {
            pid,
            exit: self.0.wait_for(pid),
        })
    }

    /// The processes that have not ended.
    pub(crate) fn running(&self) -> Vec<Rc<Process>> {
        let processes = self.0.processes.borrow();
        processes
            .values()
            .filter(|process| process.exit_status().is_none())
            .cloned()
            .collect()
    }

    /// Finds a process that runs or ended recently.
    pub(crate) fn find(&self, selector: &Selector) -> Result<Rc<Process>, RpcError> {
        let processes = self.0.processes.borrow();
        let found = match selector {
            Selector::Pid(pid) => processes.get(pid),
            // A running process has precedence over an ended one with the same tag.
            Selector::Tag(tag) => {
                let tagged = || {
                    processes
                        .values()
                        .filter(|process| process.tag.as_ref() == Some(tag))
                };
                tagged()
                    .rfind(|process| process.exit_status().is_none())
                    .or_else(|| tagged().next_back())
            }
        };
        match found {
            Some(process) if !process.is_expired() => Ok(Rc::clone(process)),
            _ => Err(not_found(selector)),
        }
    }

    /// Finds a process that runs.
    pub(crate) fn find_running(&self, selector: &Selector) -> Result<Rc<Process>, RpcError> {
        let process = self.find(selector)?;
        if process.exit_status().is_some() {
            Err(not_found(selector))
        } else {
            Ok(process)
        }
    }
}

impl Table {
    fn wait_for(&self, pid: u32) -> ExitWaiter {
        let (sender, receiver) = oneshot::channel();
        self.waiters.borrow_mut().insert(pid, sender);
        ExitWaiter(receiver)
    }

    fn reap_all(&self) {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.handle_status(pid, status),
                Ok(None) | Err(rustix::io::Errno::CHILD) => return,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return warn!(error = %chain(&error), "failed to reap processes"),
            }
        }
    }

    fn reap_own(&self) {
        let pids: Vec<u32> = self.waiters.borrow().keys().copied().collect();
        for pid in pids {
            let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
                continue;
            };
            match waitpid(Some(pid), WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.handle_status(pid, status),
                Ok(None) => {}
                Err(error) => warn!(?pid, error = %chain(&error), "failed to reap process"),
            }
        }
    }

    fn handle_status(&self, pid: Pid, status: WaitStatus) {
        let (Some(exit), Ok(pid)) = (
            exit_status(status),
            u32::try_from(pid.as_raw_nonzero().get()),
        ) else {
            return;
        };
        if let Some(process) = self.processes.borrow().get(&pid) {
            process.set_reaped();
        }
        if let Some(waiter) = self.waiters.borrow_mut().remove(&pid) {
            // The receiver may have been dropped.
            let _unsent = waiter.send(exit);
        }
    }
}

impl ExitWaiter {
    /// Waits for the exit status. Must not be called again after it has returned.
    pub(super) async fn wait(&mut self) -> ExitStatus {
        // The sender is dropped only when another waiter replaces it, which requires that the process ID was reused,
        // and thus that the process was reaped.
        (&mut self.0).await.unwrap_or(ExitStatus::Code(-1))
    }
}

impl DetachedChild {
    /// Waits for the exit status. Must not be called again after it has returned.
    pub(crate) async fn wait(&mut self) -> ExitStatus {
        self.exit.wait().await
    }

    /// Kills the process group. Must not be called after [`DetachedChild::wait`] has returned.
    pub(crate) fn kill(&self) {
        if let Err(error) = signal_group(self.pid, UnixSignal::SIGKILL) {
            warn!(pid = self.pid, error = %chain(&error), "failed to kill process");
        }
    }
}

/// Converts the status of a process that ended; `None` if it was stopped or continued.
fn exit_status(status: WaitStatus) -> Option<ExitStatus> {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Some(ExitStatus::Code(code)),
        (None, Some(signal)) => u8::try_from(signal).ok().map(ExitStatus::Signal),
        (None, None) => None,
    }
}

fn not_found(selector: &Selector) -> RpcError {
    let text = match selector {
        Selector::Pid(pid) => format!("process with pid {pid} not found"),
        Selector::Tag(tag) => format!("process with tag {tag} not found"),
    };
    RpcError::new(Code::NotFound, text)
}
