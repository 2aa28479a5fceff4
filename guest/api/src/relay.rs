//! How a stream from the host reaches a TCP port of the guest.
//!
//! ```text
//! host  -> guest   'R'  version (1)  port (2 bytes, big-endian)
//! guest -> host    0 connected | 1 refused | 2 failed
//! then raw bytes both ways; each direction ends on its own
//! ```

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

/// Bytes of a preamble.
pub const PREAMBLE_LEN: usize = 4;

const MAGIC: u8 = b'R';
const VERSION: u8 = 1;

/// A relayed stream that did not come about.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// Nothing in the guest listens on the port.
    #[error("port {0} is not open in the guest")]
    Refused(u16),
    /// The guest could not connect to the port for another reason.
    #[error("the guest could not connect to its port {0}")]
    Failed(u16),
    /// The guest answered with something else.
    #[error("read relay answer: unknown byte {0:#04x}")]
    Malformed(u8),
    /// The stream failed, or ended before the guest answered.
    #[error("relay to port {port} of the guest")]
    Io {
        /// The port asked for.
        port: u16,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Bytes that are no preamble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPreamble {
    /// The first byte is not `R`.
    #[error("unknown magic {0:#04x}")]
    Magic(u8),
    /// The version is not 1.
    #[error("unknown version {0}")]
    Version(u8),
    /// Port 0 cannot be connected to.
    #[error("port 0")]
    Port,
}

/// What the guest answers a preamble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// What follows are the port's bytes.
    Connected,
    /// Nothing listens on the port.
    Refused,
    /// Connecting failed for another reason.
    Failed,
}

impl Answer {
    /// The answer's byte.
    pub fn encode(self) -> u8 {
        match self {
            Self::Connected => 0,
            Self::Refused => 1,
            Self::Failed => 2,
        }
    }

    /// Reads an answer; `None` when it is not one.
    pub fn decode(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Connected),
            1 => Some(Self::Refused),
            2 => Some(Self::Failed),
            _ => None,
        }
    }
}

/// The preamble that asks for `port`.
pub fn encode_preamble(port: u16) -> [u8; PREAMBLE_LEN] {
    let [high, low] = port.to_be_bytes();
    [MAGIC, VERSION, high, low]
}

/// The port that a preamble asks for, 1 to 65535.
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

/// Asks for `port` over a stream that is connected to [`crate::RELAY_VSOCK_PORT`]. When this returns `Ok`, `stream` is
/// connected to the port. Nothing bounds the wait for the answer: that is for the caller.
pub async fn open(stream: &mut UnixStream, port: u16) -> Result<(), RelayError> {
    let failed = |source| RelayError::Io { port, source };
    stream
        .write_all(&encode_preamble(port))
        .await
        .map_err(failed)?;
    let byte = stream.read_u8().await.map_err(failed)?;
    match Answer::decode(byte) {
        Some(Answer::Connected) => Ok(()),
        Some(Answer::Refused) => Err(RelayError::Refused(port)),
        Some(Answer::Failed) => Err(RelayError::Failed(port)),
        None => Err(RelayError::Malformed(byte)),
    }
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_four_bytes_are_a_preamble_or_are_refused(bytes: [u8; 4]) {
            if let Ok(port) = decode_preamble(bytes) {
                prop_assert_eq!(encode_preamble(port), bytes);
            }
        }

        #[test]
        fn a_port_survives_its_preamble(port in 1u16..) {
            prop_assert_eq!(decode_preamble(encode_preamble(port)), Ok(port));
        }

        #[test]
        fn any_byte_is_an_answer_or_is_refused(byte: u8) {
            if let Some(answer) = Answer::decode(byte) {
                prop_assert_eq!(answer.encode(), byte);
            }
        }
    }

    async fn open_answered(answer: Option<u8>) -> (Result<(), RelayError>, [u8; 4]) {
        let (mut host, mut guest) = UnixStream::pair().unwrap();
        let guest = async move {
            let mut preamble = [0; PREAMBLE_LEN];
            guest.read_exact(&mut preamble).await.unwrap();
            if let Some(byte) = answer {
                guest.write_all(&[byte, b'!']).await.unwrap();
            }
            preamble
        };
        tokio::join!(open(&mut host, 8080), guest)
    }

    #[tokio::test]
    async fn the_answer_decides() {
        let (result, preamble) = open_answered(Some(0)).await;
        result.unwrap();
        assert_eq!(preamble, *b"R\x01\x1f\x90");
        assert!(matches!(
            open_answered(Some(1)).await.0,
            Err(RelayError::Refused(8080))
        ));
        assert!(matches!(
            open_answered(Some(2)).await.0,
            Err(RelayError::Failed(8080))
        ));
        assert!(matches!(
            open_answered(Some(3)).await.0,
            Err(RelayError::Malformed(3))
        ));
        assert!(matches!(
            open_answered(None).await.0,
            Err(RelayError::Io { .. })
        ));
    }

    #[tokio::test]
    async fn nothing_after_the_answer_is_swallowed() {
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
