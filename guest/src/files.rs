//! The HTTP endpoints `/files` and `/files/compose`: upload, download and concatenation of files.
//!
//! Like E2B's agent, this one reads and writes as root: the token grants full control of the guest. A path is absolute,
//! begins with `~`, or is relative to the working directory.

mod compose;
mod content_type;
mod download;
mod encoding;
mod error;
mod file_body;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod gunzip;
mod preconditions;
mod store;
mod target;
mod upload;

pub(crate) use self::{compose::compose, download::download, upload::upload};
