//! The codecs of messages, and the content types that select them.

use buffa::Message;
use bytes::Bytes;
use http::{HeaderMap, header};
use serde::{Serialize, de::DeserializeOwned};

use super::error::{Code, RpcError};

/// A message that both codecs support.
pub(crate) trait RpcMessage:
    Message + Serialize + DeserializeOwned + Send + 'static
{
}

impl<M: Message + Serialize + DeserializeOwned + Send + 'static> RpcMessage for M {}

/// The encoding of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Json,
    Proto,
}

/// The framing of messages: plain bodies or envelopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallKind {
    Unary,
    Streaming,
}

/// The codec and the kind of a call, as its content type states them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) codec: Codec,
    pub(super) kind: CallKind,
}

const FORMATS: [Format; 4] = [
    Format::new(Codec::Json, CallKind::Unary),
    Format::new(Codec::Proto, CallKind::Unary),
    Format::new(Codec::Json, CallKind::Streaming),
    Format::new(Codec::Proto, CallKind::Streaming),
];

impl Codec {
    /// Encodes a message. Fails if JSON cannot represent it, such as a time beyond the year 9999.
    pub(super) fn encode(self, message: &impl RpcMessage) -> Result<Bytes, RpcError> {
        match self {
            Self::Proto => Ok(message.encode_to_bytes()),
            Self::Json => serde_json::to_vec(message)
                .map(Bytes::from)
                .map_err(|error| {
                    RpcError::new(Code::Internal, format!("failed to encode message: {error}"))
                }),
        }
    }

    /// Decodes a message. Never panics; the libraries bound the depth and the allocations, the caller bounds the length.
    pub(super) fn decode<M: RpcMessage>(self, mut bytes: &[u8]) -> Result<M, RpcError> {
        match self {
            Self::Proto => M::decode(&mut bytes).map_err(|error| {
                RpcError::invalid_argument(format!("failed to decode message: {error}"))
            }),
            Self::Json => serde_json::from_slice(if bytes.is_empty() { b"{}" } else { bytes })
                .map_err(|error| {
                    RpcError::invalid_argument(format!("failed to decode message: {error}"))
                }),
        }
    }
}

impl Format {
    const fn new(codec: Codec, kind: CallKind) -> Self {
        Self { codec, kind }
    }

    /// Reads the content type; `None` if it is not one of Connect.
    pub(super) fn parse(headers: &HeaderMap) -> Option<Self> {
        let content_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let content_type = content_type.split(';').next()?.trim();
        FORMATS
            .into_iter()
            .find(|format| content_type.eq_ignore_ascii_case(format.content_type()))
    }

    pub(super) fn content_type(self) -> &'static str {
        match (self.codec, self.kind) {
            (Codec::Json, CallKind::Unary) => "application/json",
            (Codec::Proto, CallKind::Unary) => "application/proto",
            (Codec::Json, CallKind::Streaming) => "application/connect+json",
            (Codec::Proto, CallKind::Streaming) => "application/connect+proto",
        }
    }
}

#[cfg(test)]
mod tests;
