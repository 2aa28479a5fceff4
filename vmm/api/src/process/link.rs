//! The socket to one monitor, and its process.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, OwnedFd},
    process::ExitStatus,
    sync::Arc,
};

use tokio::{
    process::Child,
    sync::{Mutex, mpsc, watch},
};
use tokio_seqpacket::{
    UnixSeqpacket,
    ancillary::{AncillaryMessageWriter, OwnedAncillaryMessage},
};

use crate::{
    Exit, MachineError,
    wire::{DESCRIPTOR_LIMIT, MESSAGE_LIMIT, Refusal, Reply, Request, decode, encode},
};

/// A reply with the descriptors beside it.
pub(super) type Answer = (Reply, VecDeque<OwnedFd>);

/// Talks to a monitor and watches its process. Dropping it kills the monitor.
#[derive(Debug)]
pub(super) struct Link {
    socket: Arc<UnixSeqpacket>,
    answers: Mutex<mpsc::UnboundedReceiver<Answer>>,
    exit: watch::Receiver<Option<Exit>>,
    doorbell: watch::Receiver<Option<u32>>,
    kill: watch::Sender<bool>,
    pid: u32,
}

impl Link {
    pub(super) fn start(socket: OwnedFd, child: Child) -> io::Result<Self> {
        let socket = Arc::new(UnixSeqpacket::try_from(socket)?);
        let (answer, answers) = mpsc::unbounded_channel();
        let (exit_tx, exit) = watch::channel(None);
        let (ring, doorbell) = watch::channel(None);
        let (kill, killed) = watch::channel(false);
        let pid = child.id().unwrap_or(0);
        let ears = Ears {
            socket: Arc::clone(&socket),
            answer,
            ring,
        };
        tokio::spawn(attend(ears, child, killed, exit_tx));
        Ok(Self {
            socket,
            answers: Mutex::new(answers),
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

    /// Sends a request that is answered by nothing but `Done`.
    pub(super) async fn ask(
        &self,
        request: &Request,
        fds: &[&OwnedFd],
    ) -> Result<(), MachineError> {
        let mut talk = self.begin(request, fds).await?;
        match talk.answer().await? {
            (Reply::Done, _) => Ok(()),
            (Reply::Refused { message, .. }, _) => Err(MachineError::Refused(message)),
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Sends a request; its answers are read from what is returned.
    pub(super) async fn begin(
        &self,
        request: &Request,
        fds: &[&OwnedFd],
    ) -> Result<Talk<'_>, MachineError> {
        let answers = self.answers.lock().await;
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
            Ok(_) => Ok(Talk {
                link: self,
                answers,
            }),
            Err(source) => Err(self.gone().await.unwrap_or(MachineError::Io(source))),
        }
    }

    /// Kills the monitor and waits for its end.
    pub(super) async fn kill(&self) {
        self.kill.send_replace(true);
        let mut exit = self.exit.clone();
        // The sender lives until it has said how the monitor ended.
        if exit.wait_for(Option::is_some).await.is_err() {
            tracing::error!(pid = self.pid, "the task that watches the monitor is gone");
        }
    }

    async fn gone(&self) -> Option<MachineError> {
        let mut exit = self.exit.clone();
        let exit = exit.wait_for(Option::is_some).await.ok()?;
        exit.clone().map(MachineError::Gone)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.kill.send_replace(true);
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Talk<'a> {
    link: &'a Link,
    answers: tokio::sync::MutexGuard<'a, mpsc::UnboundedReceiver<Answer>>,
}

impl Talk<'_> {
    /// The next answer.
    pub(super) async fn answer(&mut self) -> Result<Answer, MachineError> {
        match self.answers.recv().await {
            Some(answer) => Ok(answer),
            None => Err(self
                .link
                .gone()
                .await
                .unwrap_or_else(|| MachineError::Io(io::ErrorKind::BrokenPipe.into()))),
        }
    }
}

/// An answer that no request of this kind has.
pub(super) fn unexpected(reply: &Reply) -> MachineError {
    MachineError::Io(io::Error::other(format!("the monitor answered {reply:?}")))
}

/// Whether a refusal is for want of space.
pub(super) fn is_no_space(kind: Refusal) -> bool {
    kind == Refusal::NoSpace
}

struct Ears {
    socket: Arc<UnixSeqpacket>,
    answer: mpsc::UnboundedSender<Answer>,
    ring: watch::Sender<Option<u32>>,
}

impl Ears {
    /// Hands on what the monitor says until it says no more; `Some` when it gave a reason.
    async fn listen(self) -> Option<Exit> {
        let mut bytes = vec![0_u8; MESSAGE_LIMIT];
        let mut space = vec![0_u8; 64 + 4 * DESCRIPTOR_LIMIT];
        loop {
            let (len, fds) = self.receive(&mut bytes, &mut space).await.ok()?;
            if len == 0 {
                return None;
            }
            match decode(&bytes[..len]) {
                Ok(Reply::Exited { trouble: None }) => return Some(Exit::Guest),
                Ok(Reply::Exited { trouble: Some(why) }) => return Some(Exit::Failed(why)),
                Ok(Reply::Doorbell { value }) => {
                    self.ring.send_replace(Some(value));
                }
                Ok(reply) => self.answer.send((reply, fds)).ok()?,
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

/// Lives as long as the monitor: listens, kills it when told to, and says how it ended.
async fn attend(
    ears: Ears,
    mut child: Child,
    mut killed: watch::Receiver<bool>,
    exit: watch::Sender<Option<Exit>>,
) {
    let said = tokio::select! {
        said = ears.listen() => said,
        _ = killed.wait_for(|killed| *killed) => Some(Exit::Killed),
    };
    if said.is_some() {
        // A monitor that has given its reason is about to end; make sure of it.
        if let Err(error) = child.start_kill() {
            tracing::debug!(%error, "monitor had ended before it was killed");
        }
    }
    let status = child.wait().await;
    let how = if *killed.borrow() {
        Exit::Killed
    } else {
        said.unwrap_or_else(|| died(status))
    };
    exit.send_replace(Some(how));
}

fn died(status: io::Result<ExitStatus>) -> Exit {
    Exit::Died(match status {
        Ok(status) => status.to_string(),
        Err(error) => format!("its status is unknown: {error}"),
    })
}
