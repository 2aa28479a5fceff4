//! The messages a caller is streamed.

use std::{
    io,
    pin::Pin,
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::{
    sync::mpsc,
    time::{Instant, Sleep, sleep, sleep_until},
};

use super::{
    Context, RpcError,
    codec::{Codec, Wire},
    envelope,
};

/// What a procedure answers with: messages as they come, and one for when none has come for a while. When the sender is
/// gone the stream ends well; an error ends it otherwise.
#[derive(Debug)]
pub(crate) struct Feed<M> {
    pub(crate) messages: mpsc::Receiver<Result<M, RpcError>>,
    pub(crate) alive: fn() -> M,
}

/// A feed as a body. Dropping it tells the sender that nobody is left.
#[derive(Debug)]
pub(super) struct FeedBody<M> {
    feed: Feed<M>,
    codec: Codec,
    keepalive: Duration,
    idle: Pin<Box<Sleep>>,
    deadline: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl<M: Wire> FeedBody<M> {
    pub(super) fn new(feed: Feed<M>, codec: Codec, context: &Context) -> Self {
        Self {
            feed,
            codec,
            keepalive: context.keepalive,
            idle: Box::pin(sleep(context.keepalive)),
            deadline: context.deadline.map(|at| Box::pin(sleep_until(at))),
            ended: false,
        }
    }

    fn message(&mut self, message: &M) -> Bytes {
        let next = Instant::now() + self.keepalive;
        self.idle.as_mut().reset(next);
        match self.codec.encode(message) {
            Ok(bytes) => envelope::wrap(&bytes),
            Err(error) => self.end(Some(&error)),
        }
    }

    fn end(&mut self, error: Option<&RpcError>) -> Bytes {
        self.ended = true;
        self.feed.messages.close();
        envelope::end(error)
    }
}

impl<M: Wire + Unpin> Body for FeedBody<M> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let late = self
            .deadline
            .as_mut()
            .is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready());
        let bytes = if late {
            self.end(Some(&RpcError::too_late()))
        } else {
            match self.feed.messages.poll_recv(cx) {
                Poll::Ready(Some(Ok(message))) => self.message(&message),
                Poll::Ready(Some(Err(error))) => self.end(Some(&error)),
                Poll::Ready(None) => self.end(None),
                Poll::Pending => match self.idle.as_mut().poll(cx) {
                    Poll::Ready(()) => {
                        let alive = (self.feed.alive)();
                        self.message(&alive)
                    }
                    Poll::Pending => return Poll::Pending,
                },
            }
        };
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}
