//! How a message is written, and what content type says so.

use buffa::Message;
use bytes::Bytes;
use http::{HeaderMap, header};
use serde::{Serialize, de::DeserializeOwned};

use super::RpcError;

/// A message of either codec.
pub(crate) trait Wire: Message + Serialize + DeserializeOwned + Send + 'static {}

impl<M: Message + Serialize + DeserializeOwned + Send + 'static> Wire for M {}

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Json,
    Proto,
}

/// What the content type of a request says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) codec: Codec,
    /// Whether messages are in envelopes.
    pub(super) streams: bool,
}

const FORMATS: [Format; 4] = [
    Format::of(Codec::Json, false),
    Format::of(Codec::Proto, false),
    Format::of(Codec::Json, true),
    Format::of(Codec::Proto, true),
];

impl Codec {
    /// Writes a message. One that JSON cannot hold, such as a time beyond the year 9999, is an error.
    pub(super) fn encode(self, message: &impl Wire) -> Result<Bytes, RpcError> {
        match self {
            Self::Proto => Ok(message.encode_to_bytes()),
            Self::Json => serde_json::to_vec(message)
                .map(Bytes::from)
                .map_err(|error| {
                    RpcError::new(super::Code::Internal, format!("encode message: {error}"))
                }),
        }
    }

    /// Reads a message. Total: the depth and what is allocated are bounded by the libraries, the length by the caller.
    pub(super) fn decode<M: Wire>(self, mut bytes: &[u8]) -> Result<M, RpcError> {
        match self {
            Self::Proto => M::decode(&mut bytes)
                .map_err(|error| RpcError::invalid(format!("decode message: {error}"))),
            Self::Json => serde_json::from_slice(if bytes.is_empty() { b"{}" } else { bytes })
                .map_err(|error| RpcError::invalid(format!("decode message: {error}"))),
        }
    }
}

impl Format {
    const fn of(codec: Codec, streams: bool) -> Self {
        Self { codec, streams }
    }

    /// What the request is in; `None` when it is nothing to be answered in Connect.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let kind = kind.split(';').next()?.trim();
        FORMATS
            .into_iter()
            .find(|format| kind.eq_ignore_ascii_case(format.content_type()))
    }

    pub(super) fn content_type(self) -> &'static str {
        match (self.codec, self.streams) {
            (Codec::Json, false) => "application/json",
            (Codec::Proto, false) => "application/proto",
            (Codec::Json, true) => "application/connect+json",
            (Codec::Proto, true) => "application/connect+proto",
        }
    }
}

#[cfg(test)]
mod tests;
