//! The unsafe code of this crate: requests to a userfaultfd.

pub(crate) mod uffd;
