//! Frames of a Connect stream: a flag byte, a message length of four bytes, the message.

use anyhow::{Context, Result, ensure};

/// The largest accepted message in bytes.
const MAX_MESSAGE: usize = 16 << 20;
/// The flag of the end-of-stream message.
const END_STREAM: u8 = 0x02;
const HEADER: usize = 5;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A message of the stream.
    Message(Vec<u8>),
    /// The end-of-stream message.
    EndStream(Vec<u8>),
}

/// Splits a byte stream into frames.
#[derive(Debug, Default)]
pub(super) struct FrameDecoder {
    buffer: Vec<u8>,
}

/// Encodes a message as a frame.
pub(super) fn encode(message: &[u8]) -> Result<Vec<u8>> {
    let length = u32::try_from(message.len()).context("the command is too long")?;
    let mut bytes = vec![0];
    bytes.extend(length.to_be_bytes());
    bytes.extend(message);
    Ok(bytes)
}

impl FrameDecoder {
    /// Appends received bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next complete frame, if any.
    pub(super) fn next(&mut self) -> Result<Option<Frame>> {
        let Some((header, rest)) = self.buffer.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let [flags, length @ ..] = *header;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        ensure!(
            length <= MAX_MESSAGE,
            "a message of {length} bytes exceeds the limit of {MAX_MESSAGE}"
        );
        ensure!(
            flags & !END_STREAM == 0,
            "a message has unsupported flags {flags:#x}"
        );
        let Some(message) = rest.get(..length).map(<[u8]>::to_vec) else {
            return Ok(None);
        };
        self.buffer.drain(..HEADER + length);
        Ok(Some(if flags & END_STREAM == 0 {
            Frame::Message(message)
        } else {
            Frame::EndStream(message)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_decoded_from_chunks_of_any_size() {
        let mut bytes = encode(b"one").unwrap();
        bytes.extend(encode(b"").unwrap());
        bytes.extend([END_STREAM, 0, 0, 0, 2, b'{', b'}']);
        let expected = [
            Frame::Message(b"one".to_vec()),
            Frame::Message(Vec::new()),
            Frame::EndStream(b"{}".to_vec()),
        ];
        for size in 1..bytes.len() {
            let (mut decoder, mut frames) = (FrameDecoder::default(), Vec::new());
            for chunk in bytes.chunks(size) {
                decoder.push(chunk);
                while let Some(frame) = decoder.next().unwrap() {
                    frames.push(frame);
                }
            }
            assert_eq!(frames, expected, "chunks of {size} bytes");
        }
    }

    #[test]
    fn invalid_header_is_refused_before_its_message() {
        for header in [[0, 255, 255, 255, 255], [1, 0, 0, 0, 1]] {
            let mut decoder = FrameDecoder::default();
            decoder.push(&header);
            assert!(decoder.next().is_err());
        }
    }
}
