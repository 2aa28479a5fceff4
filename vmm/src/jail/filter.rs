//! Filters of system calls: one for the monitor's thread, one for vCPU threads.
//!
//! A filter is on before guest state is loaded. No other call is possible: it ends the process (SIGSYS). None opens a
//! file, creates a socket or starts a thread or a program. Memory is never executable.

use std::{collections::BTreeMap, io, process, sync::Arc};

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use super::ioctl;

/// Calls of every thread: memory, synchronisation, files and sockets that are open, the end of the process.
const EVERY_THREAD: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_epoll_ctl,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    // The end of a thread.
    libc::SYS_sigaltstack,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Calls of the monitor's thread alone: requests of the host, new streams, files that requests attach.
const MONITOR_THREAD: &[libc::c_long] = &[
    libc::SYS_accept4,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd2,
    libc::SYS_lseek,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_recvmsg,
];

/// The filters of a monitor.
#[derive(Debug)]
pub(crate) struct Filters {
    pub(crate) monitor: Filter,
    pub(crate) vcpu: Filter,
}

/// A compiled filter.
#[derive(Debug, Clone)]
pub(crate) struct Filter(Arc<BpfProgram>);

/// Failure to compile a filter.
#[derive(Debug, thiserror::Error)]
#[error("failed to compile the filter of system calls")]
pub(crate) struct FilterError(#[from] BackendError);

impl Filters {
    /// Compiles the filters for this process.
    pub(crate) fn new() -> Result<Self, FilterError> {
        let mut vcpu = Rules::default();
        vcpu.every_thread()?;
        vcpu.ioctls(ioctl::VCPU)?;
        let mut monitor = Rules::default();
        monitor.every_thread()?;
        monitor.allow(MONITOR_THREAD);
        monitor.ioctls(ioctl::MONITOR)?;
        Ok(Self {
            monitor: monitor.compile()?,
            vcpu: vcpu.compile()?,
        })
    }
}

impl Filter {
    /// Puts the calling thread under the filter, for ever.
    pub(crate) fn apply(&self) -> io::Result<()> {
        seccompiler::apply_filter(&self.0).map_err(io::Error::other)
    }
}

/// Conditions of each allowed call.
#[derive(Debug, Default)]
struct Rules(BTreeMap<i64, Vec<SeccompRule>>);

impl Rules {
    fn every_thread(&mut self) -> Result<(), BackendError> {
        self.allow(EVERY_THREAD);
        let executable = masked(libc::PROT_EXEC.unsigned_abs().into());
        self.allow_if(libc::SYS_mmap, 2, executable.clone(), 0)?;
        self.allow_if(libc::SYS_mprotect, 2, executable, 0)?;
        let dont_need = libc::MADV_DONTNEED.unsigned_abs().into();
        self.allow_if(libc::SYS_madvise, 2, SeccompCmpOp::Eq, dont_need)?;
        // Kicks of vCPU threads, and aborting.
        self.allow_if(libc::SYS_tgkill, 0, SeccompCmpOp::Eq, process::id().into())?;
        // The standard library duplicates descriptors, and with debug assertions checks them before it closes them.
        for command in [libc::F_DUPFD_CLOEXEC, libc::F_GETFD] {
            let command = command.unsigned_abs().into();
            self.allow_if(libc::SYS_fcntl, 1, SeccompCmpOp::Eq, command)?;
        }
        // The metadata of a descriptor, not of a path.
        let empty_path: u64 = libc::AT_EMPTY_PATH.unsigned_abs().into();
        self.allow_if(libc::SYS_statx, 2, masked(empty_path), empty_path)
    }

    fn ioctls(&mut self, requests: &[u32]) -> Result<(), BackendError> {
        for &request in requests {
            self.allow_if(libc::SYS_ioctl, 1, SeccompCmpOp::Eq, request.into())?;
        }
        Ok(())
    }

    fn allow(&mut self, calls: &[libc::c_long]) {
        for &call in calls {
            self.0.insert(call, Vec::new());
        }
    }

    /// Allows a call if an argument's low 32 bits compare with `value`.
    fn allow_if(
        &mut self,
        call: libc::c_long,
        argument: u8,
        comparison: SeccompCmpOp,
        value: u64,
    ) -> Result<(), BackendError> {
        let condition =
            SeccompCondition::new(argument, SeccompCmpArgLen::Dword, comparison, value)?;
        let rule = SeccompRule::new(vec![condition])?;
        self.0.entry(call).or_default().push(rule);
        Ok(())
    }

    fn compile(self) -> Result<Filter, BackendError> {
        let filter = SeccompFilter::new(
            self.0,
            SeccompAction::KillProcess,
            SeccompAction::Allow,
            TargetArch::x86_64,
        )?;
        Ok(Filter(Arc::new(BpfProgram::try_from(filter)?)))
    }
}

fn masked(mask: u64) -> SeccompCmpOp {
    SeccompCmpOp::MaskedEq(mask)
}
