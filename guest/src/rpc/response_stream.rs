//! The message stream of a response.

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
    codec::{Codec, RpcMessage},
    context::Context,
    envelope,
    error::RpcError,
};

/// Messages of a procedure. Dropping the sender ends the stream with success; an error ends it with that error.
#[derive(Debug)]
pub(crate) struct ResponseStream<M> {
    pub(crate) messages: mpsc::Receiver<Result<M, RpcError>>,
    /// Builds the message that is sent after each keepalive interval without messages.
    pub(crate) keepalive: fn() -> M,
}

/// Encodes a [`ResponseStream`] as a body. Dropping it closes the sender's channel.
#[derive(Debug)]
pub(super) struct ResponseStreamBody<M> {
    stream: ResponseStream<M>,
    codec: Codec,
    keepalive: Duration,
    idle_timer: Pin<Box<Sleep>>,
    deadline: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl<M: RpcMessage> ResponseStreamBody<M> {
    pub(super) fn new(stream: ResponseStream<M>, codec: Codec, context: &Context) -> Self {
        Self {
            stream,
            codec,
            keepalive: context.keepalive,
            idle_timer: Box::pin(sleep(context.keepalive)),
            deadline: context.deadline.map(|at| Box::pin(sleep_until(at))),
            ended: false,
        }
    }

    fn encode(&mut self, message: &M) -> Bytes {
        let next = Instant::now() + self.keepalive;
        self.idle_timer.as_mut().reset(next);
        match self.codec.encode(message) {
            Ok(bytes) => envelope::encode_message(&bytes),
            Err(error) => self.end(Some(&error)),
        }
    }

    fn end(&mut self, error: Option<&RpcError>) -> Bytes {
        self.ended = true;
        self.stream.messages.close();
        envelope::encode_end(error)
    }
}

impl<M: RpcMessage + Unpin> Body for ResponseStreamBody<M> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let expired = self
            .deadline
            .as_mut()
            .is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready());
        let bytes = if expired {
            self.end(Some(&RpcError::deadline_exceeded()))
        } else {
            match self.stream.messages.poll_recv(cx) {
                Poll::Ready(Some(Ok(message))) => self.encode(&message),
                Poll::Ready(Some(Err(error))) => self.end(Some(&error)),
                Poll::Ready(None) => self.end(None),
                Poll::Pending => match self.idle_timer.as_mut().poll(cx) {
                    Poll::Ready(()) => {
                        let keepalive = (self.stream.keepalive)();
                        self.encode(&keepalive)
                    }
                    Poll::Pending => return Poll::Pending,
                },
            }
        };
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}
