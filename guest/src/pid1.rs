//! Runs the agent as pid 1.
//!
//! The kernel has mounted the root disk and started this program. Fatal errors and panics are written to the console and
//! reset the machine, because the host cannot detect the cause of a hang.

use std::{
    convert::Infallible,
    fs, io,
    net::Ipv4Addr,
    panic,
    path::{Path, PathBuf},
    process::ExitCode,
    rc::Rc,
};

use error_chain::chain;
use guest_api::envd;
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

use crate::{
    process::Reap,
    router::Peer,
    serve,
    state::{AgentState, Config},
    sys::{self, LinuxKernel},
};

/// A file system to mount.
struct Mount {
    fs_type: &'static str,
    target: &'static str,
    flags: MsFlags,
    options: &'static str,
}

const NOEXEC: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);
const NODEV: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);

/// In mount order: some targets lie on earlier mounts.
const MOUNTS: &[Mount] = &[
    Mount {
        fs_type: "proc",
        target: "/proc",
        flags: NOEXEC,
        options: "",
    },
    Mount {
        fs_type: "sysfs",
        target: "/sys",
        flags: NOEXEC,
        options: "",
    },
    Mount {
        fs_type: "devtmpfs",
        target: "/dev",
        flags: MsFlags::MS_NOSUID,
        options: "mode=0755",
    },
    Mount {
        fs_type: "devpts",
        target: "/dev/pts",
        flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC),
        options: "gid=5,mode=0620,ptmxmode=0666",
    },
    Mount {
        fs_type: "tmpfs",
        target: "/dev/shm",
        flags: NODEV,
        options: "mode=1777",
    },
    Mount {
        fs_type: "tmpfs",
        target: "/run",
        flags: NODEV,
        options: "mode=0755",
    },
    Mount {
        fs_type: "cgroup2",
        target: "/sys/fs/cgroup",
        flags: NOEXEC,
        options: "",
    },
];

/// Links to the standard descriptors: target and path.
const DEV_LINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

/// Sets up the guest and runs the agent. Returns only if the machine cannot be reset after an error.
pub fn run() -> ExitCode {
    panic::set_hook(Box::new(|info| {
        eprintln!("catnap-guest: {info}");
        reset();
    }));
    umask(Mode::from_bits_truncate(0o022));
    set_up();
    let Err(error) = serve_agent();
    error!(error = %chain(&error), "agent failed");
    reset();
    ExitCode::FAILURE
}

/// Resets the machine. Unsynced writes are lost, as in a power failure.
fn reset() {
    match reboot(RebootMode::RB_AUTOBOOT) {
        Ok(never) => match never {},
        Err(errno) => eprintln!("catnap-guest: failed to reset the machine: {errno}"),
    }
}

/// Sets up mounts, links, limits, network and host name. Errors are logged only: the agent may work without them.
fn set_up() {
    for mount in MOUNTS {
        if let Err(error) = mount.apply() {
            warn!(path = mount.target, error = %chain(&error), "failed to mount file system");
        }
    }
    for (target, path) in DEV_LINKS {
        match std::os::unix::fs::symlink(target, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                warn!(path, error = %chain(&error), "failed to create link");
            }
            _ => {}
        }
    }
    if let Err(error) = sys::raise_limit() {
        warn!(error = %chain(&error), "failed to raise open file limit");
    }
    if let Err(error) = sys::bring_up_loopback() {
        warn!(error = %chain(&error), "failed to bring up lo");
    }
    match fs::read_to_string("/etc/hostname") {
        Ok(name) => {
            if let Err(error) = sethostname(name.trim()) {
                warn!(error = %chain(&error), "failed to set host name");
            }
        }
        Err(error) => warn!(error = %chain(&error), "failed to read /etc/hostname"),
    }
}

impl Mount {
    fn apply(&self) -> io::Result<()> {
        match fs::create_dir(Path::new(self.target)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        match mount(
            Some(self.fs_type),
            self.target,
            Some(self.fs_type),
            self.flags,
            Some(self.options),
        ) {
            // EBUSY: the kernel may have mounted /dev itself.
            Ok(()) | Err(Errno::EBUSY) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

fn serve_agent() -> io::Result<Infallible> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let config = Config {
            disk: Some(PathBuf::from("/")),
            ..Config::default()
        };
        let state = AgentState::start(config, Box::new(LinuxKernel), Reap::All)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, envd::AGENT_PORT)).await?;
        let tcp = serve::tcp(Rc::clone(&state), listener, Peer::Other);
        tokio::select! {
            () = tcp => Err(io::Error::other("the TCP listener ended")),
            result = serve::vsock(state) => result,
        }
    })
}
