//! The stream of a client's connection that Pingora reads and writes.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket};
use rustix::net::{RecvFlags, Shutdown};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use super::connection::ClientConnection;

/// Reads and writes a client's connection within its limits.
#[derive(Debug)]
pub(crate) struct Socket {
    connection: Arc<ClientConnection>,
    timer: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Socket {
    pub(crate) fn new(connection: Arc<ClientConnection>) -> Self {
        Self {
            connection,
            timer: None,
        }
    }

    /// Ready when the current head has exceeded its deadline.
    fn poll_head_timeout(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = {
            let head = self.connection.head();
            head.deadline.filter(|_| !head.complete)
        };
        let Some(deadline) = deadline else {
            self.timer = None;
            return Poll::Pending;
        };
        if self.timer.as_ref().is_none_or(|(at, _)| *at != deadline) {
            self.timer = Some((deadline, Box::pin(tokio::time::sleep_until(deadline))));
        }
        match &mut self.timer {
            Some((_, timer)) => timer.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }

    /// Counts bytes towards the current head.
    fn count_head_bytes(&self, count: usize) -> io::Result<()> {
        let limits = &self.connection.limits;
        let mut head = self.connection.head();
        if head.complete {
            return Ok(());
        }
        head.deadline
            .get_or_insert_with(|| Instant::now() + limits.timeout);
        head.bytes_read = head.bytes_read.saturating_add(count);
        if head.bytes_read > limits.bytes {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the request head is too large",
            ));
        }
        Ok(())
    }

    fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        let stream = &self.connection.stream;
        let space = buf.initialize_unfilled();
        if self.connection.head().readiness_consumed {
            // The socket may be readable although the runtime considers it drained.
            match rustix::net::recv(stream, &mut *space, RecvFlags::DONTWAIT) {
                Ok((count, _)) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(count));
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        loop {
            ready!(stream.poll_read_ready(cx))?;
            match stream.try_read(space) {
                Ok(count) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if self.poll_head_timeout(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let count = ready!(self.poll_recv(cx, buf))?;
        Poll::Ready(self.count_head_bytes(count))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let stream = &self.connection.stream;
        loop {
            ready!(stream.poll_write_ready(cx))?;
            match stream.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shutdown = rustix::net::shutdown(&self.connection.stream, Shutdown::Write);
        Poll::Ready(shutdown.map_err(io::Error::from))
    }
}

impl VirtualSocket for Socket {
    /// Does nothing: the options are set before the socket is wrapped.
    fn set_socket_option(&self, _option: VirtualSockOpt) -> io::Result<()> {
        Ok(())
    }
}
