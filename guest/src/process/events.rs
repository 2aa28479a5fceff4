//! The stream of a process's events, as a body.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use tokio::{
    sync::mpsc,
    time::{Instant, Sleep, sleep},
};

use super::{
    message::{Event, StreamResponse},
    table::Process,
};
use crate::{respond::Answer, rpc};

/// Events that wait for a slow reader; with more the process's output waits.
const WAITING: usize = 4;

/// Follows a process. Dropping it ends the following and not the process.
#[derive(Debug)]
pub(super) struct Events {
    receiver: mpsc::Receiver<Event>,
    keepalive: Duration,
    idle: Pin<Box<Sleep>>,
    ended: bool,
}

impl Events {
    /// Follows from now on: first that it started, then what happens. One that has ended tells that.
    pub(super) fn of(process: &Process, keepalive: Duration) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        // There is room for two events in a new channel.
        let _sent = sender.try_send(Event::Start { pid: process.pid });
        match process.end() {
            Some(end) => {
                let _sent = sender.try_send(Event::End(end));
            }
            None => process.followers.borrow_mut().push(sender),
        }
        Self {
            receiver,
            keepalive,
            idle: Box::pin(sleep(keepalive)),
            ended: false,
        }
    }

    pub(super) fn into_answer(self) -> Answer {
        Response::new(self.map_err(|never| match never {}).boxed_unsync())
    }

    fn envelope(event: &Event) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(rpc::encode(&StreamResponse {
            event,
        })))))
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        match self.receiver.poll_recv(cx) {
            Poll::Ready(Some(event)) => {
                let next = Instant::now() + self.keepalive;
                self.idle.as_mut().reset(next);
                Self::envelope(&event)
            }
            Poll::Ready(None) => {
                self.ended = true;
                Poll::Ready(Some(Ok(Frame::data(rpc::encode_end(None)))))
            }
            Poll::Pending => match self.idle.as_mut().poll(cx) {
                Poll::Ready(()) => {
                    let next = Instant::now() + self.keepalive;
                    self.idle.as_mut().reset(next);
                    Self::envelope(&Event::Keepalive {})
                }
                Poll::Pending => Poll::Pending,
            },
        }
    }
}
