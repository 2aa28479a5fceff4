//! The envelopes of streamed messages: flags (1 byte), length (4 bytes, big-endian), message.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Serialize;

use super::{
    error::{Code, RpcError},
    headers,
};
use crate::request_body::MAX_LEN;

const HEADER_LEN: usize = 5;
const COMPRESSED: u8 = 1;
const END_STREAM: u8 = 2;

/// A decoded envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Envelope {
    Message(Bytes),
    /// The end of the stream, which clients may omit.
    EndStream,
}

/// Encloses a message.
pub(super) fn encode_message(message: &[u8]) -> Bytes {
    encode(0, message)
}

/// Builds the envelope that ends a stream, with success or with an error.
pub(super) fn encode_end(error: Option<&RpcError>) -> Bytes {
    #[derive(Serialize)]
    struct End<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'a RpcError>,
    }
    encode(
        END_STREAM,
        &serde_json::to_vec(&End { error }).unwrap_or_default(),
    )
}

fn encode(flags: u8, message: &[u8]) -> Bytes {
    let mut envelope = BytesMut::with_capacity(HEADER_LEN + message.len());
    envelope.put_u8(flags);
    // Messages never reach 4 GiB: output is sent in chunks, and lists are bounded.
    envelope.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    envelope.put_slice(message);
    envelope.freeze()
}

/// Removes the next envelope from `buffer`; `None` while it is incomplete. Never panics, and rejects an oversized message
/// before its body arrives.
pub(super) fn decode(buffer: &mut BytesMut) -> Result<Option<Envelope>, RpcError> {
    let Some(header) = buffer.first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    let [flags, length @ ..] = *header;
    if flags & COMPRESSED != 0 {
        return Err(headers::unsupported_compression());
    }
    if flags & !END_STREAM != 0 {
        return Err(RpcError::invalid_argument("an envelope has unknown flags"));
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_LEN {
        return Err(RpcError::new(
            Code::ResourceExhausted,
            format!("message is larger than {MAX_LEN} bytes"),
        ));
    }
    if buffer.len() < HEADER_LEN + length {
        return Ok(None);
    }
    buffer.advance(HEADER_LEN);
    let message = buffer.split_to(length).freeze();
    Ok(Some(if flags & END_STREAM == 0 {
        Envelope::Message(message)
    } else {
        Envelope::EndStream
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn end_of_stream_is_a_flagged_envelope() {
        assert_eq!(&encode_end(None)[..], b"\x02\0\0\0\x02{}");
        let error = RpcError::new(Code::NotFound, "x");
        assert!(
            encode_end(Some(&error)).ends_with(br#"{"error":{"code":"not_found","message":"x"}}"#)
        );
        assert_eq!(
            decode(&mut BytesMut::from(&encode_end(None)[..])),
            Ok(Some(Envelope::EndStream))
        );
    }

    #[test]
    fn oversized_and_compressed_messages_are_refused_early() {
        let mut buffer = BytesMut::from(&b"\0\xff\xff\xff\xff"[..]);
        assert_eq!(
            decode(&mut buffer).unwrap_err().code,
            Code::ResourceExhausted
        );
        let mut buffer = BytesMut::from(&b"\x01\0\0\0\x01x"[..]);
        assert_eq!(decode(&mut buffer).unwrap_err().code, Code::Unimplemented);
    }

    proptest! {
        #[test]
        fn messages_round_trip_over_any_chunking(
            messages: Vec<Vec<u8>>,
            chunk_len in 1usize..20,
        ) {
            let stream: Vec<u8> = messages.iter().flat_map(|message| encode_message(message)).collect();
            let (mut buffer, mut got) = (BytesMut::new(), Vec::new());
            for chunk in stream.chunks(chunk_len) {
                buffer.extend_from_slice(chunk);
                while let Some(next) = decode(&mut buffer).unwrap() {
                    let Envelope::Message(message) = next else { panic!("end of stream") };
                    got.push(message.to_vec());
                }
            }
            prop_assert_eq!(got, messages);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(body: Vec<u8>) {
            let mut buffer = BytesMut::from(&body[..]);
            let mut before = buffer.len();
            while let Ok(Some(_)) = decode(&mut buffer) {
                prop_assert!(buffer.len() + HEADER_LEN <= before);
                before = buffer.len();
            }
        }

        #[test]
        fn mutated_and_truncated_envelopes_do_not_panic(at in 0usize..32, byte: u8, cut in 0usize..32) {
            let mut body = encode_message(b"some message of a caller").to_vec();
            body[at % 29] = byte;
            body.truncate(cut);
            let _decoded = decode(&mut BytesMut::from(&body[..]));
        }
    }
}
