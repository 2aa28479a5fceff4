//! The one place with unsafe code: userfaultfd's requests.

pub(crate) mod uffd;
