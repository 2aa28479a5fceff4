//! Being pid 1.
//!
//! The kernel has mounted the root disk and started this. What goes wrong here, or later in a panic, is written to the
//! console and ends the machine: a guest that hangs tells the host nothing.

use std::{
    convert::Infallible,
    fs, io,
    net::Ipv4Addr,
    panic,
    path::{Path, PathBuf},
    process::ExitCode,
    rc::Rc,
};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sys::{
        reboot::{RebootMode, reboot},
        stat::{Mode, umask},
    },
    unistd::sethostname,
};
use tokio::{net::TcpListener, runtime, task::LocalSet};
use tracing::{error, warn};

use crate::{Agent, Config, LinuxKernel, Peer, Reap, serve, sys};

/// A file system that every guest has.
struct Mount {
    kind: &'static str,
    at: &'static str,
    flags: MsFlags,
    options: &'static str,
}

const NO_PROGRAMS: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);
const NO_DEVICES: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);

/// In this order: later ones lie in earlier ones.
const MOUNTS: &[Mount] = &[
    Mount {
        kind: "proc",
        at: "/proc",
        flags: NO_PROGRAMS,
        options: "",
    },
    Mount {
        kind: "sysfs",
        at: "/sys",
        flags: NO_PROGRAMS,
        options: "",
    },
    Mount {
        kind: "devtmpfs",
        at: "/dev",
        flags: MsFlags::MS_NOSUID,
        options: "mode=0755",
    },
    Mount {
        kind: "devpts",
        at: "/dev/pts",
        flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC),
        options: "gid=5,mode=0620,ptmxmode=0666",
    },
    Mount {
        kind: "tmpfs",
        at: "/dev/shm",
        flags: NO_DEVICES,
        options: "mode=1777",
    },
    Mount {
        kind: "tmpfs",
        at: "/run",
        flags: NO_DEVICES,
        options: "mode=0755",
    },
    Mount {
        kind: "cgroup2",
        at: "/sys/fs/cgroup",
        flags: NO_PROGRAMS,
        options: "",
    },
];

/// What the standard descriptors are called in `/dev`.
const LINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

/// Does what pid 1 does, for as long as the guest lives. Returns only when the machine could not even be reset.
pub fn run() -> ExitCode {
    panic::set_hook(Box::new(|info| {
        eprintln!("catnap-guest: {info}");
        reset();
    }));
    umask(Mode::from_bits_truncate(0o022));
    prepare();
    let Err(problem) = live();
    error!(error = %problem, "the agent ended");
    reset();
    ExitCode::FAILURE
}

/// Ends the machine. What was not written to the disk is lost, as with a power cut.
fn reset() {
    match reboot(RebootMode::RB_AUTOBOOT) {
        Ok(never) => match never {},
        Err(errno) => eprintln!("catnap-guest: could not reset the machine: {errno}"),
    }
}

/// Makes the guest what programs expect. A part that fails is told of and lived without: the agent may still answer.
fn prepare() {
    for mount in MOUNTS {
        if let Err(error) = mount.apply() {
            warn!(at = mount.at, %error, "could not mount");
        }
    }
    for (to, name) in LINKS {
        match std::os::unix::fs::symlink(to, name) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                warn!(name, %error, "could not link");
            }
            _ => {}
        }
    }
    if let Err(error) = sys::raise_open_files() {
        warn!(%error, "could not raise the limit of open files");
    }
    if let Err(error) = sys::bring_up_loopback() {
        warn!(%error, "could not bring up lo");
    }
    match fs::read_to_string("/etc/hostname") {
        Ok(name) => {
            if let Err(error) = sethostname(name.trim()) {
                warn!(%error, "could not set the host name");
            }
        }
        Err(error) => warn!(%error, "could not read /etc/hostname"),
    }
}

impl Mount {
    fn apply(&self) -> io::Result<()> {
        match fs::create_dir(Path::new(self.at)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        match mount(
            Some(self.kind),
            self.at,
            Some(self.kind),
            self.flags,
            Some(self.options),
        ) {
            // The kernel may have mounted /dev itself.
            Ok(()) | Err(Errno::EBUSY) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

fn live() -> io::Result<Infallible> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let config = Config {
            disk: Some(PathBuf::from("/")),
            ..Config::default()
        };
        let agent = Agent::start(config, Box::new(LinuxKernel), Reap::All)?;
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, guest_api::envd::AGENT_PORT)).await?;
        let for_guest = serve::tcp(Rc::clone(&agent), listener, Peer::Other);
        tokio::select! {
            () = for_guest => Err(io::Error::other("the TCP listener ended")),
            ended = serve::vsock(agent) => ended,
        }
    })
}
