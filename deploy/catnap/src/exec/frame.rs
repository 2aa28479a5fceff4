//! Messages of a Connect stream: a flag byte, a length of four bytes, the message.

use anyhow::{Context, Result, ensure};

/// The longest message that is taken, in bytes.
const LONGEST: usize = 16 << 20;
/// The flag of the last message.
const END: u8 = 0x02;
const HEAD: usize = 5;

/// A message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// One of many.
    Message(Vec<u8>),
    /// The last.
    End(Vec<u8>),
}

/// Bytes as they come, cut into messages.
#[derive(Debug, Default)]
pub(super) struct Frames {
    bytes: Vec<u8>,
}

/// A message as bytes.
pub(super) fn encode(message: &[u8]) -> Result<Vec<u8>> {
    let length = u32::try_from(message.len()).context("the command is too long")?;
    let mut bytes = vec![0];
    bytes.extend(length.to_be_bytes());
    bytes.extend(message);
    Ok(bytes)
}

impl Frames {
    /// Adds what came.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message, if there is one.
    pub(super) fn next(&mut self) -> Result<Option<Frame>> {
        let Some((head, rest)) = self.bytes.split_first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let [flags, length @ ..] = *head;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        ensure!(
            length <= LONGEST,
            "a message of {length} bytes is longer than any should be"
        );
        ensure!(
            flags & !END == 0,
            "a message with flags {flags:#x} cannot be read"
        );
        let Some(message) = rest.get(..length).map(<[u8]>::to_vec) else {
            return Ok(None);
        };
        self.bytes.drain(..HEAD + length);
        Ok(Some(if flags & END == 0 {
            Frame::Message(message)
        } else {
            Frame::End(message)
        }))
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn messages_are_whole_however_they_come() {
        let mut bytes = encode(b"one").unwrap();
        bytes.extend(encode(b"").unwrap());
        bytes.extend([END, 0, 0, 0, 2, b'{', b'}']);
        for step in 1..bytes.len() {
            let (mut frames, mut got) = (Frames::default(), Vec::new());
            for chunk in bytes.chunks(step) {
                frames.push(chunk);
                while let Some(frame) = frames.next().unwrap() {
                    got.push(frame);
                }
            }
            let wanted = [
                Frame::Message(b"one".to_vec()),
                Frame::Message(Vec::new()),
                Frame::End(b"{}".to_vec()),
            ];
            assert_eq!(got, wanted, "in steps of {step}");
        }
    }

    #[test]
    fn nonsense_is_refused_before_it_is_waited_for() {
        for bytes in [[0, 255, 255, 255, 255], [1, 0, 0, 0, 1]] {
            let mut frames = Frames::default();
            frames.push(&bytes);
            assert!(frames.next().is_err());
        }
    }
}
