//! Hypervisor over the KVM of this host: each monitor is a process.
//!
//! [`Kvm`] spawns `catnap-vmm` with one end of a socket pair as its standard input and speaks [`crate::wire`] over it.
//! No code runs between fork and exec, so that spawning stays a `vfork`.

mod blank;
mod link;
mod log;
mod machine;

use std::{io, os::fd::OwnedFd, path::PathBuf, process::Stdio};

use async_trait::async_trait;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::{net::UnixListener, process::Command};

pub use self::blank::KvmBlank;
use self::link::Link;
use crate::{Blank, BlankSpec, Hypervisor, MachineError, SpawnError, wire::Request};

/// Hypervisor that runs one `catnap-vmm` process for each machine.
#[derive(Debug, Clone)]
pub struct Kvm {
    program: PathBuf,
    doorbell: bool,
}

impl Kvm {
    /// Uses the monitor executable `program`. Fails, with the remedy, if this process cannot use KVM.
    pub fn new(program: impl Into<PathBuf>) -> Result<Self, SpawnError> {
        let program = program.into();
        if let Err(source) = std::fs::metadata(&program) {
            return Err(SpawnError::Spawn {
                program: program.display().to_string(),
                source,
            });
        }
        match std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/kvm")
        {
            Ok(_) => Ok(Self {
                program,
                doorbell: false,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(SpawnError::NoKvm(
                "/dev/kvm does not exist: enable virtualisation in the firmware or hypervisor of this machine and load \
                 the kvm module"
                    .to_owned(),
            )),
            Err(error) => Err(SpawnError::NoKvm(format!(
                "failed to open /dev/kvm ({error}): run as root or as a member of the group that owns it"
            ))),
        }
    }

    /// Gives guests the doorbell ports ([`crate::platform`]): for tests and measurements with the flat guest.
    #[must_use]
    pub fn with_doorbell(self) -> Self {
        Self {
            doorbell: true,
            ..self
        }
    }

    /// Spawns a monitor as [`Hypervisor::blank`] does, with its concrete type.
    pub async fn spawn(&self, spec: BlankSpec) -> Result<KvmBlank, SpawnError> {
        let fail = |source| SpawnError::Spawn {
            program: self.program.display().to_string(),
            source,
        };
        let socket = spec.run_dir.join("vsock.sock");
        let listener = UnixListener::bind(&socket)
            .map_err(fail)?
            .into_std()
            .map_err(fail)?;
        let (host_end, monitor_end) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|errno| fail(errno.into()))?;
        // Only this end: the monitor polls its end and reads it blocking.
        rustix::io::ioctl_fionbio(&host_end, true).map_err(|errno| fail(errno.into()))?;
        let mut child = Command::new(&self.program)
            .stdin(Stdio::from(monitor_end))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(fail)?;
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(log::forward(stderr, child.id().unwrap_or(0)));
        }
        let link = Link::start(host_end, child).map_err(fail)?;
        let request = Request::Prepare {
            vcpus: spec.vcpus,
            memory: spec.memory,
            doorbell: self.doorbell,
        };
        match link.call(&request, &[&OwnedFd::from(listener)]).await {
            Ok(()) => Ok(KvmBlank::new(link, socket)),
            Err(MachineError::Refused(error)) => Err(SpawnError::Prepare(error)),
            Err(MachineError::Gone(exit)) => Err(SpawnError::Prepare(exit.to_string())),
            Err(MachineError::Io(source)) => Err(fail(source)),
        }
    }
}

#[async_trait]
impl Hypervisor for Kvm {
    async fn blank(&self, spec: BlankSpec) -> Result<Box<dyn Blank>, SpawnError> {
        Ok(Box::new(self.spawn(spec).await?))
    }
}

/// Checks that this process may create a userfaultfd that serves the kernel's own faults, which restoring memory page
/// by page needs.
pub fn check_userfaultfd() -> Result<(), SpawnError> {
    if std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/userfaultfd")
        .is_ok()
    {
        return Ok(());
    }
    let allowed =
        std::fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd").unwrap_or_default();
    if allowed.trim() == "1" || rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(SpawnError::NoUserfaultfd)
}
