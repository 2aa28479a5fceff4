//! The protocol that relays a stream from the host to a TCP port of the guest.
//!
//! ```text
//! host  -> guest   'R'  version (1)  port (2 bytes, big-endian)
//! guest -> host    0 connected | 1 refused | 2 failed
//! then raw bytes in both directions, which close independently
//! ```

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

/// The length of a preamble in bytes.
pub const PREAMBLE_LEN: usize = 4;

const MAGIC: u8 = b'R';
const VERSION: u8 = 1;

/// An error opening a relayed stream.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// No program in the guest listens on the port.
    #[error("port {0} is not open in the guest")]
    Refused(u16),
    /// The guest failed to connect to the port for another reason.
    #[error("guest failed to connect to its port {0}")]
    Failed(u16),
    /// The guest sent an unknown reply.
    #[error("unknown relay reply {0:#04x}")]
    Malformed(u8),
    /// The stream failed, or ended before the reply.
    #[error("failed to open relay to port {port} of the guest")]
    Io {
        /// The requested port.
        port: u16,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// An invalid preamble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPreamble {
    /// The first byte is not `R`.
    #[error("unknown magic {0:#04x}")]
    Magic(u8),
    /// The version is not 1.
    #[error("unknown version {0}")]
    Version(u8),
    /// The port is 0.
    #[error("port 0")]
    Port,
}

/// The reply of the guest to a preamble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayReply {
    /// Connected: the bytes of the port follow.
    Connected,
    /// No program listens on the port.
    Refused,
    /// Connecting failed for another reason.
    Failed,
}

impl RelayReply {
    /// Encodes the reply as a byte.
    pub fn encode(self) -> u8 {
        match self {
            Self::Connected => 0,
            Self::Refused => 1,
            Self::Failed => 2,
        }
    }

    /// Decodes a byte; `None` if it is not a reply.
    pub fn decode(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Connected),
            1 => Some(Self::Refused),
            2 => Some(Self::Failed),
            _ => None,
        }
    }
}

/// Encodes the preamble for `port`.
pub fn encode_preamble(port: u16) -> [u8; PREAMBLE_LEN] {
    let [high, low] = port.to_be_bytes();
    [MAGIC, VERSION, high, low]
}

/// Decodes the port of a preamble, 1 to 65535.
pub fn decode_preamble(bytes: [u8; PREAMBLE_LEN]) -> Result<u16, InvalidPreamble> {
    let [magic, version, high, low] = bytes;
    if magic != MAGIC {
        return Err(InvalidPreamble::Magic(magic));
    }
    if version != VERSION {
        return Err(InvalidPreamble::Version(version));
    }
    match u16::from_be_bytes([high, low]) {
        0 => Err(InvalidPreamble::Port),
        port => Ok(port),
    }
}

/// Opens a relay to `port` over a stream that is connected to [`crate::RELAY_VSOCK_PORT`]. After `Ok`, `stream` carries
/// the bytes of the port. There is no timeout: the caller must set one.
pub async fn open(stream: &mut UnixStream, port: u16) -> Result<(), RelayError> {
    let failed = |source| RelayError::Io { port, source };
    stream
        .write_all(&encode_preamble(port))
        .await
        .map_err(failed)?;
    let byte = stream.read_u8().await.map_err(failed)?;
    match RelayReply::decode(byte) {
        Some(RelayReply::Connected) => Ok(()),
        Some(RelayReply::Refused) => Err(RelayError::Refused(port)),
        Some(RelayReply::Failed) => Err(RelayError::Failed(port)),
        None => Err(RelayError::Malformed(byte)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_preambles_round_trip_or_are_refused(bytes: [u8; 4]) {
            if let Ok(port) = decode_preamble(bytes) {
                prop_assert_eq!(encode_preamble(port), bytes);
            }
        }

        #[test]
        fn port_round_trips_through_its_preamble(port in 1u16..) {
            prop_assert_eq!(decode_preamble(encode_preamble(port)), Ok(port));
        }

        #[test]
        fn arbitrary_replies_round_trip_or_are_refused(byte: u8) {
            if let Some(reply) = RelayReply::decode(byte) {
                prop_assert_eq!(reply.encode(), byte);
            }
        }
    }

    async fn open_with_reply(reply: Option<u8>) -> (Result<(), RelayError>, [u8; 4]) {
        let (mut host, mut guest) = UnixStream::pair().unwrap();
        let guest = async move {
            let mut preamble = [0; PREAMBLE_LEN];
            guest.read_exact(&mut preamble).await.unwrap();
            if let Some(byte) = reply {
                guest.write_all(&[byte, b'!']).await.unwrap();
            }
            preamble
        };
        tokio::join!(open(&mut host, 8080), guest)
    }

    #[tokio::test]
    async fn reply_determines_the_result() {
        let (result, preamble) = open_with_reply(Some(0)).await;
        result.unwrap();
        assert_eq!(preamble, *b"R\x01\x1f\x90");
        assert!(matches!(
            open_with_reply(Some(1)).await.0,
            Err(RelayError::Refused(8080))
        ));
        assert!(matches!(
            open_with_reply(Some(2)).await.0,
            Err(RelayError::Failed(8080))
        ));
        assert!(matches!(
            open_with_reply(Some(3)).await.0,
            Err(RelayError::Malformed(3))
        ));
        assert!(matches!(
            open_with_reply(None).await.0,
            Err(RelayError::Io { .. })
        ));
    }

    #[tokio::test]
    async fn bytes_after_the_reply_stay_in_the_stream() {
        let (mut host, mut guest) = UnixStream::pair().unwrap();
        guest.write_all(b"\0hello").await.unwrap();
        open(&mut host, 1).await.unwrap();
        drop(guest);
        let mut rest = Vec::new();
        match host.read_to_end(&mut rest).await {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
        assert_eq!(rest, b"hello");
    }
}
