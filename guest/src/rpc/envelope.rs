//! How messages follow each other in a stream: a byte of flags, the length (4 bytes, big-endian), the message.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;

use super::{Code, RpcError};

const HEAD: usize = 5;
const COMPRESSED: u8 = 1;
const END: u8 = 2;

/// One message in its envelope. A message that cannot be written is left empty, which no reader takes for one.
pub(crate) fn encode(message: &impl Serialize) -> Bytes {
    wrap(0, &serde_json::to_vec(message).unwrap_or_default())
}

/// The envelope that ends a stream.
pub(crate) fn encode_end(error: Option<&RpcError>) -> Bytes {
    #[derive(Serialize)]
    struct End<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'a RpcError>,
    }
    wrap(END, &serde_json::to_vec(&End { error }).unwrap_or_default())
}

fn wrap(flags: u8, message: &[u8]) -> Bytes {
    let mut envelope = BytesMut::with_capacity(HEAD + message.len());
    envelope.put_u8(flags);
    // Messages are made of chunks of 32 KiB; a longer one than 4 GiB does not come about.
    envelope.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    envelope.put_slice(message);
    envelope.freeze()
}

/// The one message of a request that is the only one of its stream. Total.
pub(crate) fn decode_one(body: &[u8]) -> Result<&[u8], RpcError> {
    let wrong = |what: &str| RpcError::new(Code::InvalidArgument, what);
    let Some((head, rest)) = body.split_first_chunk::<HEAD>() else {
        return Err(wrong("request ends within an envelope"));
    };
    let [flags, length @ ..] = *head;
    if flags & COMPRESSED != 0 {
        return Err(RpcError::new(
            Code::Unimplemented,
            "compressed messages are not supported",
        ));
    }
    if flags != 0 {
        return Err(wrong("request begins with an envelope that is no message"));
    }
    let length =
        usize::try_from(u32::from_be_bytes(length)).map_err(|_| wrong("envelope is too long"))?;
    let Some((message, after)) = rest.split_at_checked(length) else {
        return Err(wrong("request ends within an envelope"));
    };
    // A client may end its stream as a server does.
    match after.first() {
        None => Ok(message),
        Some(flags) if flags & END != 0 => Ok(message),
        Some(_) => Err(wrong("request has more than one message")),
    }
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stream_ends_with_a_flag() {
        assert_eq!(&encode_end(None)[..], b"\x02\0\0\0\x02{}");
        let error = RpcError::new(Code::NotFound, "x");
        assert!(
            encode_end(Some(&error)).ends_with(br#"{"error":{"code":"not_found","message":"x"}}"#)
        );
    }

    proptest! {
        #[test]
        fn a_message_survives_its_envelope(text: String) {
            let expected = serde_json::to_vec(&text).unwrap();
            let envelope = encode(&text);
            prop_assert_eq!(decode_one(&envelope).unwrap(), &expected[..]);
        }

        #[test]
        fn any_bytes_are_a_message_or_are_refused(body: Vec<u8>) {
            if let Ok(message) = decode_one(&body) {
                prop_assert!(message.len() + HEAD <= body.len());
            }
        }

        #[test]
        fn a_changed_or_cut_envelope_is_read_or_refused(at in 0usize..32, byte: u8, cut in 0usize..32) {
            let mut body = encode(&"some message of a caller").to_vec();
            let at = at.min(body.len() - 1);
            body[at] = byte;
            body.truncate(cut);
            let _read = decode_one(&body);
        }
    }
}
