//! Connect over HTTP, with its JSON and its protobuf codec.
//!
//! Written by hand and apart from what is called: the procedures take and give messages, and know neither envelopes, nor
//! codecs, nor HTTP. What a caller sends is bounded before it is kept: a body by [`respond::MAX_JSON`], a message of a
//! stream by the same.

mod call;
mod codec;
mod envelope;
mod error;
mod feed;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod headers;
mod inbox;

pub(crate) use self::{
    call::{Call, Context},
    error::{Code, RpcError},
    feed::Feed,
    inbox::Inbox,
};
