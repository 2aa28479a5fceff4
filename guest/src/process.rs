//! Starts and tracks the processes of callers.
//!
//! A process belongs to the guest, not to the call that started it: it survives a disconnect, and other callers may
//! follow it later. Output goes to all followers at the pace of the slowest, and is discarded without followers.

mod child;
mod event;
mod input;
mod launch;
mod output;
mod pty;
mod supervisor;
mod table;

use std::io;

use tokio::{task::spawn_local, time::Instant};

use crate::{messages::process::ProcessConfig, rpc::ResponseStream};

pub use self::table::Reap;
pub(crate) use self::{
    child::Process,
    event::EventMessage,
    input::InputKind,
    launch::{Launch, ProcessIo},
    pty::window_size,
    table::Processes,
};

/// Properties of a process beside its [`Launch`].
#[derive(Debug)]
pub(crate) struct ProcessOptions {
    pub(crate) io: ProcessIo,
    /// The caller's request, which listings repeat.
    pub(crate) config: ProcessConfig,
    pub(crate) tag: Option<String>,
    /// The time at which the process is killed.
    pub(crate) deadline: Option<Instant>,
}

/// Starts a process and returns the stream of its events.
pub(crate) fn start(
    processes: &Processes,
    launch: &Launch,
    options: ProcessOptions,
) -> io::Result<ResponseStream<EventMessage>> {
    let spawned = launch.spawn(options.io)?;
    let (child, exit) = processes.add(spawned.pid, spawned.input, options.config, options.tag);
    let events = child.follow();
    spawn_local(supervisor::supervise(
        child,
        spawned.output,
        exit,
        options.deadline,
    ));
    Ok(events)
}
