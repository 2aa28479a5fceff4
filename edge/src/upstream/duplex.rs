//! A stream that goes on reading while it is written to.
//!
//! Pingora does not read a response while it waits to write the request. A guest that answers as it reads (an echo, a
//! terminal) then waits for its answer to be taken, reads no more, and both stand still. Here a write that has to wait
//! reads ahead meanwhile, up to a bound.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::{Buf, BytesMut};
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
};

/// Bytes that are read ahead at most.
const AHEAD: usize = 4 << 20;
/// Bytes that are read at once.
const PIECE: usize = 64 << 10;

/// The stream.
#[derive(Debug)]
pub(super) struct Duplex {
    stream: UnixStream,
    ahead: BytesMut,
    /// Told how long `ahead` is.
    gauge: Arc<AtomicUsize>,
    /// How reading ended, if it did while it was ahead.
    end: Option<Result<(), io::ErrorKind>>,
}

impl Duplex {
    pub(super) fn new(stream: UnixStream, gauge: Arc<AtomicUsize>) -> Self {
        Self {
            stream,
            ahead: BytesMut::new(),
            gauge,
            end: None,
        }
    }

    /// Reads what there is, and is woken when there is more.
    fn read_ahead(&mut self, cx: &mut Context<'_>) {
        while self.end.is_none() && self.ahead.len() < AHEAD {
            let start = self.ahead.len();
            self.ahead.resize(start + PIECE, 0);
            let mut piece = ReadBuf::new(self.ahead.get_mut(start..).unwrap_or_default());
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut piece);
            let got = piece.filled().len();
            self.ahead.truncate(start + got);
            match read {
                Poll::Ready(Ok(())) if got == 0 => self.end = Some(Ok(())),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => self.end = Some(Err(error.kind())),
                Poll::Pending => return,
            }
        }
    }
}

impl AsyncRead for Duplex {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.ahead.is_empty() {
            let count = this.ahead.len().min(buf.remaining());
            buf.put_slice(this.ahead.get(..count).unwrap_or_default());
            this.ahead.advance(count);
            this.gauge.store(this.ahead.len(), Ordering::Relaxed);
            return Poll::Ready(Ok(()));
        }
        match this.end {
            Some(Ok(())) => Poll::Ready(Ok(())),
            Some(Err(kind)) => Poll::Ready(Err(kind.into())),
            None => Pin::new(&mut this.stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if written.is_pending() {
            self.read_ahead(cx);
            self.gauge.store(self.ahead.len(), Ordering::Relaxed);
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

impl VirtualSocket for Duplex {
    /// There are none to set on a Unix socket.
    fn set_socket_option(&self, _option: VirtualSockOpt) -> io::Result<()> {
        Ok(())
    }
}
