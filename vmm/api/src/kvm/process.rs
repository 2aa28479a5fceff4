//! Process of a monitor.

use std::{io, os::fd::OwnedFd, path::Path, process::Stdio, thread};

use tokio::{
    process::{Child, Command},
    runtime::Handle,
    sync::oneshot,
};

use crate::sys;

/// Spawns the monitor `program` with `socket` as its standard input.
pub(super) fn spawn(program: &Path, socket: OwnedFd) -> io::Result<Child> {
    command(program, socket).spawn()
}

/// Spawns the monitor as process 1 of a PID namespace of its own.
pub(super) async fn spawn_in_pid_namespace(program: &Path, socket: OwnedFd) -> io::Result<Child> {
    let mut command = command(program, socket);
    let runtime = Handle::current();
    let (result, spawned) = oneshot::channel();
    // A thread chooses the namespace of its children once.
    thread::Builder::new()
        .name("spawn-monitor".to_owned())
        .stack_size(256 << 10)
        .spawn(move || {
            let _runtime = runtime.enter();
            let child = sys::unshare_child_pids().and_then(|()| command.spawn());
            // A cancelled caller drops the child, which kills it.
            drop(result.send(child));
        })?;
    spawned.await.map_err(io::Error::other)?
}

/// No code runs between fork and exec, so that spawning stays a `vfork`.
fn command(program: &Path, socket: OwnedFd) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs(std::env::var_os("CATNAP_LOG").map(|filter| ("CATNAP_LOG", filter)))
        .stdin(Stdio::from(socket))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}
