//! Parsers of calls, as fuzz targets.

use bytes::BytesMut;
use http::HeaderMap;

use super::{
    codec::{CallKind, Codec, Format, RpcMessage},
    envelope::{self, Envelope},
    headers,
};
use crate::messages::{filesystem, process};

/// Parses the headers of a call.
pub(crate) fn parse_headers(headers: &HeaderMap) {
    let _format = Format::parse(headers);
    let _timeout = headers::timeout(headers);
    let _keepalive = headers::keepalive(headers);
    let _user = headers::basic_user(headers);
    for kind in [CallKind::Unary, CallKind::Streaming] {
        let _checked = headers::check_protocol(headers, kind);
    }
}

/// Decodes envelopes and messages until the end or the first error.
pub fn envelopes(bytes: &[u8]) {
    let mut buffer = BytesMut::from(bytes);
    let mut before = buffer.len();
    while let Ok(Some(next)) = envelope::decode(&mut buffer) {
        assert!(buffer.len() < before, "an envelope consumes bytes");
        before = buffer.len();
        if let Envelope::Message(message) = next {
            decode::<process::StreamInputRequest>(&message);
        }
    }
}

/// Decodes a message in both codecs. The first byte selects its type.
pub fn message(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    match kind % 10 {
        0 => decode::<process::StartRequest>(bytes),
        1 => decode::<process::ConnectRequest>(bytes),
        2 => decode::<process::SendInputRequest>(bytes),
        3 => decode::<process::StreamInputRequest>(bytes),
        4 => decode::<process::SendSignalRequest>(bytes),
        5 => decode::<process::UpdateRequest>(bytes),
        6 => decode::<filesystem::MoveRequest>(bytes),
        7 => decode::<filesystem::ListDirRequest>(bytes),
        8 => decode::<filesystem::WatchDirRequest>(bytes),
        _ => decode::<filesystem::GetWatcherEventsRequest>(bytes),
    }
}

/// Decodes a message, and checks that it survives protobuf, which is lossless.
fn decode<M: RpcMessage + PartialEq>(bytes: &[u8]) {
    for codec in [Codec::Json, Codec::Proto] {
        let Ok(message) = codec.decode::<M>(bytes) else {
            continue;
        };
        if let Ok(encoded) = Codec::Proto.encode(&message) {
            let decoded = Codec::Proto.decode::<M>(&encoded);
            assert!(decoded.is_ok_and(|decoded| decoded == message));
        }
    }
}
