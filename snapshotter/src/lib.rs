//! Stores snapshots as shared layers and serves their pages to guests.
//!
//! A snapshot is a directory with a [`Manifest`] that names all parts, the machine's state, and at most one new [`layer`]
//! for memory and for each disk. A layer has the pages that changed since the parent, so a snapshot's memory is a chain of
//! layers, most of them owned by older snapshots. The newest layer that has a page provides it; a page of no layer is zero
//! (or the base image's, for a disk).
//!
//! [`Store`] owns the directory: a [`Staging`] becomes a snapshot by one rename after everything is synced, and snapshots
//! that no [`Pin`] holds and no pinned manifest references are removed. [`Store::open_snapshot`] opens a snapshot, with its
//! memory composed in a resident memfd that forks share, or served page by page by a [`StackPager`]. Every page's digest is
//! checked before a guest sees it.
//!
//! Every call blocks; call it on a blocking thread.

#![deny(unsafe_code)]

mod capture;
mod digest;
mod error;
mod files;
mod layer;
mod manifest;
mod open;
mod pager;
mod resident;
mod stack;
mod store;
#[allow(unsafe_code)]
mod sys;
mod verified;

pub use self::{
    capture::{CaptureSource, CommitError, Committed, DiskSource, Staging},
    digest::Digest,
    error::OpenError,
    layer::{Bitmap, Layer, LayerError, Layout, MAX_PAGES, SealError, Tables},
    manifest::{BaseImage, Chain, DiskManifest, FileRef, LayerRef, Manifest, ManifestError},
    open::{MemoryMode, OpenDisk, OpenMachine, OpenSnapshot},
    pager::{Damage, StackPager},
    stack::Stack,
    store::{Store, StoreError, pins::Pin},
};
