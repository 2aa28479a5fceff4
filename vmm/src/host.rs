//! Files of the host that a monitor uses, opened before the jail removes them.

use std::{fs::File, io};

use kvm_ioctls::Kvm;
use userfaultfd::Uffd;

use crate::{
    arch::host_cpu::HostCpu,
    sys::{pagemap, uffd},
};

/// The host as the monitor found it at its start.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) kvm: Kvm,
    pub(crate) cpu: HostCpu,
    /// A userfaultfd for paged memory. Without it a monitor serves guests with private memory only.
    pub(crate) userfaultfd: io::Result<Uffd>,
    /// The page map of this process.
    pub(crate) pagemap: File,
}

/// Failure to open a file of the host.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostError {
    #[error("failed to open /dev/kvm")]
    Kvm(#[source] kvm_ioctls::Error),
    #[error("failed to open the page map")]
    PageMap(#[source] io::Error),
}

impl Host {
    /// Opens the files.
    pub(crate) fn open() -> Result<Self, HostError> {
        Ok(Self {
            kvm: Kvm::new().map_err(HostError::Kvm)?,
            cpu: HostCpu::detect(),
            userfaultfd: uffd::create(),
            pagemap: pagemap::open().map_err(HostError::PageMap)?,
        })
    }
}
