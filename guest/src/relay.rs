//! Relays streams from the host to TCP ports of the guest.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
};

use error_chain::chain;
use guest_api::relay::{PREAMBLE_LEN, RelayReply, decode_preamble};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional_with_sizes},
    net::TcpStream,
};
use tracing::debug;

/// The buffer for each direction of a stream.
const BUFFER_LEN: usize = 16 * 1024;

/// Relays one stream until both directions have ended.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> io::Result<()> {
    let mut preamble = [0; PREAMBLE_LEN];
    stream.read_exact(&mut preamble).await?;
    let port = match decode_preamble(preamble) {
        Ok(port) => port,
        Err(error) => {
            debug!(error = %chain(&error), "relay preamble refused");
            return reply(&mut stream, RelayReply::Failed).await;
        }
    };
    let mut local = match connect(port).await {
        Ok(local) => local,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return reply(&mut stream, RelayReply::Refused).await;
        }
        Err(error) => {
            debug!(port, error = %chain(&error), "failed to connect to port");
            return reply(&mut stream, RelayReply::Failed).await;
        }
    };
    local.set_nodelay(true)?;
    reply(&mut stream, RelayReply::Connected).await?;
    copy_bidirectional_with_sizes(&mut stream, &mut local, BUFFER_LEN, BUFFER_LEN).await?;
    Ok(())
}

/// Connects to a port on 127.0.0.1, or else on ::1.
async fn connect(port: u16) -> io::Result<TcpStream> {
    let refused = match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => error,
        result => return result,
    };
    let connected = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await;
    // A kernel without IPv6 fails differently, and the port is closed all the same.
    connected.map_err(|_| refused)
}

async fn reply<S: AsyncWrite + Unpin>(stream: &mut S, reply: RelayReply) -> io::Result<()> {
    stream.write_all(&[reply.encode()]).await
}

#[cfg(test)]
mod tests {
    use guest_api::{RelayError, relay};
    use tokio::net::{TcpListener, UnixStream};

    use super::*;

    async fn open_relay(port: u16) -> Result<UnixStream, RelayError> {
        let (mut host, guest) = UnixStream::pair().unwrap();
        tokio::spawn(serve(guest));
        relay::open(&mut host, port).await?;
        Ok(host)
    }

    #[tokio::test]
    async fn directions_are_relayed_and_closed_independently() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let program = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut received = Vec::new();
            stream.read_to_end(&mut received).await.unwrap();
            stream.write_all(&received).await.unwrap();
            stream.write_all(b" end").await.unwrap();
        });
        let mut host = open_relay(port).await.unwrap();
        let sent = vec![b'x'; 300_000];
        host.write_all(&sent).await.unwrap();
        host.shutdown().await.unwrap();
        let mut received = Vec::new();
        host.read_to_end(&mut received).await.unwrap();
        assert!(received.starts_with(&sent) && received.ends_with(b" end"));
        assert_eq!(received.len(), sent.len() + 4);
        program.await.unwrap();
    }

    #[tokio::test]
    async fn ipv6_only_listener_is_reachable() {
        let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (host, accepted) = tokio::join!(open_relay(port), listener.accept());
        drop((host.unwrap(), accepted.unwrap()));
    }

    #[tokio::test]
    async fn closed_port_is_refused() {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        assert!(
            matches!(open_relay(port).await, Err(RelayError::Refused(refused)) if refused == port)
        );
    }

    #[tokio::test]
    async fn invalid_preamble_is_answered_with_failed() {
        let (mut host, guest) = UnixStream::pair().unwrap();
        let served = tokio::spawn(serve(guest));
        host.write_all(b"GET ").await.unwrap();
        let mut received = Vec::new();
        host.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, [2]);
        served.await.unwrap().unwrap();
    }
}
