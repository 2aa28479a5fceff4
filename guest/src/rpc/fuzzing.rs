//! The readers of calls, for a fuzzer.

use bytes::BytesMut;
use http::HeaderMap;

use super::{
    codec::{Codec, Format, Wire},
    envelope::{self, Next},
    headers,
};
use crate::messages::{filesystem, process};

/// Reads the header fields of a call.
pub(crate) fn head(fields: &HeaderMap) {
    let _format = Format::read(fields);
    let _timeout = headers::timeout(fields);
    let _keepalive = headers::keepalive(fields);
    let _user = headers::basic_user(fields);
    for streams in [false, true] {
        let _fine = headers::check(fields, streams);
    }
}

/// Takes messages from a stream until there is none, or one that is refused.
pub fn envelopes(bytes: &[u8]) {
    let mut buffer = BytesMut::from(bytes);
    let mut before = buffer.len();
    while let Ok(Some(next)) = envelope::take(&mut buffer) {
        assert!(buffer.len() < before, "it goes on");
        before = buffer.len();
        if let Next::Message(message) = next {
            read::<process::StreamInputRequest>(&message);
        }
    }
}

/// Reads a message in both codecs; the first byte says which message it is.
pub fn message(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    match kind % 10 {
        0 => read::<process::StartRequest>(bytes),
        1 => read::<process::ConnectRequest>(bytes),
        2 => read::<process::SendInputRequest>(bytes),
        3 => read::<process::StreamInputRequest>(bytes),
        4 => read::<process::SendSignalRequest>(bytes),
        5 => read::<process::UpdateRequest>(bytes),
        6 => read::<filesystem::MoveRequest>(bytes),
        7 => read::<filesystem::ListDirRequest>(bytes),
        8 => read::<filesystem::WatchDirRequest>(bytes),
        _ => read::<filesystem::GetWatcherEventsRequest>(bytes),
    }
}

/// What was read is read again from what it is written as, in the codec that loses nothing.
fn read<M: Wire + PartialEq>(bytes: &[u8]) {
    for codec in [Codec::Json, Codec::Proto] {
        let Ok(message) = codec.decode::<M>(bytes) else {
            continue;
        };
        if let Ok(written) = Codec::Proto.encode(&message) {
            let again = Codec::Proto.decode::<M>(&written);
            assert!(again.is_ok_and(|again| again == message));
        }
    }
}
