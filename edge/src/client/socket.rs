//! What Pingora reads from and writes to.

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

use super::Link;

/// The reading and writing end of a client's connection.
#[derive(Debug)]
pub(crate) struct Socket {
    link: Arc<Link>,
    alarm: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Socket {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        Self { link, alarm: None }
    }

    /// Ready when the head that is being read is late.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = {
            let head = self.link.head();
            head.deadline.filter(|_| !head.in_hand)
        };
        let Some(deadline) = deadline else {
            self.alarm = None;
            return Poll::Pending;
        };
        if self.alarm.as_ref().is_none_or(|(at, _)| *at != deadline) {
            self.alarm = Some((deadline, Box::pin(tokio::time::sleep_until(deadline))));
        }
        match &mut self.alarm {
            Some((_, alarm)) => alarm.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }

    /// Counts bytes that came.
    fn took(&self, count: usize) -> io::Result<()> {
        let mut head = self.link.head();
        if head.in_hand {
            return Ok(());
        }
        head.deadline
            .get_or_insert_with(|| Instant::now() + self.link.limits.time);
        head.taken = head.taken.saturating_add(count);
        if head.taken > self.link.limits.bytes {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the head of a request is too long",
            ));
        }
        Ok(())
    }

    fn poll_take(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        let stream = &self.link.stream;
        let space = buf.initialize_unfilled();
        if self.link.head().watched {
            // Whoever watched may have said that nothing is there when something was.
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
        if self.poll_late(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let count = ready!(self.poll_take(cx, buf))?;
        Poll::Ready(self.took(count))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let stream = &self.link.stream;
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
        let done = rustix::net::shutdown(&self.link.stream, Shutdown::Write);
        Poll::Ready(done.map_err(io::Error::from))
    }
}

impl VirtualSocket for Socket {
    /// They are set before the socket is wrapped.
    fn set_socket_option(&self, _option: VirtualSockOpt) -> io::Result<()> {
        Ok(())
    }
}
