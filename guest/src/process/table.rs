//! The processes that were started, and their reaping.
//!
//! One task waits for `SIGCHLD`. As pid 1 it reaps whatever there is to reap, and every orphan of the guest with it;
//! elsewhere only what this agent started. All of it is on one thread, so that a process that has not been told of here
//! has not been reaped either, and its id is still its own.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io,
    rc::Rc,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::signal::{Signal as UnixSignal, killpg},
    unistd::Pid as UnixPid,
};
use rustix::process::{Pid, WaitOptions, wait, waitpid};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Notify, oneshot},
    task::spawn_local,
    time::Instant,
};
use tracing::warn;

use super::{Launch, event::Follower, exit::Exit, input::Input};
use crate::{
    messages::{
        process::{ProcessConfig, Signal},
        process_oneof::Selector,
    },
    rpc::{Code, RpcError},
};

/// How long the end of a process can be asked for.
const REMEMBERED: Duration = Duration::from_secs(30);

/// Whose ends are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reap {
    /// Everybody's: this is pid 1.
    All,
    /// Only those of processes that the agent started.
    Own,
}

/// The processes that were started here.
#[derive(Debug, Clone)]
pub(crate) struct Processes(Rc<Table>);

#[derive(Debug, Default)]
struct Table {
    known: RefCell<BTreeMap<u32, Rc<Process>>>,
    /// Who waits for a process that has not been reaped.
    unreaped: RefCell<BTreeMap<u32, oneshot::Sender<Exit>>>,
}

/// A process that a caller started.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) config: ProcessConfig,
    pub(super) tag: Option<String>,
    pub(super) input: Input,
    pub(super) followers: RefCell<Vec<Follower>>,
    life: RefCell<Life>,
    ended: Notify,
    killed: Cell<bool>,
}

#[derive(Debug)]
enum Life {
    /// Not reaped: its id is its own.
    Running,
    /// Reaped, and its output is still being read.
    Reaped,
    Ended {
        exit: Exit,
        at: Instant,
    },
}

/// A process whose output nobody wants.
#[derive(Debug)]
pub(crate) struct Quiet {
    pid: u32,
    exit: ExitWaiter,
}

/// Waits for one process.
#[derive(Debug)]
pub(super) struct ExitWaiter(oneshot::Receiver<Exit>);

impl Processes {
    /// An empty table, and the task that reaps. Must be called within a `LocalSet`.
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

    /// Takes in a process that was just started.
    pub(super) fn add(
        &self,
        pid: u32,
        input: Input,
        config: ProcessConfig,
        tag: Option<String>,
    ) -> (Rc<Process>, ExitWaiter) {
        let process = Rc::new(Process {
            pid,
            config,
            tag,
            input,
            followers: RefCell::default(),
            life: RefCell::new(Life::Running),
            ended: Notify::new(),
            killed: Cell::new(false),
        });
        let mut known = self.0.known.borrow_mut();
        known.retain(|_, process| !process.is_forgotten());
        known.insert(pid, Rc::clone(&process));
        (process, self.0.wait_for(pid))
    }

    /// Starts a process without pipes.
    pub(crate) fn run_quietly(&self, launch: &Launch) -> io::Result<Quiet> {
        let pid = launch.start_quietly()?;
        Ok(Quiet {
            pid,
            exit: self.0.wait_for(pid),
        })
    }

    /// Those that have not ended.
    pub(super) fn running(&self) -> Vec<Rc<Process>> {
        let known = self.0.known.borrow();
        known
            .values()
            .filter(|process| process.end().is_none())
            .cloned()
            .collect()
    }

    /// One that runs, or has ended a short while ago.
    pub(super) fn find(&self, which: &Selector) -> Result<Rc<Process>, RpcError> {
        let known = self.0.known.borrow();
        let found = match which {
            Selector::Pid(pid) => known.get(pid),
            // Of several one that runs, else one that has ended.
            Selector::Tag(tag) => {
                let tagged = || {
                    known
                        .values()
                        .filter(|process| process.tag.as_ref() == Some(tag))
                };
                tagged()
                    .rfind(|process| process.end().is_none())
                    .or_else(|| tagged().next_back())
            }
        };
        match found {
            Some(process) if !process.is_forgotten() => Ok(Rc::clone(process)),
            _ => Err(not_found(which)),
        }
    }

    /// One that runs.
    pub(super) fn find_running(&self, which: &Selector) -> Result<Rc<Process>, RpcError> {
        let process = self.find(which)?;
        if process.end().is_some() {
            Err(not_found(which))
        } else {
            Ok(process)
        }
    }
}

impl Table {
    fn wait_for(&self, pid: u32) -> ExitWaiter {
        let (sender, receiver) = oneshot::channel();
        self.unreaped.borrow_mut().insert(pid, sender);
        ExitWaiter(receiver)
    }

    fn reap_all(&self) {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.reaped(pid, Exit::of(status)),
                Ok(None) | Err(rustix::io::Errno::CHILD) => return,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return warn!(%error, "could not reap"),
            }
        }
    }

    fn reap_own(&self) {
        let pids: Vec<u32> = self.unreaped.borrow().keys().copied().collect();
        for pid in pids {
            let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
                continue;
            };
            match waitpid(Some(pid), WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.reaped(pid, Exit::of(status)),
                Ok(None) => {}
                Err(error) => warn!(?pid, %error, "could not reap"),
            }
        }
    }

    fn reaped(&self, pid: Pid, exit: Option<Exit>) {
        let (Some(exit), Ok(pid)) = (exit, u32::try_from(pid.as_raw_nonzero().get())) else {
            return;
        };
        if let Some(process) = self.known.borrow().get(&pid) {
            let mut life = process.life.borrow_mut();
            if matches!(*life, Life::Running) {
                *life = Life::Reaped;
            }
        }
        if let Some(waiting) = self.unreaped.borrow_mut().remove(&pid) {
            // Whoever waited may have gone.
            let _unsent = waiting.send(exit);
        }
    }
}

impl ExitWaiter {
    /// How it ended.
    pub(super) async fn exit(&mut self) -> Exit {
        // The sender is dropped only when it was replaced, which an id not yet reaped cannot be.
        (&mut self.0).await.unwrap_or(Exit::Code(-1))
    }
}

impl Quiet {
    /// How it ended. Must not be called again after it has returned.
    pub(crate) async fn exit(&mut self) -> Exit {
        self.exit.exit().await
    }

    /// Kills it and what it started. It must not have ended.
    pub(crate) fn kill(&self) {
        if let Err(error) = signal_group(self.pid, UnixSignal::SIGKILL) {
            warn!(pid = self.pid, %error, "could not kill");
        }
    }
}

impl Process {
    /// How it ended, when its output has been read as well.
    pub(super) fn end(&self) -> Option<Exit> {
        match &*self.life.borrow() {
            Life::Ended { exit, .. } => Some(*exit),
            Life::Running | Life::Reaped => None,
        }
    }

    /// Whether nothing can follow from it any more: its output need not be waited for.
    pub(super) fn was_killed(&self) -> bool {
        self.killed.get()
    }

    /// Notes its end, for those who ask later.
    pub(super) fn set_end(&self, exit: Exit) {
        *self.life.borrow_mut() = Life::Ended {
            exit,
            at: Instant::now(),
        };
        self.ended.notify_waiters();
    }

    /// Returns when its end was noted.
    pub(super) async fn ended(&self) {
        loop {
            let ended = self.ended.notified();
            if self.end().is_some() {
                return;
            }
            ended.await;
        }
    }

    fn is_forgotten(&self) -> bool {
        matches!(&*self.life.borrow(), Life::Ended { at, .. } if at.elapsed() > REMEMBERED)
    }

    /// Sends a signal to it and to what it started in its session's first group.
    pub(super) fn signal(&self, which: Signal) -> Result<(), RpcError> {
        let unix = match which {
            Signal::SIGNAL_UNSPECIFIED => return Ok(()),
            Signal::SIGNAL_SIGTERM => UnixSignal::SIGTERM,
            Signal::SIGNAL_SIGKILL => UnixSignal::SIGKILL,
        };
        if unix == UnixSignal::SIGKILL {
            self.killed.set(true);
        }
        if !matches!(*self.life.borrow(), Life::Running) {
            return Ok(());
        }
        signal_group(self.pid, unix)
            .map_err(|error| RpcError::new(Code::Internal, format!("send signal: {error}")))
    }
}

/// A process leads a group of its own, named after it.
fn signal_group(pid: u32, which: UnixSignal) -> io::Result<()> {
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    match killpg(UnixPid::from_raw(pid), which) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn not_found(which: &Selector) -> RpcError {
    let text = match which {
        Selector::Pid(pid) => format!("process with pid {pid} not found"),
        Selector::Tag(tag) => format!("process with tag {tag} not found"),
    };
    RpcError::new(Code::NotFound, text)
}
