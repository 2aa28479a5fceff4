//! Decompresses request bodies.

use std::{
    io::Write,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use flate2::write::MultiGzDecoder;
use futures::Stream;

/// Compressed bytes that are decompressed at once: about 1 MiB of output at the best ratio of gzip.
const INPUT_LEN: usize = 1024;

/// Decompresses a stream of gzip. It yields after each piece of output, so that neither this stream nor its consumer
/// holds more than one.
#[derive(Debug)]
pub(super) struct Gunzip<S> {
    body: S,
    decoder: Option<MultiGzDecoder<Vec<u8>>>,
    input: Bytes,
    yielded: bool,
}

/// An error decompressing a body.
#[derive(Debug, thiserror::Error)]
pub(super) enum GunzipError<E: std::error::Error + 'static> {
    #[error("body is not gzip")]
    Gzip(#[source] std::io::Error),
    #[error(transparent)]
    Body(E),
}

impl<S> Gunzip<S> {
    pub(super) fn new(body: S) -> Self {
        Self {
            body,
            decoder: Some(MultiGzDecoder::new(Vec::new())),
            input: Bytes::new(),
            yielded: true,
        }
    }

    /// Decompresses the next piece of input.
    fn decompress(&mut self) -> std::io::Result<Vec<u8>> {
        let Some(decoder) = &mut self.decoder else {
            return Ok(Vec::new());
        };
        let piece = self.input.split_to(self.input.len().min(INPUT_LEN));
        decoder.write_all(&piece)?;
        Ok(std::mem::take(decoder.get_mut()))
    }

    /// Decompresses the rest after the end of the input.
    fn finish(&mut self) -> std::io::Result<Vec<u8>> {
        let Some(mut decoder) = self.decoder.take() else {
            return Ok(Vec::new());
        };
        decoder.try_finish()?;
        Ok(std::mem::take(decoder.get_mut()))
    }
}

impl<S, E> Stream for Gunzip<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::error::Error + 'static,
{
    type Item = Result<Bytes, GunzipError<E>>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, GunzipError<E>>>> {
        if !std::mem::replace(&mut self.yielded, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        while self.decoder.is_some() {
            let decompressed = if self.input.has_remaining() {
                self.decompress()
            } else {
                match Pin::new(&mut self.body).poll_next(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Some(Err(error))) => {
                        self.decoder = None;
                        return Poll::Ready(Some(Err(GunzipError::Body(error))));
                    }
                    Poll::Ready(Some(Ok(bytes))) => {
                        self.input = bytes;
                        continue;
                    }
                    Poll::Ready(None) => self.finish(),
                }
            };
            match decompressed {
                Ok(out) if out.is_empty() => {}
                Ok(out) => {
                    self.yielded = false;
                    return Poll::Ready(Some(Ok(out.into())));
                }
                Err(error) => {
                    self.decoder = None;
                    return Poll::Ready(Some(Err(GunzipError::Gzip(error))));
                }
            }
        }
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::{StreamExt, stream};
    use proptest::prelude::*;

    use super::*;

    fn decompress(bytes: &[u8], chunk_len: usize) -> Result<Vec<u8>, String> {
        let pieces: Vec<Result<Bytes, Infallible>> = bytes
            .chunks(chunk_len)
            .map(|piece| Ok(Bytes::copy_from_slice(piece)))
            .collect();
        futures::executor::block_on(async {
            let mut gunzip = Gunzip::new(stream::iter(pieces));
            let mut all = Vec::new();
            while let Some(piece) = gunzip.next().await {
                let piece = piece.map_err(|error| error.to_string())?;
                assert!(piece.len() <= 2 << 20, "{} at once", piece.len());
                all.extend_from_slice(&piece);
            }
            Ok(all)
        })
    }

    #[test]
    fn gzip_bomb_is_inflated_in_bounded_chunks() {
        let bomb = super::super::file_body::gzip(&vec![0; 50 << 20]).unwrap();
        // The compressed size depends on the compressor in use.
        assert!(bomb.len() < (50 << 20) / 100, "{}", bomb.len());
        assert_eq!(decompress(&bomb, 64 * 1024).unwrap().len(), 50 << 20);
    }

    #[test]
    fn truncated_and_plain_bodies_are_refused() {
        let whole = super::super::file_body::gzip(b"hello hello hello").unwrap();
        assert_eq!(decompress(&whole, 3).unwrap(), b"hello hello hello");
        assert!(decompress(&whole[..whole.len() - 4], 100).is_err());
        assert!(decompress(b"", 1).is_err());
        assert!(decompress(b"plain text", 100).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes: Vec<u8>, chunk_len in 1usize..50) {
            let _read = decompress(&bytes, chunk_len);
        }

        #[test]
        fn bytes_round_trip_and_mutations_do_not_panic(
            bytes: Vec<u8>,
            chunk_len in 1usize..50,
            at: prop::sample::Index,
            byte: u8,
        ) {
            let mut packed = super::super::file_body::gzip(&bytes).unwrap();
            prop_assert_eq!(decompress(&packed, chunk_len).unwrap(), bytes);
            let at = at.index(packed.len());
            packed[at] = byte;
            let _read = decompress(&packed, chunk_len);
        }
    }
}
