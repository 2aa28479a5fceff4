//! How messages follow each other in a stream: a byte of flags, the length (4 bytes, big-endian), the message.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Serialize;

use super::{RpcError, headers};
use crate::respond::MAX_JSON;

const HEAD: usize = 5;
const COMPRESSED: u8 = 1;
const END: u8 = 2;

/// What stands next in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    Message(Bytes),
    /// The end, if the caller marks it.
    End,
}

/// A message in its envelope.
pub(super) fn wrap(message: &[u8]) -> Bytes {
    enclose(0, message)
}

/// The envelope that ends a stream.
pub(super) fn end(error: Option<&RpcError>) -> Bytes {
    #[derive(Serialize)]
    struct End<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'a RpcError>,
    }
    enclose(END, &serde_json::to_vec(&End { error }).unwrap_or_default())
}

fn enclose(flags: u8, message: &[u8]) -> Bytes {
    let mut envelope = BytesMut::with_capacity(HEAD + message.len());
    envelope.put_u8(flags);
    // A message of 4 GiB does not come about: output comes in chunks, and lists are bounded.
    envelope.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    envelope.put_slice(message);
    envelope.freeze()
}

/// Takes what stands next from `buffer`; `None` while it is not whole. Total, and refuses a message that is too long from
/// its head alone.
pub(super) fn take(buffer: &mut BytesMut) -> Result<Option<Next>, RpcError> {
    let Some(head) = buffer.first_chunk::<HEAD>() else {
        return Ok(None);
    };
    let [flags, length @ ..] = *head;
    if flags & COMPRESSED != 0 {
        return Err(headers::compressed());
    }
    if flags & !END != 0 {
        return Err(RpcError::invalid("an envelope has unknown flags"));
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_JSON {
        return Err(RpcError::new(
            super::Code::ResourceExhausted,
            format!("message is larger than {MAX_JSON} bytes"),
        ));
    }
    if buffer.len() < HEAD + length {
        return Ok(None);
    }
    buffer.advance(HEAD);
    let message = buffer.split_to(length).freeze();
    Ok(Some(if flags & END == 0 {
        Next::Message(message)
    } else {
        Next::End
    }))
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::{super::Code, *};

    #[test]
    fn a_stream_ends_with_a_flag() {
        assert_eq!(&end(None)[..], b"\x02\0\0\0\x02{}");
        let error = RpcError::new(Code::NotFound, "x");
        assert!(end(Some(&error)).ends_with(br#"{"error":{"code":"not_found","message":"x"}}"#));
        assert_eq!(
            take(&mut BytesMut::from(&end(None)[..])),
            Ok(Some(Next::End))
        );
    }

    #[test]
    fn a_message_too_long_is_refused_by_its_head() {
        let mut buffer = BytesMut::from(&b"\0\xff\xff\xff\xff"[..]);
        assert_eq!(take(&mut buffer).unwrap_err().code, Code::ResourceExhausted);
        let mut buffer = BytesMut::from(&b"\x01\0\0\0\x01x"[..]);
        assert_eq!(take(&mut buffer).unwrap_err().code, Code::Unimplemented);
    }

    proptest! {
        #[test]
        fn messages_survive_their_envelopes_however_they_are_cut(
            messages: Vec<Vec<u8>>,
            cut in 1usize..20,
        ) {
            let stream: Vec<u8> = messages.iter().flat_map(|message| wrap(message)).collect();
            let (mut buffer, mut got) = (BytesMut::new(), Vec::new());
            for piece in stream.chunks(cut) {
                buffer.extend_from_slice(piece);
                while let Some(next) = take(&mut buffer).unwrap() {
                    let Next::Message(message) = next else { panic!("an end") };
                    got.push(message.to_vec());
                }
            }
            prop_assert_eq!(got, messages);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn any_bytes_are_messages_or_are_refused(body: Vec<u8>) {
            let mut buffer = BytesMut::from(&body[..]);
            let mut before = buffer.len();
            while let Ok(Some(_)) = take(&mut buffer) {
                prop_assert!(buffer.len() + HEAD <= before);
                before = buffer.len();
            }
        }

        #[test]
        fn a_changed_or_cut_envelope_is_read_or_refused(at in 0usize..32, byte: u8, cut in 0usize..32) {
            let mut body = wrap(b"some message of a caller").to_vec();
            body[at % 29] = byte;
            body.truncate(cut);
            let _read = take(&mut BytesMut::from(&body[..]));
        }
    }
}
