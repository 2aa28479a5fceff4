//! One life of a fake sandbox, and the lease on it.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    sync::watch,
};

use super::{Fake, PortScript, guest::Guest, lock};
use crate::{
    DialError, Epoch, Lease, Port, SandboxInfo, SandboxSpec, SandboxState, Stage, Start, WakeReport,
};

/// The present state of a sandbox. Its guest is there while it runs.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) info: SandboxInfo,
    pub(super) spec: SandboxSpec,
    /// How this life began.
    pub(super) start: Start,
    guest: Arc<Guest>,
    /// Guests of earlier lives whose connections are still open.
    stale: Vec<Arc<Guest>>,
    revoked: watch::Sender<bool>,
    wake: Option<WakeReport>,
    /// Leases of this life that were told what the wake cost.
    told: Arc<AtomicU32>,
}

impl Life {
    pub(super) fn new(info: SandboxInfo, spec: SandboxSpec, start: Start) -> Self {
        let guest = Arc::new(Guest::new(&info));
        Self {
            info,
            spec,
            start,
            guest,
            stale: Vec::new(),
            revoked: watch::channel(false).0,
            wake: None,
            told: Arc::default(),
        }
    }

    /// Begins the next life.
    pub(super) fn begin(&mut self, start: Start) {
        self.start = start;
        self.info.epoch = self.info.epoch.next();
        self.info.state = SandboxState::Running;
        self.info.started_at = SystemTime::now();
        self.info.since = self.info.started_at;
        self.guest = Arc::new(Guest::new(&self.info));
        self.revoked = watch::channel(false).0;
        let stages = vec![
            (Stage::Queue, Duration::from_millis(1)),
            (Stage::Load, Duration::from_millis(2)),
        ];
        self.wake = Some(WakeReport { start, stages });
        self.told = Arc::default();
    }

    /// Ends this life by a pause. `stale`: the guest's connections stay open.
    pub(super) fn sleep(&mut self, stale: bool) {
        if stale {
            self.stale.push(self.guest.clone());
            self.guest = Arc::new(Guest::new(&self.info));
        }
        self.leave(SandboxState::Paused);
    }

    /// Ends this life: leases are revoked and the guest's connections close.
    pub(super) fn leave(&mut self, state: SandboxState) {
        self.info.state = state;
        self.info.since = SystemTime::now();
        self.revoked.send_replace(true);
        self.guest.end();
    }
}

/// A lease on a fake sandbox.
#[derive(Debug)]
pub(super) struct FakeLease {
    fake: Fake,
    epoch: Epoch,
    guest: Arc<Guest>,
    revoked: watch::Receiver<bool>,
    wake: Option<WakeReport>,
}

impl FakeLease {
    pub(super) fn new(fake: Fake, life: &Life) -> Self {
        fake.0.leases.send_modify(|leases| *leases += 1);
        // Only the first of a life says that it was woken: later ones found it running.
        let first = life.told.fetch_add(1, Ordering::SeqCst) == 0;
        Self {
            fake,
            epoch: life.info.epoch,
            guest: life.guest.clone(),
            revoked: life.revoked.subscribe(),
            wake: life.wake.clone().filter(|_| first),
        }
    }
}

impl Drop for FakeLease {
    fn drop(&mut self) {
        self.fake.0.leases.send_modify(|leases| *leases -= 1);
    }
}

#[async_trait]
impl Lease for FakeLease {
    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn wake(&self) -> Option<&WakeReport> {
        self.wake.as_ref()
    }

    async fn dial(&self, port: Port) -> Result<UnixStream, DialError> {
        self.fake.0.dials.fetch_add(1, Ordering::SeqCst);
        let script = lock(&self.fake.0.script)
            .ports
            .get_mut(&port)
            .map(|script| {
                let now = *script;
                if let PortScript::ClosedTimes(times) = script {
                    *times = times.saturating_sub(1);
                }
                now
            });
        match script {
            Some(PortScript::Closed | PortScript::ClosedTimes(1..)) => Err(DialError::Closed(port)),
            Some(PortScript::HangsUp) => {
                hang_up().map_err(|source| DialError::Failed { port, source })
            }
            Some(PortScript::Endless) => {
                endless().map_err(|source| DialError::Failed { port, source })
            }
            Some(PortScript::At(address)) => {
                let there = elsewhere(address).await;
                there.map_err(|source| DialError::Failed { port, source })
            }
            Some(PortScript::ClosedTimes(0)) | None => self.guest.connect(port),
        }
    }

    async fn revoked(&self) {
        // The sender going away is as good as being told.
        drop(self.revoked.clone().wait_for(|revoked| *revoked).await);
    }
}

/// A stream to an address of the host.
async fn elsewhere(address: SocketAddr) -> io::Result<UnixStream> {
    let mut there = TcpStream::connect(address).await?;
    let (ours, mut theirs) = UnixStream::pair()?;
    tokio::spawn(async move {
        let carried = tokio::io::copy_bidirectional(&mut theirs, &mut there).await;
        // Either end may have gone.
        drop(carried);
    });
    Ok(ours)
}

/// A stream that is closed as soon as something was read from it.
fn hang_up() -> io::Result<UnixStream> {
    let (ours, mut theirs) = UnixStream::pair()?;
    tokio::spawn(async move {
        let mut head = [0; 4096];
        drop(theirs.read(&mut head).await);
    });
    Ok(ours)
}

/// A stream whose answer ends when it does, which it does not by itself.
fn endless() -> io::Result<UnixStream> {
    let (ours, mut theirs) = UnixStream::pair()?;
    tokio::spawn(async move {
        let mut head = [0; 4096];
        drop(theirs.read(&mut head).await);
        drop(theirs.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello").await);
        while matches!(theirs.read(&mut head).await, Ok(1..)) {}
    });
    Ok(ours)
}
