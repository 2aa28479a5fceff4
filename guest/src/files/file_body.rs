//! Response bodies that read a file at the pace of the client.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use hyper::body::{Body, Frame};

/// Bytes that are read or written at once.
pub(super) const CHUNK_LEN: usize = 64 * 1024;

/// Reads at most `max` bytes and at most a chunk; less only at the end of the file.
pub(super) fn read_chunk(file: &mut File, max: usize) -> io::Result<Bytes> {
    let max = max.min(CHUNK_LEN);
    let mut chunk = Vec::with_capacity(max);
    let limit = u64::try_from(max).map_err(io::Error::other)?;
    file.take(limit).read_to_end(&mut chunk)?;
    Ok(chunk.into())
}

/// Streams a file that is longer than a chunk.
#[derive(Debug)]
pub(super) struct FileBody {
    file: File,
    /// A chunk that was read before.
    first_chunk: Option<Bytes>,
    /// Bytes of the content length that are still to be read; `None` reads until the end of the file.
    remaining: Option<u64>,
}

impl FileBody {
    /// Streams all of the file, of which `first_chunk` was read. `size` is its size, if known.
    pub(super) fn full(file: File, first_chunk: Bytes, size: Option<u64>) -> Self {
        let read = u64::try_from(first_chunk.len()).unwrap_or(u64::MAX);
        Self {
            file,
            first_chunk: Some(first_chunk),
            remaining: size.map(|size| size.saturating_sub(read)),
        }
    }

    /// Streams `len` bytes from `start`.
    pub(super) fn range(mut file: File, start: u64, len: u64) -> io::Result<Self> {
        file.seek(SeekFrom::Start(start))?;
        Ok(Self {
            file,
            first_chunk: None,
            remaining: Some(len),
        })
    }

    /// Reads the next chunk; empty at the end.
    fn next_chunk(&mut self) -> io::Result<Bytes> {
        if let Some(first_chunk) = self.first_chunk.take() {
            return Ok(first_chunk);
        }
        let max = self.remaining.map_or(CHUNK_LEN, |remaining| {
            usize::try_from(remaining)
                .unwrap_or(CHUNK_LEN)
                .min(CHUNK_LEN)
        });
        if max == 0 {
            return Ok(Bytes::new());
        }
        let chunk = read_chunk(&mut self.file, max)?;
        if let Some(remaining) = &mut self.remaining {
            if chunk.is_empty() {
                // The file was truncated meanwhile. An error tells the client that the body is incomplete.
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            *remaining = remaining.saturating_sub(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        }
        Ok(chunk)
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(match self.next_chunk() {
            Ok(chunk) if chunk.is_empty() => None,
            Ok(chunk) => Some(Ok(Frame::data(chunk))),
            Err(error) => Some(Err(error)),
        })
    }
}

/// Compresses a [`FileBody`].
#[derive(Debug)]
pub(super) struct GzipBody {
    body: FileBody,
    /// `None` once the trailer was written.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl GzipBody {
    pub(super) fn new(body: FileBody) -> Self {
        Self {
            body,
            encoder: Some(encoder()),
        }
    }

    fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        while let Some(encoder) = &mut self.encoder {
            let chunk = self.body.next_chunk()?;
            if !chunk.is_empty() {
                encoder.write_all(&chunk)?;
            }
            let out = match self.encoder.take() {
                Some(encoder) if chunk.is_empty() => encoder.finish()?,
                Some(mut encoder) => {
                    let out = std::mem::take(encoder.get_mut());
                    self.encoder = Some(encoder);
                    out
                }
                None => Vec::new(),
            };
            if !out.is_empty() {
                return Ok(Some(out.into()));
            }
        }
        Ok(None)
    }
}

impl Body for GzipBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(
            self.next_chunk()
                .transpose()
                .map(|chunk| chunk.map(Frame::data)),
        )
    }
}

/// Compresses bytes.
pub(super) fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = encoder();
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn encoder() -> GzEncoder<Vec<u8>> {
    GzEncoder::new(Vec::new(), Compression::fast())
}
