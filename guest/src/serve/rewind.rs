//! Detects HTTP/2 by its preface, and replays the bytes that were read.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// The client preface of HTTP/2 (RFC 9113).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The size of the first read. Most request heads fit, and take one system call.
const FIRST_READ_LEN: usize = 2048;

/// The protocol that a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// Wraps a stream, and first returns the bytes that were already read from it.
#[derive(Debug)]
pub(super) struct Rewind<S> {
    prefix: Bytes,
    stream: S,
}

impl<S: AsyncRead + Unpin> Rewind<S> {
    /// Reads until the first bytes identify the protocol.
    pub(super) async fn detect(mut stream: S) -> io::Result<(Self, Protocol)> {
        let mut prefix = BytesMut::with_capacity(FIRST_READ_LEN);
        let protocol = loop {
            let read = stream.read_buf(&mut prefix).await?;
            if let Some(start) = prefix.get(..PREFACE.len()) {
                break if start == PREFACE {
                    Protocol::Http2
                } else {
                    Protocol::Http1
                };
            }
            if read == 0 || !PREFACE.starts_with(&prefix) {
                break Protocol::Http1;
            }
        };
        let prefix = prefix.freeze();
        Ok((Self { prefix, stream }, protocol))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewind<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.prefix.has_remaining() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let len = self.prefix.len().min(buffer.remaining());
        buffer.put_slice(&self.prefix.split_to(len));
        if self.prefix.is_empty() {
            self.prefix = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewind<S> {
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
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn detect(sent: &[u8], chunk_len: usize) -> (Protocol, Vec<u8>) {
        let (mut client, server) = tokio::io::duplex(64);
        let write = async {
            for chunk in sent.chunks(chunk_len) {
                client.write_all(chunk).await.unwrap();
            }
            drop(client);
        };
        let read = async {
            let (mut stream, protocol) = Rewind::detect(server).await.unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            (protocol, all)
        };
        tokio::join!(write, read).1
    }

    proptest! {
        #[test]
        fn detection_loses_no_bytes_over_any_chunking(
            is_http2: bool,
            rest: Vec<u8>,
            common in 0usize..24,
            chunk_len in 1usize..64,
        ) {
            let start = if is_http2 { PREFACE } else { &PREFACE[..common] };
            let end: &[u8] = if is_http2 { b"" } else { b"x" };
            let sent = [start, end, &rest].concat();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let protocol = if is_http2 { Protocol::Http2 } else { Protocol::Http1 };
            prop_assert_eq!(runtime.block_on(detect(&sent, chunk_len)), (protocol, sent));
        }
    }
}
