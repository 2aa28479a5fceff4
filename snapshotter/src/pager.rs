//! Serves the page faults of a machine from the layers of its snapshot.
//!
//! [`StackPager::attach`] installs the recorded working set, then a thread answers faults one by one until it is stopped.
//! Every page is installed write-protected, so that only what the guest wrote counts as changed, and only after its
//! digest was checked: a fault on a damaged page is never answered, and whoever owns the machine is told to kill it.
//!
//! The pages that were demanded are recorded, in order. The first restore of a snapshot leaves them behind as its working
//! set; what a life needed is also handed on to the snapshot that ends it ([`StackPager::touched`]).

mod prefetch;
mod serve;
#[cfg(test)]
mod tests;
pub(crate) mod working_set;

use std::{
    fmt, io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
    thread::JoinHandle,
};

use parking_lot::Mutex;
use rustix::{
    event::{EventfdFlags, eventfd},
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::Errno,
};
use tracing::warn;
use vmm_api::{MemoryRegion, PAGE_SIZE};

use self::working_set::MAX_RECORDED;
use crate::{LayerError, Stack};

/// The pager of one machine.
pub struct StackPager {
    shared: Arc<Shared>,
    server: Mutex<Server>,
    recorded: Vec<u32>,
    /// Where the working set is left behind.
    path: PathBuf,
}

/// Why a pager cannot serve a machine any longer.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// A page cannot be read as it was written.
    #[error("serve page {page} of guest memory")]
    Layer {
        /// The page of guest memory.
        page: u32,
        /// Why; it names the file.
        #[source]
        source: LayerError,
    },
    /// The kernel did not take a page.
    #[error("install page {page} of guest memory")]
    Install {
        /// The page of guest memory.
        page: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Faults cannot be read any longer.
    #[error("read page faults")]
    Faults(#[source] io::Error),
}

/// A pager that did not take over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachError {
    /// It serves a machine already.
    #[error("the pager serves another machine")]
    Attached,
    /// Guest memory has another size than the snapshot's.
    #[error("guest memory has {actual} bytes, the snapshot {expected}")]
    Size {
        /// What the machine has.
        actual: u64,
        /// What the snapshot has.
        expected: u64,
    },
    /// The working set was not installed.
    #[error("install working set")]
    Prefetch(#[source] Damage),
    /// Its thread or descriptor is not usable.
    #[error("start pager")]
    Start(#[source] io::Error),
}

/// What the serving thread and the handle share.
struct Shared {
    stack: Stack,
    pages: u32,
    demanded: Mutex<Vec<u32>>,
    on_damage: Box<dyn Fn(Damage) + Send + Sync>,
}

/// Where serving has got to.
enum Server {
    Idle,
    Serving {
        stop: Arc<OwnedFd>,
        thread: JoinHandle<()>,
    },
    Done,
}

// === impl StackPager ===

impl StackPager {
    pub(crate) fn new(
        stack: Stack,
        pages: u32,
        recorded: Vec<u32>,
        path: PathBuf,
        on_damage: impl Fn(Damage) + Send + Sync + 'static,
    ) -> Self {
        let shared = Shared {
            stack,
            pages,
            demanded: Mutex::default(),
            on_damage: Box::new(on_damage),
        };
        Self {
            shared: Arc::new(shared),
            server: Mutex::new(Server::Idle),
            recorded,
            path,
        }
    }

    /// The pages this life needed from the snapshot, as far as is known: those installed ahead and those demanded.
    pub fn accessed_pages(&self) -> Vec<u32> {
        let demanded = self.shared.demanded.lock();
        let mut pages: Vec<u32> = self
            .recorded
            .iter()
            .chain(demanded.iter())
            .copied()
            .collect();
        pages.truncate(MAX_RECORDED);
        pages
    }

    /// How many faults were answered one by one.
    pub fn demanded(&self) -> usize {
        self.shared.demanded.lock().len()
    }

    /// Leaves the recorded working set behind, if the snapshot has none yet.
    pub fn save_working_set(&self) {
        let demanded = self.shared.demanded.lock().clone();
        if !self.recorded.is_empty() || demanded.is_empty() {
            return;
        }
        if let Err(error) = working_set::save(&self.path, &demanded) {
            warn!(path = %self.path.display(), %error, "cannot save working set");
        }
    }

    /// Stops serving: the machine is gone, or must not go on. Waits until the thread has ended.
    pub fn stop(&self) {
        let server = std::mem::replace(&mut *self.server.lock(), Server::Done);
        let Server::Serving { stop, thread } = server else {
            return;
        };
        if let Err(errno) = rustix::io::write(&*stop, &1u64.to_ne_bytes()) {
            warn!(%errno, "cannot stop pager");
            return;
        }
        if thread.join().is_err() {
            warn!("pager thread panicked");
        }
    }

    fn start(&self, uffd: OwnedFd, region: MemoryRegion) -> Result<(), AttachError> {
        let expected = u64::from(self.shared.pages) * PAGE_SIZE as u64;
        if region.len != expected {
            return Err(AttachError::Size {
                actual: region.len,
                expected,
            });
        }
        let mut server = self.server.lock();
        if !matches!(*server, Server::Idle) {
            return Err(AttachError::Attached);
        }
        let start = |errno: Errno| AttachError::Start(errno.into());
        // Polling a blocking userfaultfd only ever reports an error.
        let flags = fcntl_getfl(&uffd).map_err(start)?;
        fcntl_setfl(&uffd, flags | OFlags::NONBLOCK).map_err(start)?;
        prefetch::install(&self.shared, uffd.as_fd(), region, &self.recorded)
            .map_err(AttachError::Prefetch)?;
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).map_err(start)?);
        let shared = Arc::clone(&self.shared);
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("pager".to_owned())
            .spawn(move || serve::serve(&shared, &uffd, region, &stopped))
            .map_err(AttachError::Start)?;
        *server = Server::Serving { stop, thread };
        Ok(())
    }
}

impl vmm_api::Pager for StackPager {
    fn attach(
        &self,
        uffd: OwnedFd,
        region: MemoryRegion,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.start(uffd, region)?)
    }
}

impl Drop for StackPager {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for StackPager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StackPager")
            .field("pages", &self.shared.pages)
            .finish_non_exhaustive()
    }
}
