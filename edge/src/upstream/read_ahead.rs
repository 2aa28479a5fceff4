//! A stream that reads while a write is blocked.
//!
//! Pingora does not read a response while it waits to write the request. A guest that responds while it reads (an echo, a
//! terminal) blocks on its response, stops reading, and both sides deadlock. A blocked write on this stream reads ahead
//! instead, up to a bound.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use crate::config::ReadAheadLimits;
use bytes::{Buf, BytesMut};
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
};

/// The bytes of one read.
const CHUNK: usize = 64 << 10;

/// Bounds the bytes that are read ahead, of one request and in all.
#[derive(Debug)]
pub(super) struct ReadAheadBudget {
    request: usize,
    left: AtomicUsize,
}

impl ReadAheadBudget {
    pub(super) fn new(limits: ReadAheadLimits) -> Self {
        Self {
            request: limits.request,
            left: AtomicUsize::new(limits.all),
        }
    }

    /// Takes bytes; returns whether there were as many.
    fn take(&self, bytes: usize) -> bool {
        let less = |left: usize| left.checked_sub(bytes);
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        taken.is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.left.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Reads ahead while a write is blocked.
#[derive(Debug)]
pub(super) struct ReadAheadStream {
    stream: UnixStream,
    buffer: BytesMut,
    /// The length of `buffer`, for the proxy.
    buffer_len: Arc<AtomicUsize>,
    budget: Arc<ReadAheadBudget>,
    /// Set when read-ahead reached EOF (`Ok`) or failed (`Err`).
    end: Option<Result<(), io::ErrorKind>>,
}

impl ReadAheadStream {
    pub(super) fn new(
        stream: UnixStream,
        buffer_len: Arc<AtomicUsize>,
        budget: Arc<ReadAheadBudget>,
    ) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            buffer_len,
            budget,
            end: None,
        }
    }

    /// Reads until the stream has no more bytes, and registers the waker for more.
    fn read_ahead(&mut self, cx: &mut Context<'_>) {
        while self.end.is_none()
            && self.buffer.len() < self.budget.request
            && self.budget.take(CHUNK)
        {
            let start = self.buffer.len();
            self.buffer.resize(start + CHUNK, 0);
            let mut chunk = ReadBuf::new(self.buffer.get_mut(start..).unwrap_or_default());
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut chunk);
            let count = chunk.filled().len();
            self.buffer.truncate(start + count);
            self.budget.give_back(CHUNK - count);
            match read {
                Poll::Ready(Ok(())) if count == 0 => self.end = Some(Ok(())),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => self.end = Some(Err(error.kind())),
                Poll::Pending => return,
            }
        }
    }
}

impl Drop for ReadAheadStream {
    fn drop(&mut self) {
        self.budget.give_back(self.buffer.len());
    }
}

impl AsyncRead for ReadAheadStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.buffer.is_empty() {
            let count = this.buffer.len().min(buf.remaining());
            buf.put_slice(this.buffer.get(..count).unwrap_or_default());
            this.buffer.advance(count);
            this.budget.give_back(count);
            this.buffer_len.store(this.buffer.len(), Ordering::Relaxed);
            return Poll::Ready(Ok(()));
        }
        match this.end {
            Some(Ok(())) => Poll::Ready(Ok(())),
            Some(Err(kind)) => Poll::Ready(Err(kind.into())),
            None => Pin::new(&mut this.stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for ReadAheadStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if written.is_pending() {
            self.read_ahead(cx);
            self.buffer_len.store(self.buffer.len(), Ordering::Relaxed);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl VirtualSocket for ReadAheadStream {
    /// Does nothing: a Unix socket has none of these options.
    fn set_socket_option(&self, _option: VirtualSockOpt) -> io::Result<()> {
        Ok(())
    }
}
