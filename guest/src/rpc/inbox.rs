//! The messages a caller streams.

use std::marker::PhantomData;

use bytes::BytesMut;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{
    RpcError,
    codec::{Codec, Wire},
    envelope::{self, Next},
};

/// A request that is a stream of messages. No more than one message and what came with it is kept.
#[derive(Debug)]
pub(crate) struct Inbox<M> {
    body: Incoming,
    codec: Codec,
    buffer: BytesMut,
    ended: bool,
    kind: PhantomData<fn() -> M>,
}

impl<M: Wire> Inbox<M> {
    pub(super) fn new(body: Incoming, codec: Codec) -> Self {
        Self {
            body,
            codec,
            buffer: BytesMut::new(),
            ended: false,
            kind: PhantomData,
        }
    }

    /// The next message; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<M>, RpcError> {
        loop {
            if self.ended {
                return Ok(None);
            }
            match envelope::take(&mut self.buffer)? {
                Some(Next::Message(message)) => return self.codec.decode(&message).map(Some),
                Some(Next::End) => self.ended = true,
                None => self.read().await?,
            }
        }
    }

    /// The message of a request that holds exactly one.
    pub(super) async fn only(mut self) -> Result<M, RpcError> {
        let Some(message) = self.next().await? else {
            return Err(RpcError::invalid("request holds no message"));
        };
        match self.next().await? {
            None => Ok(message),
            Some(_) => Err(RpcError::invalid("request holds more than one message")),
        }
    }

    async fn read(&mut self) -> Result<(), RpcError> {
        match self.body.frame().await {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.buffer.extend_from_slice(data);
                }
                Ok(())
            }
            Some(Err(error)) => Err(RpcError::invalid(format!("read request: {error}"))),
            None if self.buffer.is_empty() => {
                self.ended = true;
                Ok(())
            }
            None => Err(RpcError::invalid("request ends within an envelope")),
        }
    }
}
