//! Socket and process of one monitor.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, OwnedFd},
    process::ExitStatus,
    sync::Arc,
    time::Duration,
};

use tokio::{
    process::Child,
    sync::{
        Mutex, MutexGuard,
        mpsc::{self, error::TrySendError},
        watch,
    },
    time::{sleep, timeout},
};
use tokio_seqpacket::{
    UnixSeqpacket,
    ancillary::{AncillaryMessageWriter, OwnedAncillaryMessage},
};
use tokio_util::task::TaskTracker;

use super::jail::Jail;
use crate::{
    Exit, MachineError,
    wire::{DESCRIPTOR_LIMIT, MESSAGE_LIMIT, Reply, Request, decode, encode},
};

/// The time for a reply. Capturing all of a guest's memory to a slow disk takes a while.
const REPLY_TIMEOUT: Duration = Duration::from_secs(120);
/// The time between the end of a monitor's socket and of its process.
const EXIT_GRACE: Duration = Duration::from_secs(2);

/// Replies that wait for their callers. A monitor has one request at a time, which has at most two.
const UNREAD_REPLIES: usize = 4;

/// A reply and the descriptors attached to it.
type Message = (Reply, VecDeque<OwnedFd>);

/// Sends requests to a monitor and supervises its process. Dropping it kills the monitor.
#[derive(Debug)]
pub(super) struct Link {
    socket: Arc<UnixSeqpacket>,
    replies: Mutex<Replies>,
    exit: watch::Receiver<Option<Exit>>,
    doorbell: watch::Receiver<Option<u32>>,
    kill: watch::Sender<bool>,
    pid: u32,
}

/// Replies of the monitor, in the order of its requests.
#[derive(Debug)]
struct Replies {
    messages: mpsc::Receiver<Message>,
    /// Requests sent whose final reply is not read yet. More than zero before a request if the callers of earlier ones
    /// were dropped.
    outstanding: usize,
}

impl Link {
    /// Supervises `child` with a task of `monitors`. The end of the process releases its jail.
    pub(super) fn start(
        socket: OwnedFd,
        child: Child,
        jail: Option<Jail>,
        monitors: &TaskTracker,
    ) -> io::Result<Self> {
        let socket = Arc::new(UnixSeqpacket::try_from(socket)?);
        let (message_tx, messages) = mpsc::channel(UNREAD_REPLIES);
        let (exit_tx, exit) = watch::channel(None);
        let (doorbell_tx, doorbell) = watch::channel(None);
        let (kill, killed) = watch::channel(false);
        let pid = child.id().unwrap_or(0);
        let reader = ReplyReader {
            socket: Arc::clone(&socket),
            messages: message_tx,
            doorbell: doorbell_tx,
        };
        monitors.spawn(async move {
            let reason = supervise(reader, child, killed).await;
            drop(jail);
            exit_tx.send_replace(Some(reason));
        });
        Ok(Self {
            socket,
            replies: Mutex::new(Replies {
                messages,
                outstanding: 0,
            }),
            exit,
            doorbell,
            kill,
            pid,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn exit(&self) -> watch::Receiver<Option<Exit>> {
        self.exit.clone()
    }

    pub(super) fn doorbell(&self) -> watch::Receiver<Option<u32>> {
        self.doorbell.clone()
    }

    /// Sends a request whose only successful reply is `Done`, and waits for it.
    pub(super) async fn call(
        &self,
        request: &Request,
        fds: &[&OwnedFd],
    ) -> Result<(), MachineError> {
        let mut pending = self.send(request, fds).await?;
        match pending.next().await? {
            (Reply::Done, _) => Ok(()),
            (Reply::Refused { message, .. }, _) => Err(MachineError::Refused(message)),
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Sends a request and returns its pending reply. Other requests wait until that is dropped.
    pub(super) async fn send(
        &self,
        request: &Request,
        fds: &[&OwnedFd],
    ) -> Result<PendingReply<'_>, MachineError> {
        let mut pending = PendingReply {
            link: self,
            replies: self.replies.lock().await,
        };
        while pending.replies.outstanding > 0 {
            pending.next().await?;
        }
        let bytes = encode(request);
        let mut space = vec![0_u8; 64 + 4 * fds.len()];
        let mut ancillary = AncillaryMessageWriter::new(&mut space);
        if !fds.is_empty() {
            ancillary
                .add_fds(fds.iter().map(|fd| fd.as_fd()))
                .map_err(|_| {
                    MachineError::Io(io::Error::other("too many descriptors for one message"))
                })?;
        }
        match self
            .socket
            .send_vectored_with_ancillary(&[IoSlice::new(&bytes)], &mut ancillary)
            .await
        {
            Ok(_) => {
                pending.replies.outstanding += 1;
                Ok(pending)
            }
            Err(source) => Err(self.gone().await.unwrap_or(MachineError::Io(source))),
        }
    }

    /// Kills the monitor and waits for the end of its process.
    pub(super) async fn kill(&self) {
        self.kill.send_replace(true);
        let mut exit = self.exit.clone();
        // The supervisor holds the sender until it has published the exit.
        if exit.wait_for(Option::is_some).await.is_err() {
            tracing::error!(
                pid = self.pid,
                "supervisor of the monitor ended without an exit"
            );
        }
    }

    async fn gone(&self) -> Option<MachineError> {
        let mut exit = self.exit.clone();
        let exit = exit.wait_for(Option::is_some).await.ok()?;
        exit.clone().map(MachineError::Gone)
    }
}

/// A request whose reply is outstanding.
#[derive(Debug)]
pub(super) struct PendingReply<'a> {
    link: &'a Link,
    replies: MutexGuard<'a, Replies>,
}

impl PendingReply<'_> {
    /// Waits for the next message of the reply.
    pub(super) async fn next(&mut self) -> Result<Message, MachineError> {
        let Ok(message) = timeout(REPLY_TIMEOUT, self.replies.messages.recv()).await else {
            tracing::error!(pid = self.link.pid, "monitor does not reply; killing it");
            self.link.kill.send_replace(true);
            return Err(MachineError::Io(io::ErrorKind::TimedOut.into()));
        };
        match message {
            Some(message) => {
                if !matches!(message.0, Reply::Pager { .. }) {
                    self.replies.outstanding = self.replies.outstanding.saturating_sub(1);
                }
                Ok(message)
            }
            None => Err(self
                .link
                .gone()
                .await
                .unwrap_or_else(|| MachineError::Io(io::ErrorKind::BrokenPipe.into()))),
        }
    }
}

/// Builds the error for a reply that does not belong to the request.
pub(super) fn unexpected(reply: &Reply) -> MachineError {
    MachineError::Io(io::Error::other(format!(
        "unexpected reply of the monitor: {reply:?}"
    )))
}

/// Reads the messages of one monitor.
struct ReplyReader {
    socket: Arc<UnixSeqpacket>,
    messages: mpsc::Sender<Message>,
    doorbell: watch::Sender<Option<u32>>,
}

impl ReplyReader {
    /// Distributes messages until the socket closes; returns the reason that the monitor reported, if any.
    async fn run(self) -> Option<Exit> {
        let mut bytes = vec![0_u8; MESSAGE_LIMIT];
        let mut space = vec![0_u8; 64 + 4 * DESCRIPTOR_LIMIT];
        loop {
            let (len, fds) = self.receive(&mut bytes, &mut space).await.ok()?;
            if len == 0 {
                return None;
            }
            match decode(&bytes[..len]) {
                Ok(Reply::Exited { error: None }) => return Some(Exit::Guest),
                Ok(Reply::Exited { error: Some(error) }) => return Some(Exit::Failed(error)),
                Ok(Reply::Doorbell { value }) => {
                    self.doorbell.send_replace(Some(value));
                }
                Ok(reply) => match self.messages.try_send((reply, fds)) {
                    Ok(()) => {}
                    Err(TrySendError::Closed(_)) => return None,
                    Err(TrySendError::Full(_)) => {
                        return Some(Exit::Failed(
                            "the monitor sent more replies than it had requests".to_owned(),
                        ));
                    }
                },
                Err(malformed) => return Some(Exit::Failed(malformed.to_string())),
            }
        }
    }

    async fn receive(
        &self,
        bytes: &mut [u8],
        space: &mut [u8],
    ) -> io::Result<(usize, VecDeque<OwnedFd>)> {
        let mut slices = [IoSliceMut::new(bytes)];
        let (info, ancillary) = self
            .socket
            .recv_vectored_with_ancillary(&mut slices, space)
            .await?;
        let mut fds = VecDeque::new();
        for message in ancillary.into_messages() {
            if let OwnedAncillaryMessage::FileDescriptors(received) = message {
                fds.extend(received);
            }
        }
        Ok((info.bytes_read(), fds))
    }
}

/// Reads replies, kills the monitor on request, reaps its process and returns the reason of its end.
async fn supervise(
    reader: ReplyReader,
    mut child: Child,
    mut killed: watch::Receiver<bool>,
) -> Exit {
    let mut reported = tokio::select! {
        reported = reader.run() => reported,
        // Also if the link was dropped, and the sender with it.
        _ = killed.wait_for(|killed| *killed) => Some(Exit::Killed),
    };
    if reported.is_none() {
        // The socket ended without a reason: the process ends as well, or is killed.
        reported = tokio::select! {
            status = child.wait() => Some(died(status)),
            _ = killed.wait_for(|killed| *killed) => Some(Exit::Killed),
            () = sleep(EXIT_GRACE) => None,
        };
    }
    // A monitor that has reported its reason exits by itself; the kill makes sure of it.
    if let Err(error) = child.start_kill() {
        tracing::debug!(error = %error_chain::chain(&error), "failed to kill monitor");
    }
    let status = child.wait().await;
    if *killed.borrow() {
        Exit::Killed
    } else {
        reported.unwrap_or_else(|| died(status))
    }
}

fn died(status: io::Result<ExitStatus>) -> Exit {
    Exit::Died(match status {
        Ok(status) => status.to_string(),
        Err(error) => format!("unknown status: {error}"),
    })
}
