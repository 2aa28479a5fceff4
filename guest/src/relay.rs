//! Streams from the host to the guest's TCP ports.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
};

use guest_api::relay::{PREAMBLE_LEN, RelayReply, decode_preamble};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional_with_sizes},
    net::TcpStream,
};
use tracing::debug;

/// Bytes that are under way in each direction of a stream.
const BUFFER: usize = 16 * 1024;

/// Relays one stream until both directions have ended.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> io::Result<()> {
    let mut preamble = [0; PREAMBLE_LEN];
    stream.read_exact(&mut preamble).await?;
    let port = match decode_preamble(preamble) {
        Ok(port) => port,
        Err(error) => {
            debug!(%error, "refused a relay preamble");
            return answer(&mut stream, RelayReply::Failed).await;
        }
    };
    let mut local = match connect(port).await {
        Ok(local) => local,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return answer(&mut stream, RelayReply::Refused).await;
        }
        Err(error) => {
            debug!(%port, %error, "could not connect");
            return answer(&mut stream, RelayReply::Failed).await;
        }
    };
    local.set_nodelay(true)?;
    answer(&mut stream, RelayReply::Connected).await?;
    copy_bidirectional_with_sizes(&mut stream, &mut local, BUFFER, BUFFER).await?;
    Ok(())
}

/// Connects to whoever listens on the port, in the family that most do first.
async fn connect(port: u16) -> io::Result<TcpStream> {
    let refused = match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => error,
        answered => return answered,
    };
    let other = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await;
    // A kernel without the family has nobody there.
    other.map_err(|_| refused)
}

async fn answer<S: AsyncWrite + Unpin>(stream: &mut S, answer: RelayReply) -> io::Result<()> {
    stream.write_all(&[answer.encode()]).await
}

#[cfg(test)]
mod test {
    use guest_api::{RelayError, relay};
    use tokio::net::{TcpListener, UnixStream};

    use super::*;

    async fn relayed(port: u16) -> Result<UnixStream, RelayError> {
        let (mut host, guest) = UnixStream::pair().unwrap();
        tokio::spawn(serve(guest));
        relay::open(&mut host, port).await?;
        Ok(host)
    }

    #[tokio::test]
    async fn bytes_pass_both_ways_and_each_way_ends_on_its_own() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let program = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).await.unwrap();
            stream.write_all(&got).await.unwrap();
            stream.write_all(b" bye").await.unwrap();
        });
        let mut host = relayed(port).await.unwrap();
        let sent = vec![b'x'; 300_000];
        host.write_all(&sent).await.unwrap();
        host.shutdown().await.unwrap();
        let mut got = Vec::new();
        host.read_to_end(&mut got).await.unwrap();
        assert!(got.starts_with(&sent) && got.ends_with(b" bye") && got.len() == sent.len() + 4);
        program.await.unwrap();
    }

    #[tokio::test]
    async fn who_listens_in_the_other_family_alone_is_reached() {
        let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (host, accepted) = tokio::join!(relayed(port), listener.accept());
        drop((host.unwrap(), accepted.unwrap()));
    }

    #[tokio::test]
    async fn a_closed_port_is_refused() {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        assert!(
            matches!(relayed(port).await, Err(RelayError::Refused(refused)) if refused == port)
        );
    }

    #[tokio::test]
    async fn nonsense_is_answered_and_closed() {
        let (mut host, guest) = UnixStream::pair().unwrap();
        let served = tokio::spawn(serve(guest));
        host.write_all(b"GET ").await.unwrap();
        let mut got = Vec::new();
        host.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, [2]);
        served.await.unwrap().unwrap();
    }
}
