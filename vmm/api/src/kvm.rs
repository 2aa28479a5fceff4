//! Hypervisor over the KVM of this host: each monitor is a process.
//!
//! [`Kvm`] spawns `catnap-vmm` with one end of a socket pair as its standard input and speaks [`crate::wire`] over it.
//! Unless it was made unconfined, each monitor gets a [`jail`].

mod blank;
mod cgroup;
mod jail;
mod link;
mod log;
mod machine;
mod process;

use std::{io, os::fd::OwnedFd, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::{net::UnixListener, process::Child};
use tokio_util::task::TaskTracker;

pub use self::blank::KvmBlank;
use self::{
    jail::{Jail, Jails},
    link::Link,
};
use crate::{Blank, BlankSpec, Hypervisor, MachineError, SpawnError, wire::Request};

/// The first of the 65,536 users that monitors become by default, far above those of people, services and containers.
pub const FIRST_USER: u32 = 1_900_000_000;

/// Hypervisor that runs one `catnap-vmm` process for each machine.
#[derive(Debug, Clone)]
pub struct Kvm {
    program: PathBuf,
    doorbell: bool,
    jails: Option<Arc<Jails>>,
    /// The supervisors of live monitors.
    monitors: TaskTracker,
}

impl Kvm {
    /// Uses the monitor executable `program`, and jails each monitor: its own user, the first being `first_user`,
    /// namespaces, control groups, an empty root directory and a filter of system calls. Fails, with the remedy, if this
    /// process cannot use KVM or is not root.
    pub fn jailed(program: impl Into<PathBuf>, first_user: u32) -> Result<Self, SpawnError> {
        Ok(Self {
            jails: Some(Arc::new(Jails::open(first_user)?)),
            ..Self::unconfined(program)?
        })
    }

    /// Uses the monitor executable `program` with the privileges of this process: for development. Fails, with the
    /// remedy, if this process cannot use KVM.
    pub fn unconfined(program: impl Into<PathBuf>) -> Result<Self, SpawnError> {
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
                jails: None,
                monitors: TaskTracker::new(),
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
        let (child, jail) = self.start(&spec, monitor_end).await.map_err(fail)?;
        let (wire_jail, groups) = match &jail {
            Some(jail) => jail
                .to_wire()
                .map(|(jail, groups)| (Some(jail), groups))
                .map_err(fail)?,
            None => (None, Vec::new()),
        };
        let link = Link::start(host_end, child, jail, &self.monitors).map_err(fail)?;
        let request = Request::Prepare {
            vcpus: spec.vcpus,
            memory: spec.memory,
            doorbell: self.doorbell,
            jail: wire_jail,
        };
        let mut fds = vec![OwnedFd::from(listener)];
        fds.extend(groups.into_iter().map(OwnedFd::from));
        match link.call(&request, &fds.iter().collect::<Vec<_>>()).await {
            Ok(()) => Ok(KvmBlank::new(link, socket)),
            Err(MachineError::Refused(error)) => Err(SpawnError::Prepare(error)),
            Err(MachineError::Gone(exit)) => Err(SpawnError::Prepare(exit.to_string())),
            Err(MachineError::Io(source)) => Err(fail(source)),
        }
    }

    /// Starts the process of a monitor, and makes its jail.
    async fn start(&self, spec: &BlankSpec, socket: OwnedFd) -> io::Result<(Child, Option<Jail>)> {
        let (mut child, jail) = match &self.jails {
            Some(jails) => {
                let jail = jails.create(spec)?;
                let child = process::spawn_in_pid_namespace(&self.program, socket).await?;
                (child, Some(jail))
            }
            None => (process::spawn(&self.program, socket)?, None),
        };
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(log::forward(stderr, child.id().unwrap_or(0)));
        }
        Ok((child, jail))
    }
}

#[async_trait]
impl Hypervisor for Kvm {
    async fn blank(&self, spec: BlankSpec) -> Result<Box<dyn Blank>, SpawnError> {
        Ok(Box::new(self.spawn(spec).await?))
    }

    async fn drained(&self) {
        self.monitors.close();
        self.monitors.wait().await;
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
