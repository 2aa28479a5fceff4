//! Reading a process's output until it has ended.

use std::{pin::pin, rc::Rc, time::Duration};

use futures::future;
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    time::{Instant, sleep_until, timeout},
};
use tracing::{debug, warn};

use super::{
    message::{Data, Event, Signal},
    table::{ExitWaiter, Process},
};

/// Bytes of output in one event.
const CHUNK: usize = 32 * 1024;
/// How long what a killed process has written is still read, while somebody else holds its pipes open.
const AFTERMATH: Duration = Duration::from_secs(1);

/// Passes output on until the process has ended and both its pipes have, then tells the end. Kills it after `limit`.
pub(super) async fn follow(
    process: Rc<Process>,
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
    mut exit: ExitWaiter,
    limit: Option<Duration>,
) {
    let mut output = pin!(future::join(
        pump(&process, stdout, Data::Stdout),
        pump(&process, stderr, Data::Stderr)
    ));
    // No limit is one that is never reached; so is one too far to be told.
    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
    let mut timer = pin!(sleep_until(deadline.unwrap_or_else(Instant::now)));
    let mut limited = deadline.is_some();
    let (mut drained, mut exited) = (false, None);
    let exit = loop {
        tokio::select! {
            _ = &mut output, if !drained => drained = true,
            ended = exit.exit(), if exited.is_none() => exited = Some(ended),
            () = &mut timer, if limited => {
                limited = false;
                if let Err(error) = process.signal(Signal::Kill) {
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
    process.stdin.lock().await.take();
    process.set_end(exit.into());
    publish(&process, &Event::End(exit.into())).await;
    process.followers.borrow_mut().clear();
}

async fn pump(process: &Process, mut pipe: pipe::Receiver, wrap: fn(Vec<u8>) -> Data) {
    let mut buffer = vec![0; CHUNK];
    loop {
        match pipe.read(&mut buffer).await {
            Ok(0) => return,
            Ok(len) => {
                let bytes = buffer.get(..len).unwrap_or_default().to_vec();
                publish(process, &Event::Data(wrap(bytes))).await;
            }
            Err(error) => return warn!(pid = process.pid, %error, "could not read output"),
        }
    }
}

/// Hands an event to everybody who follows, and waits for those who are behind.
async fn publish(process: &Process, event: &Event) {
    let followers = process.followers.borrow().clone();
    let mut gone = false;
    for follower in &followers {
        gone |= follower.send(event.clone()).await.is_err();
    }
    if gone {
        process
            .followers
            .borrow_mut()
            .retain(|follower| !follower.is_closed());
    }
}
