//! A stream whose first bytes were read, to see which HTTP it speaks.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// What HTTP/2 begins with when nothing was negotiated.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Room for the first read: most heads fit, so that they are read by one system call.
const FIRST: usize = 2048;

/// A stream, and what was read of it.
#[derive(Debug)]
pub(super) struct Begun<S> {
    first: Bytes,
    stream: S,
}

impl<S: AsyncRead + Unpin> Begun<S> {
    /// Reads until it is clear what is spoken; whether it is HTTP/2.
    pub(super) async fn read(mut stream: S) -> io::Result<(Self, bool)> {
        let mut first = BytesMut::with_capacity(FIRST);
        let is_two = loop {
            let read = stream.read_buf(&mut first).await?;
            if let Some(start) = first.get(..PREFACE.len()) {
                break start == PREFACE;
            }
            if read == 0 || !PREFACE.starts_with(&first) {
                break false;
            }
        };
        let first = first.freeze();
        Ok((Self { first, stream }, is_two))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.first.has_remaining() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let len = self.first.len().min(buffer.remaining());
        buffer.put_slice(&self.first.split_to(len));
        if self.first.is_empty() {
            self.first = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn spoken(sent: &[u8], cut: usize) -> (bool, Vec<u8>) {
        let (mut caller, agent) = tokio::io::duplex(64);
        let speak = async {
            for piece in sent.chunks(cut) {
                caller.write_all(piece).await.unwrap();
            }
            drop(caller);
        };
        let hear = async {
            let (mut begun, is_two) = Begun::read(agent).await.unwrap();
            let mut all = Vec::new();
            begun.read_to_end(&mut all).await.unwrap();
            (is_two, all)
        };
        tokio::join!(speak, hear).1
    }

    proptest! {
        #[test]
        fn nothing_is_lost_however_it_comes(
            two: bool,
            rest: Vec<u8>,
            common in 0usize..24,
            cut in 1usize..64,
        ) {
            let start = if two { PREFACE } else { &PREFACE[..common] };
            let end: &[u8] = if two { b"" } else { b"x" };
            let sent = [start, end, &rest].concat();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let heard = runtime.block_on(spoken(&sent, cut));
            prop_assert_eq!(heard, (two, sent));
        }
    }
}
