//! The message stream of a request.

use std::marker::PhantomData;

use bytes::BytesMut;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{
    codec::{Codec, RpcMessage},
    envelope::{self, Envelope},
    error::RpcError,
};

/// Decodes a request body into messages. Buffers at most one message and the frame that completed it.
#[derive(Debug)]
pub(crate) struct RequestStream<M> {
    body: Incoming,
    codec: Codec,
    buffer: BytesMut,
    ended: bool,
    message: PhantomData<fn() -> M>,
}

impl<M: RpcMessage> RequestStream<M> {
    pub(super) fn new(body: Incoming, codec: Codec) -> Self {
        Self {
            body,
            codec,
            buffer: BytesMut::new(),
            ended: false,
            message: PhantomData,
        }
    }

    /// Returns the next message, or `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<M>, RpcError> {
        loop {
            if self.ended {
                return Ok(None);
            }
            match envelope::decode(&mut self.buffer)? {
                Some(Envelope::Message(message)) => return self.codec.decode(&message).map(Some),
                Some(Envelope::EndStream) => self.ended = true,
                None => self.read_frame().await?,
            }
        }
    }

    /// Returns the only message of the request.
    pub(super) async fn single(mut self) -> Result<M, RpcError> {
        let Some(message) = self.next().await? else {
            return Err(RpcError::invalid_argument("request holds no message"));
        };
        match self.next().await? {
            None => Ok(message),
            Some(_) => Err(RpcError::invalid_argument(
                "request holds more than one message",
            )),
        }
    }

    async fn read_frame(&mut self) -> Result<(), RpcError> {
        match self.body.frame().await {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.buffer.extend_from_slice(data);
                }
                Ok(())
            }
            Some(Err(error)) => Err(RpcError::invalid_argument(format!(
                "failed to read request: {error}"
            ))),
            None if self.buffer.is_empty() => {
                self.ended = true;
                Ok(())
            }
            None => Err(RpcError::invalid_argument(
                "request ends within an envelope",
            )),
        }
    }
}
