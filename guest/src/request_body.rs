//! Reads request bodies of bounded length.

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};

/// The largest body that is held in memory, and the largest message of a stream.
pub(crate) const MAX_LEN: usize = 4 << 20;

/// An error reading a request body.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("request body is longer than {MAX_LEN} bytes")]
    TooLong,
    #[error("failed to read request body")]
    Read(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Reads a body of at most [`MAX_LEN`] bytes.
pub(crate) async fn read<B>(body: B) -> Result<Bytes, BodyError>
where
    B: BodyExt<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match Limited::new(body, MAX_LEN).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(BodyError::TooLong),
        Err(error) => Err(BodyError::Read(error)),
    }
}
