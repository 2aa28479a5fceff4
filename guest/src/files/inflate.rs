//! A body that comes compressed.

use std::{
    io::Write,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use flate2::write::MultiGzDecoder;
use futures::Stream;

/// Bytes that are decompressed at once: at gzip's best ratio they become about a mebibyte.
const SLICE: usize = 1024;

/// A stream of gzip, decompressed. Only one slice's output is kept, and it rests after each, so that neither this nor who
/// takes from it holds more.
#[derive(Debug)]
pub(super) struct Inflate<S> {
    body: S,
    decoder: Option<MultiGzDecoder<Vec<u8>>>,
    slices: Bytes,
    rested: bool,
}

/// What ended a compressed body.
#[derive(Debug, thiserror::Error)]
pub(super) enum InflateError<E: std::error::Error + 'static> {
    #[error("body is not gzip")]
    Gzip(#[source] std::io::Error),
    #[error(transparent)]
    Body(E),
}

impl<S> Inflate<S> {
    pub(super) fn new(body: S) -> Self {
        Self {
            body,
            decoder: Some(MultiGzDecoder::new(Vec::new())),
            slices: Bytes::new(),
            rested: true,
        }
    }

    /// Decompresses a slice, or the end.
    fn slice(&mut self, end: bool) -> std::io::Result<Vec<u8>> {
        let Some(decoder) = &mut self.decoder else {
            return Ok(Vec::new());
        };
        if end {
            decoder.try_finish()?;
            let out = std::mem::take(decoder.get_mut());
            self.decoder = None;
            return Ok(out);
        }
        let slice = self.slices.split_to(self.slices.len().min(SLICE));
        decoder.write_all(&slice)?;
        Ok(std::mem::take(decoder.get_mut()))
    }
}

impl<S, E> Stream for Inflate<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::error::Error + 'static,
{
    type Item = Result<Bytes, InflateError<E>>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, InflateError<E>>>> {
        if !std::mem::replace(&mut self.rested, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        while self.decoder.is_some() {
            let end = if self.slices.has_remaining() {
                false
            } else {
                match Pin::new(&mut self.body).poll_next(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Some(Err(error))) => {
                        self.decoder = None;
                        return Poll::Ready(Some(Err(InflateError::Body(error))));
                    }
                    Poll::Ready(Some(Ok(bytes))) => {
                        self.slices = bytes;
                        continue;
                    }
                    Poll::Ready(None) => true,
                }
            };
            match self.slice(end) {
                Ok(out) if out.is_empty() => {}
                Ok(out) => {
                    self.rested = false;
                    return Poll::Ready(Some(Ok(out.into())));
                }
                Err(error) => {
                    self.decoder = None;
                    return Poll::Ready(Some(Err(InflateError::Gzip(error))));
                }
            }
        }
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod test {
    use std::convert::Infallible;

    use futures::{StreamExt, stream};
    use proptest::prelude::*;

    use super::*;

    fn inflated(bytes: &[u8], cut: usize) -> Result<Vec<u8>, String> {
        let pieces: Vec<Result<Bytes, Infallible>> = bytes
            .chunks(cut)
            .map(|piece| Ok(Bytes::copy_from_slice(piece)))
            .collect();
        futures::executor::block_on(async {
            let mut inflate = Inflate::new(stream::iter(pieces));
            let mut all = Vec::new();
            while let Some(piece) = inflate.next().await {
                let piece = piece.map_err(|error| error.to_string())?;
                assert!(piece.len() <= 2 << 20, "{} at once", piece.len());
                all.extend_from_slice(&piece);
            }
            Ok(all)
        })
    }

    #[test]
    fn a_bomb_goes_off_in_small_pieces() {
        let bomb = super::super::content::gzip(&vec![0; 50 << 20]).unwrap();
        // How small it is depends on which compressor is built in.
        assert!(bomb.len() < (50 << 20) / 100, "{}", bomb.len());
        assert_eq!(inflated(&bomb, 64 * 1024).unwrap().len(), 50 << 20);
    }

    #[test]
    fn what_is_cut_short_is_no_file() {
        let whole = super::super::content::gzip(b"hello hello hello").unwrap();
        assert_eq!(inflated(&whole, 3).unwrap(), b"hello hello hello");
        assert!(inflated(&whole[..whole.len() - 4], 100).is_err());
        assert!(inflated(b"", 1).is_err());
        assert!(inflated(b"plain text", 100).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_gzip_or_are_refused(bytes: Vec<u8>, cut in 1usize..50) {
            let _read = inflated(&bytes, cut);
        }

        #[test]
        fn bytes_survive_and_changed_ones_are_read_or_refused(
            bytes: Vec<u8>,
            cut in 1usize..50,
            at: prop::sample::Index,
            byte: u8,
        ) {
            let mut packed = super::super::content::gzip(&bytes).unwrap();
            prop_assert_eq!(inflated(&packed, cut).unwrap(), bytes);
            let at = at.index(packed.len());
            packed[at] = byte;
            let _read = inflated(&packed, cut);
        }
    }
}
