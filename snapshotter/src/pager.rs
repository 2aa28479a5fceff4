//! Serves the page faults of a machine from the layers of its snapshot.
//!
//! [`StackPager::attach`] installs the recorded working set, then a thread answers faults one by one until it is stopped.
//! Every page is installed write-protected, so that only written pages count as changed, and only after its digest is
//! checked: a fault on a damaged page is never answered, and the pager reports the damage to the machine's owner.
//!
//! Demanded pages are recorded in order. The first restore of a snapshot saves them as its working set; the snapshot that
//! ends an epoch gets the pages of that epoch ([`StackPager::accessed_pages`]).

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
    /// The path of the working set.
    path: PathBuf,
}

/// The reason why a pager cannot serve its machine.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// A page cannot be read, or is corrupted.
    #[error("failed to serve page {page} of guest memory")]
    Layer {
        /// The page of guest memory.
        page: u32,
        /// The cause, which names the file.
        #[source]
        source: LayerError,
    },
    /// The kernel refused a page.
    #[error("failed to install page {page} of guest memory")]
    Install {
        /// The page of guest memory.
        page: u32,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Faults cannot be read.
    #[error("failed to read page faults")]
    Faults(#[source] io::Error),
}

/// Failure to attach a pager.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachError {
    /// The pager serves a machine already.
    #[error("the pager serves another machine")]
    Attached,
    /// The size of guest memory differs from the snapshot's.
    #[error("guest memory has {actual} bytes, the snapshot {expected}")]
    Size {
        /// The machine's resources.
        actual: u64,
        /// The snapshot's size in bytes.
        expected: u64,
    },
    /// The working set cannot be installed.
    #[error("failed to install working set")]
    Prefetch(#[source] Damage),
    /// The thread or the descriptor is not usable.
    #[error("failed to start pager")]
    Start(#[source] io::Error),
}

/// State shared by the serving thread and the handle.
struct Shared {
    stack: Stack,
    pages: u32,
    demanded: Mutex<Vec<u32>>,
    on_damage: Box<dyn Fn(Damage) + Send + Sync>,
}

/// The state of the serving thread.
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

    /// Returns the pages of this epoch so far: installed ahead and demanded.
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

    /// Counts the demand faults.
    pub fn demanded(&self) -> usize {
        self.shared.demanded.lock().len()
    }

    /// Saves the recorded working set, if the snapshot has none yet.
    pub fn save_working_set(&self) {
        let demanded = self.shared.demanded.lock().clone();
        if !self.recorded.is_empty() || demanded.is_empty() {
            return;
        }
        if let Err(error) = working_set::save(&self.path, &demanded) {
            let error = error_chain::chain(&error);
            warn!(path = %self.path.display(), %error, "failed to save working set");
        }
    }

    /// Stops serving and waits until the thread has ended.
    pub fn stop(&self) {
        let server = std::mem::replace(&mut *self.server.lock(), Server::Done);
        let Server::Serving { stop, thread } = server else {
            return;
        };
        if let Err(errno) = rustix::io::write(&*stop, &1u64.to_ne_bytes()) {
            warn!(error = %error_chain::chain(&errno), "failed to stop pager");
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
