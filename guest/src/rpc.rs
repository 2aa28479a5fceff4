//! The Connect protocol over HTTP, with the JSON and the protobuf codec.
//!
//! Procedures receive and return messages; this module handles envelopes, codecs and HTTP. Bodies of unary calls and
//! messages of streams are limited to [`crate::request_body::MAX_LEN`] bytes.

mod call;
mod codec;
mod context;
mod envelope;
mod error;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod headers;
mod request_stream;
mod response_stream;

pub(crate) use self::{
    call::Call,
    context::Context,
    error::{Code, RpcError},
    request_stream::RequestStream,
    response_stream::ResponseStream,
};
