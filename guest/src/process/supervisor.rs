//! Forwards a process's output to its followers until the process has ended.

use std::{pin::pin, rc::Rc, time::Duration};

use bytes::Bytes;
use error_chain::chain;
use futures::future;
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    time::{Instant, sleep_until, timeout},
};
use tracing::{debug, warn};

use super::{
    child::Process,
    event::{self, EventMessage},
    output::Output,
    pty::Pty,
    table::ExitWaiter,
};
use crate::messages::{process::Signal, process_oneof::Output as Data};

/// The largest piece of output in one event.
const PIPE_CHUNK: usize = 32 * 1024;
const PTY_CHUNK: usize = 16 * 1024;
/// The longest time that output is read after a kill, if another process holds it open.
const DRAIN_AFTER_KILL: Duration = Duration::from_secs(1);

/// Wraps a piece of output as one of the three output kinds.
type WrapOutput = fn(Bytes) -> Data;

/// Forwards output until the process has exited and its output is closed, then reports the end. Kills the process at
/// `deadline`.
pub(super) async fn supervise(
    process: Rc<Process>,
    output: Output,
    mut waiter: ExitWaiter,
    deadline: Option<Instant>,
) {
    let mut output = pin!(drain(&process, output));
    let mut timer = pin!(sleep_until(deadline.unwrap_or_else(Instant::now)));
    let mut timer_armed = deadline.is_some();
    let (mut drained, mut exited) = (false, None);
    let exit = loop {
        tokio::select! {
            () = &mut output, if !drained => drained = true,
            exit = waiter.wait(), if exited.is_none() => exited = Some(exit),
            () = &mut timer, if timer_armed => {
                timer_armed = false;
                if let Err(error) = process.signal(Signal::SIGNAL_SIGKILL) {
                    warn!(pid = process.pid, error = %chain(&error), "failed to kill process at its deadline");
                }
            }
        }
        match exited {
            Some(exit) if drained => break exit,
            Some(exit) if process.was_killed() => {
                if timeout(DRAIN_AFTER_KILL, &mut output).await.is_err() {
                    debug!(
                        pid = process.pid,
                        "output of killed process left open, discarded"
                    );
                }
                break exit;
            }
            _ => {}
        }
    };
    process.input.close();
    process.set_ended(exit);
    publish(&process, &event::end(exit)).await;
    process.followers.borrow_mut().clear();
}

async fn drain(process: &Process, output: Output) {
    match output {
        Output::Pipes { stdout, stderr } => {
            let out = forward_pipe(process, stdout, Data::Stdout);
            let err = forward_pipe(process, stderr, Data::Stderr);
            future::join(out, err).await;
        }
        Output::Pty(pty) => forward_pty(process, &pty).await,
    }
}

async fn forward_pipe(process: &Process, mut pipe: pipe::Receiver, wrap: WrapOutput) {
    let mut buffer = vec![0; PIPE_CHUNK];
    loop {
        match pipe.read(&mut buffer).await {
            Ok(0) => return,
            Ok(len) => publish_output(process, &buffer, len, wrap).await,
            Err(error) => return log_read_error(process, &error),
        }
    }
}

async fn forward_pty(process: &Process, pty: &Pty) {
    let mut buffer = vec![0; PTY_CHUNK];
    loop {
        match pty.read(&mut buffer).await {
            Ok(0) => return,
            Ok(len) => publish_output(process, &buffer, len, Data::Pty).await,
            Err(error) => return log_read_error(process, &error),
        }
    }
}

fn log_read_error(process: &Process, error: &std::io::Error) {
    warn!(pid = process.pid, error = %chain(error), "failed to read process output");
}

async fn publish_output(process: &Process, buffer: &[u8], len: usize, wrap: WrapOutput) {
    // Without followers nothing is copied.
    if process.followers.borrow().is_empty() {
        return;
    }
    let bytes = Bytes::copy_from_slice(buffer.get(..len).unwrap_or_default());
    publish(process, &event::data(wrap(bytes))).await;
}

/// Sends an event to all followers concurrently, and waits for the slow ones.
async fn publish(process: &Process, message: &EventMessage) {
    let followers = process.followers.borrow().clone();
    let sends = followers
        .iter()
        .map(|follower| follower.send(Ok(message.clone())));
    let any_closed = future::join_all(sends).await.iter().any(Result::is_err);
    if any_closed {
        process
            .followers
            .borrow_mut()
            .retain(|follower| !follower.is_closed());
    }
}
