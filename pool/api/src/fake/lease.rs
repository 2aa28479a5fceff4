//! Leases on fake sandboxes, and the scripted ports behind them.

use std::{io, net::SocketAddr, sync::Arc, sync::atomic::Ordering};

use async_trait::async_trait;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    sync::watch,
};

use super::{FakeNode, PortScript, guest::Guest, lock, sandbox::Sandbox};
use crate::{DialError, Epoch, Lease, Port, WakeReport};

/// A lease on a fake sandbox.
#[derive(Debug)]
pub(super) struct FakeLease {
    node: FakeNode,
    epoch: Epoch,
    guest: Arc<Guest>,
    revoked: watch::Receiver<bool>,
    wake: Option<WakeReport>,
}

impl FakeLease {
    pub(super) fn new(node: FakeNode, sandbox: &Sandbox, wake: Option<WakeReport>) -> Self {
        node.0.leases.send_modify(|leases| *leases += 1);
        Self {
            node,
            epoch: sandbox.info.epoch,
            guest: sandbox.guest.clone(),
            revoked: sandbox.revoked.subscribe(),
            wake,
        }
    }
}

impl Drop for FakeLease {
    fn drop(&mut self) {
        self.node.0.leases.send_modify(|leases| *leases -= 1);
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
        self.node.0.dials.fetch_add(1, Ordering::SeqCst);
        if *self.revoked.borrow() && !self.node.keeps_stale_connections() {
            return Err(DialError::Gone);
        }
        let script = lock(&self.node.0.script)
            .ports
            .get_mut(&port)
            .map(|script| {
                let now = *script;
                if let PortScript::ClosedTimes(times) = script {
                    *times = times.saturating_sub(1);
                }
                now
            });
        let connected = match script {
            Some(PortScript::Closed | PortScript::ClosedTimes(1..)) => {
                return Err(DialError::Closed(port));
            }
            Some(PortScript::ClosedTimes(0)) | None => return self.guest.connect(port),
            Some(PortScript::HangsUp) => close_after_request(),
            Some(PortScript::Endless) => respond_without_end(),
            Some(PortScript::At(address)) => relay_to(address).await,
        };
        connected.map_err(|source| DialError::Failed { port, source })
    }

    async fn revoked(&self) {
        // A dropped sender revokes as well.
        drop(self.revoked.clone().wait_for(|revoked| *revoked).await);
    }
}

/// Connects to an address of the host.
async fn relay_to(address: SocketAddr) -> io::Result<UnixStream> {
    let mut target = TcpStream::connect(address).await?;
    let (near, mut far) = UnixStream::pair()?;
    tokio::spawn(async move {
        // Either end may close first.
        drop(tokio::io::copy_bidirectional(&mut far, &mut target).await);
    });
    Ok(near)
}

/// Opens a stream that closes after the first read.
fn close_after_request() -> io::Result<UnixStream> {
    let (near, mut far) = UnixStream::pair()?;
    tokio::spawn(async move {
        let mut head = [0; 4096];
        drop(far.read(&mut head).await);
    });
    Ok(near)
}

/// Opens a stream whose response has no length and stays open.
fn respond_without_end() -> io::Result<UnixStream> {
    let (near, mut far) = UnixStream::pair()?;
    tokio::spawn(async move {
        let mut head = [0; 4096];
        drop(far.read(&mut head).await);
        drop(far.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello").await);
        while matches!(far.read(&mut head).await, Ok(1..)) {}
    });
    Ok(near)
}
