//! System calls that take addresses.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    ptr,
};

use kvm_bindings::{kvm_userspace_memory_region, kvm_xsave};
use kvm_ioctls::{VcpuFd, VmFd};
use userfaultfd::{Event, RegisterMode, Uffd, UffdBuilder};

/// A memory mapping of this process. Dropping it unmaps it.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: *mut u8,
    len: usize,
}

// SAFETY: a mapping is an address range; `write` is the only access to it and is volatile.
unsafe impl Send for Mapping {}
// SAFETY: as above; two threads that write one byte race on its value only.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(crate) fn anonymous(len: usize) -> io::Result<Self> {
        Self::map(
            len,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
        )
    }

    pub(crate) fn shared(file: impl AsFd, len: usize) -> io::Result<Self> {
        Self::map(len, libc::MAP_SHARED, file.as_fd().as_raw_fd())
    }

    pub(crate) fn private(file: impl AsFd, len: usize) -> io::Result<Self> {
        Self::map(
            len,
            libc::MAP_PRIVATE | libc::MAP_NORESERVE,
            file.as_fd().as_raw_fd(),
        )
    }

    /// Replaces the mapping with a private mapping of a file.
    pub(crate) fn replace_private(&self, file: impl AsFd) -> io::Result<()> {
        let flags = libc::MAP_PRIVATE | libc::MAP_NORESERVE | libc::MAP_FIXED;
        let fd = file.as_fd().as_raw_fd();
        // SAFETY: MAP_FIXED replaces exactly the range this mapping owns.
        let base = unsafe {
            libc::mmap(
                self.base.cast(),
                self.len,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                fd,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    /// Writes one byte; ignores an offset outside the mapping.
    pub(crate) fn write(&self, offset: usize, byte: u8) {
        if offset < self.len {
            // SAFETY: write_volatile wants a valid address: it lies in the mapping (checked above).
            unsafe { self.base.wrapping_add(offset).write_volatile(byte) };
        }
    }

    /// Writes every cache line.
    pub(crate) fn fill(&self, byte: u8) {
        for offset in (0..self.len).step_by(64) {
            self.write(offset, byte);
        }
    }

    fn map(len: usize, flags: libc::c_int, fd: libc::c_int) -> io::Result<Self> {
        // SAFETY: without MAP_FIXED, mmap replaces no existing mapping.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                fd,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: MADV_NOHUGEPAGE changes no content of the range just mapped.
        let rc = unsafe { libc::madvise(base, len, libc::MADV_NOHUGEPAGE) };
        if rc != 0 && io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL) {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            base: base.cast(),
            len,
        })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `self` owns the range, and no reference to it exists.
        let rc = unsafe { libc::munmap(self.base.cast(), self.len) };
        debug_assert_eq!(rc, 0);
    }
}

/// Handles the page faults of a mapping through a userfaultfd, with copies of one buffer.
#[derive(Debug)]
pub(crate) struct FaultHandler<'a> {
    uffd: Uffd,
    mapping: &'a Mapping,
    source: Mapping,
}

impl<'a> FaultHandler<'a> {
    pub(crate) fn new(mapping: &'a Mapping) -> anyhow::Result<Self> {
        let uffd = UffdBuilder::new()
            .close_on_exec(true)
            .user_mode_only(false)
            .create()?;
        uffd.register_with_mode(mapping.base.cast(), mapping.len, RegisterMode::MISSING)?;
        let source = Mapping::anonymous(64 * 4096)?;
        source.fill(7);
        Ok(Self {
            uffd,
            mapping,
            source,
        })
    }

    /// Handles `count` faults.
    pub(crate) fn serve(&self, count: usize) -> anyhow::Result<()> {
        let mut handled = 0;
        while handled < count {
            if let Some(Event::Pagefault { addr, .. }) = self.uffd.read_event()? {
                let page = addr as usize & !4095;
                self.install(page - self.mapping.base as usize, 4096)?;
                handled += 1;
            }
        }
        Ok(())
    }

    /// Installs `len` bytes of pages at `offset`.
    pub(crate) fn install(&self, offset: usize, len: usize) -> anyhow::Result<()> {
        anyhow::ensure!(
            len <= self.source.len && offset + len <= self.mapping.len,
            "range is outside the mapping"
        );
        let target = self.mapping.base.wrapping_add(offset).cast();
        // SAFETY: copy reads `len` bytes of `source` (checked above) and writes into the registered range only.
        unsafe { self.uffd.copy(self.source.base.cast(), target, len, true) }?;
        Ok(())
    }
}

/// Adds the mapping to a VM as its memory from address 0.
pub(crate) fn add_memory(vm: &VmFd, memory: &Mapping) -> anyhow::Result<()> {
    let region = kvm_userspace_memory_region {
        memory_size: memory.len as u64,
        userspace_addr: memory.base as u64,
        ..kvm_userspace_memory_region::default()
    };
    // SAFETY: the range stays mapped until the VM is dropped: owners of both drop the VM first.
    unsafe { vm.set_user_memory_region(region) }?;
    Ok(())
}

/// Sets the extended state of a vCPU.
pub(crate) fn set_xsave(vcpu: &VcpuFd, xsave: &kvm_xsave) -> anyhow::Result<()> {
    // SAFETY: the state has the size that KVM_GET_XSAVE returned.
    unsafe { vcpu.set_xsave(xsave) }?;
    Ok(())
}

/// Pins this thread to a CPU.
pub(crate) fn pin(cpu: usize) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}
