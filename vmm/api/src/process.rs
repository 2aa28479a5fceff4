//! Monitors as processes of this host.
//!
//! [`Kvm`] spawns `catnap-vmm` with one end of a socket pair as its standard input and talks [`crate::wire`] over it.
//! Nothing runs between fork and exec, so that spawning stays a `vfork`.

mod link;
mod monitor;

use std::{io, os::fd::OwnedFd, path::PathBuf, process::Stdio};

use async_trait::async_trait;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::{net::UnixListener, process::Command};

use self::link::Link;
pub use self::monitor::{Monitor, Process};
use crate::{Blank, BlankSpec, Hypervisor, MachineError, SpawnError, wire::Request};

/// The KVM of this host, through `catnap-vmm`.
#[derive(Debug, Clone)]
pub struct Kvm {
    program: PathBuf,
}

impl Kvm {
    /// Uses the monitor at `program`. Fails with one sentence when this host has no KVM that this process may use.
    pub fn new(program: impl Into<PathBuf>) -> Result<Self, SpawnError> {
        let program = program.into();
        if let Err(source) = std::fs::metadata(&program) {
            return Err(SpawnError::Spawn {
                program: program.display().to_string(),
                source,
            });
        }
        match std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
            Ok(_) => Ok(Self { program }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(SpawnError::NoKvm(
                "there is no /dev/kvm on this machine: enable virtualisation in its firmware or hypervisor and load the \
                 kvm module"
                    .to_owned(),
            )),
            Err(error) => Err(SpawnError::NoKvm(format!(
                "/dev/kvm cannot be opened ({error}): run as root or as a member of the group that owns it"
            ))),
        }
    }

    /// Spawns a monitor, as [`Hypervisor::blank`] does, and gives its own type.
    pub async fn monitor(&self, spec: BlankSpec) -> Result<Monitor, SpawnError> {
        let fail = |source| SpawnError::Spawn {
            program: self.program.display().to_string(),
            source,
        };
        let socket = spec.run_dir.join("vsock.sock");
        let listener = UnixListener::bind(&socket)
            .map_err(fail)?
            .into_std()
            .map_err(fail)?;
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|errno| fail(errno.into()))?;
        // Ours alone: the monitor waits in its own loop.
        rustix::io::ioctl_fionbio(&ours, true).map_err(|errno| fail(errno.into()))?;
        let child = Command::new(&self.program)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .map_err(fail)?;
        let link = Link::start(ours, child).map_err(fail)?;
        let monitor = Monitor::new(link, socket);
        let request = Request::Prepare {
            vcpus: spec.vcpus,
            memory: spec.memory,
        };
        match monitor
            .link()
            .ask(&request, &[&OwnedFd::from(listener)])
            .await
        {
            Ok(()) => Ok(monitor),
            Err(MachineError::Refused(why)) => Err(SpawnError::Prepare(why)),
            Err(MachineError::Gone(exit)) => Err(SpawnError::Prepare(exit.to_string())),
            Err(MachineError::Io(source)) => Err(fail(source)),
        }
    }
}

#[async_trait]
impl Hypervisor for Kvm {
    async fn blank(&self, spec: BlankSpec) -> Result<Box<dyn Blank>, SpawnError> {
        Ok(Box::new(self.monitor(spec).await?))
    }
}

/// Fails with one sentence when this process may not make a userfaultfd that serves the kernel's own faults, which
/// restoring memory page by page needs.
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
