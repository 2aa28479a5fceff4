//! Keeps snapshots as shared layers and feeds their pages to guests.
//!
//! A snapshot is a directory: a [`Manifest`] that names everything, the machine's state, and at most one new [`layer`] for
//! memory and for each disk. A layer holds the pages changed since the parent, so a snapshot's memory is a chain of
//! layers, most of them owned by older snapshots, and a page is looked for from the newest to the oldest; a page that no
//! layer has is zero (or the base image's, for a disk).
//!
//! [`Store`] owns the directory: a [`Staging`] becomes a snapshot in one rename after everything is synced, and what no
//! [`Pin`] holds and no held manifest refers to is removed. [`Store::open`] gives a snapshot back, its memory either
//! composed in a resident memfd that all forks share or served page by page by a [`StackPager`]. Every page's digest is
//! checked on its way to a guest.
//!
//! Everything here blocks; call it where blocking is allowed.

#![deny(unsafe_code)]

mod capture;
mod digest;
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
    layer::{Bitmap, Layer, LayerError, Layout, MAX_PAGES, SealError, Tables},
    manifest::{BaseImage, Chain, DiskManifest, FileRef, LayerRef, Manifest, ManifestError},
    open::{MemoryMode, OpenDisk, OpenError, OpenMachine, OpenSnapshot},
    pager::{Damage, StackPager},
    stack::Stack,
    store::{Pin, Store, StoreError},
};
