//! A file on its way to a caller, read as fast as it takes it.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use hyper::body::{Body, Frame};

use super::CHUNK;

/// A whole chunk, or less at the end of the file.
pub(super) fn read_chunk(file: &mut File, most: usize) -> io::Result<Bytes> {
    let most = most.min(CHUNK);
    let mut chunk = Vec::with_capacity(most);
    let limit = u64::try_from(most).map_err(io::Error::other)?;
    file.take(limit).read_to_end(&mut chunk)?;
    Ok(chunk.into())
}

/// A file longer than a chunk.
#[derive(Debug)]
pub(super) struct Content {
    file: File,
    /// Read already.
    first: Option<Bytes>,
    /// Bytes that were promised and not read; `None` is until the end.
    left: Option<u64>,
}

impl Content {
    /// All of it, of which `first` was read. `size` is how much it is, if that can be known.
    pub(super) fn whole(file: File, first: Bytes, size: Option<u64>) -> Self {
        let read = u64::try_from(first.len()).unwrap_or(u64::MAX);
        Self {
            file,
            first: Some(first),
            left: size.map(|size| size.saturating_sub(read)),
        }
    }

    /// `len` bytes from `start` on.
    pub(super) fn part(mut file: File, start: u64, len: u64) -> io::Result<Self> {
        file.seek(SeekFrom::Start(start))?;
        Ok(Self {
            file,
            first: None,
            left: Some(len),
        })
    }

    /// The next bytes; none at the end.
    fn next(&mut self) -> io::Result<Bytes> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        let most = self.left.map_or(CHUNK, |left| {
            usize::try_from(left).unwrap_or(CHUNK).min(CHUNK)
        });
        if most == 0 {
            return Ok(Bytes::new());
        }
        let chunk = read_chunk(&mut self.file, most)?;
        if let Some(left) = &mut self.left {
            if chunk.is_empty() {
                // It became shorter while it was read; a caller must not take what it has for the file.
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            *left = left.saturating_sub(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        }
        Ok(chunk)
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(match self.next() {
            Ok(chunk) if chunk.is_empty() => None,
            Ok(chunk) => Some(Ok(Frame::data(chunk))),
            Err(error) => Some(Err(error)),
        })
    }
}

/// The same, compressed on the way.
#[derive(Debug)]
pub(super) struct Gzipped {
    content: Content,
    /// `None` when the end was written.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Gzipped {
    pub(super) fn new(content: Content) -> Self {
        Self {
            content,
            encoder: Some(encoder()),
        }
    }

    fn next(&mut self) -> io::Result<Option<Bytes>> {
        while let Some(encoder) = &mut self.encoder {
            let chunk = self.content.next()?;
            if !chunk.is_empty() {
                encoder.write_all(&chunk)?;
            }
            let out = match self.encoder.take() {
                Some(done) if chunk.is_empty() => done.finish()?,
                Some(mut going) => {
                    let out = std::mem::take(going.get_mut());
                    self.encoder = Some(going);
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

impl Body for Gzipped {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(self.next().transpose().map(|chunk| chunk.map(Frame::data)))
    }
}

/// Bytes compressed at once.
pub(super) fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = encoder();
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn encoder() -> GzEncoder<Vec<u8>> {
    GzEncoder::new(Vec::new(), Compression::fast())
}
