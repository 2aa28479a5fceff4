//! Reading a process's output until it has ended.

use std::{pin::pin, rc::Rc, time::Duration};

use bytes::Bytes;
use futures::future;
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    time::{Instant, sleep_until, timeout},
};
use tracing::{debug, warn};

use super::{
    event::{self, Message, Wrap},
    pty::Pty,
    table::{ExitWaiter, Process},
};
use crate::messages::{process::Signal, process_oneof::Output as Data};

/// Bytes of output in one event.
const CHUNK: usize = 32 * 1024;
const PTY_CHUNK: usize = 16 * 1024;
/// How long what a killed process has written is still read, while somebody else holds its output open.
const AFTERMATH: Duration = Duration::from_secs(1);

/// Where a process writes to.
#[derive(Debug)]
pub(super) enum Output {
    Pipes {
        stdout: pipe::Receiver,
        stderr: pipe::Receiver,
    },
    Pty(Rc<Pty>),
}

/// Passes output on until the process has ended and its output has, then tells the end. Kills it at `deadline`.
pub(super) async fn follow(
    process: Rc<Process>,
    output: Output,
    mut exit: ExitWaiter,
    deadline: Option<Instant>,
) {
    let mut output = pin!(drain(&process, output));
    let mut timer = pin!(sleep_until(deadline.unwrap_or_else(Instant::now)));
    let mut limited = deadline.is_some();
    let (mut drained, mut exited) = (false, None);
    let exit = loop {
        tokio::select! {
            () = &mut output, if !drained => drained = true,
            ended = exit.exit(), if exited.is_none() => exited = Some(ended),
            () = &mut timer, if limited => {
                limited = false;
                if let Err(error) = process.signal(Signal::SIGNAL_SIGKILL) {
                    warn!(pid = process.pid, %error, "could not kill at the deadline");
                }
            }
        }
        match exited {
            Some(exit) if drained => break exit,
            Some(exit) if process.was_killed() => {
                if timeout(AFTERMATH, &mut output).await.is_err() {
                    debug!(
                        pid = process.pid,
                        "output of a killed process is still open"
                    );
                }
                break exit;
            }
            _ => {}
        }
    };
    process.input.close();
    process.set_end(exit);
    publish(&process, &event::end(exit)).await;
    process.followers.borrow_mut().clear();
}

async fn drain(process: &Process, output: Output) {
    match output {
        Output::Pipes { stdout, stderr } => {
            let out = pump_pipe(process, stdout, Data::Stdout);
            let err = pump_pipe(process, stderr, Data::Stderr);
            future::join(out, err).await;
        }
        Output::Pty(pty) => pump_pty(process, &pty).await,
    }
}

async fn pump_pipe(process: &Process, mut pipe: pipe::Receiver, wrap: Wrap) {
    let mut buffer = vec![0; CHUNK];
    loop {
        match pipe.read(&mut buffer).await {
            Ok(0) => return,
            Ok(len) => pass_on(process, &buffer, len, wrap).await,
            Err(error) => return warn!(pid = process.pid, %error, "could not read output"),
        }
    }
}

async fn pump_pty(process: &Process, pty: &Pty) {
    let mut buffer = vec![0; PTY_CHUNK];
    loop {
        match pty.read(&mut buffer).await {
            Ok(0) => return,
            Ok(len) => pass_on(process, &buffer, len, Data::Pty).await,
            Err(error) => return warn!(pid = process.pid, %error, "could not read terminal"),
        }
    }
}

async fn pass_on(process: &Process, buffer: &[u8], len: usize, wrap: Wrap) {
    // Without a follower nothing is copied.
    if process.followers.borrow().is_empty() {
        return;
    }
    let bytes = Bytes::copy_from_slice(buffer.get(..len).unwrap_or_default());
    publish(process, &event::data(wrap(bytes))).await;
}

/// Hands an event to everybody who follows, and waits for those who are behind; they do not wait for each other.
async fn publish(process: &Process, message: &Message) {
    let followers = process.followers.borrow().clone();
    let sends = followers
        .iter()
        .map(|follower| follower.send(Ok(message.clone())));
    let gone = future::join_all(sends).await.iter().any(Result::is_err);
    if gone {
        process
            .followers
            .borrow_mut()
            .retain(|follower| !follower.is_closed());
    }
}
