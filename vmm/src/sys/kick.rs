//! Kick signal, which interrupts `KVM_RUN` of a vCPU thread.
//!
//! The signal's handler sets `immediate_exit` in the `kvm_run` page of the running vCPU. A kick that arrives after the
//! thread has checked its run control and before it enters `KVM_RUN` is therefore not lost: `KVM_RUN` returns
//! immediately.

use std::{
    cell::Cell,
    io,
    os::unix::thread::JoinHandleExt,
    ptr::{self, addr_of_mut},
    thread::JoinHandle,
};

use kvm_bindings::kvm_run;
use kvm_ioctls::VcpuFd;

thread_local! {
    static RUNNING: Cell<*mut kvm_run> = const { Cell::new(ptr::null_mut()) };
}

fn signal() -> libc::c_int {
    libc::SIGRTMIN()
}

extern "C" fn on_kick(_: libc::c_int) {
    let run = RUNNING.get();
    if run.is_null() {
        return;
    }
    // SAFETY: this thread set `run` to the mapping of a vCPU and clears it before the mapping ends; the field is
    // inside it.
    let field = unsafe { addr_of_mut!((*run).immediate_exit) };
    // SAFETY: `field` is valid for writes (above). The write is volatile because the kernel reads it.
    unsafe { field.write_volatile(1) };
}

/// Installs the signal handler of the process. Call it once, before the first vCPU thread starts.
pub(crate) fn install() -> io::Result<()> {
    // SAFETY: sigaction is plain data for which all zeroes is a valid value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_kick as *const () as libc::sighandler_t;
    // SAFETY: sigaction reads `action`; the handler does only what is async-signal-safe (a thread-local read without
    // initialisation and one store).
    let rc = unsafe { libc::sigaction(signal(), &action, ptr::null_mut()) };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Runs `body` on this thread; kicks of this thread interrupt `vcpu` meanwhile.
pub(crate) fn with_kicks<T>(vcpu: &mut VcpuFd, body: impl FnOnce(&mut VcpuFd) -> T) -> T {
    RUNNING.set(ptr::from_mut(vcpu.get_kvm_run()));
    let result = body(vcpu);
    RUNNING.set(ptr::null_mut());
    result
}

/// Kicks a vCPU thread that has not been joined.
pub(crate) fn kick<T>(thread: &JoinHandle<T>) -> io::Result<()> {
    // SAFETY: the thread has not been joined, because its handle exists, so its pthread_t is valid.
    match unsafe { libc::pthread_kill(thread.as_pthread_t() as libc::pthread_t, signal()) } {
        0 => Ok(()),
        // The thread has ended.
        libc::ESRCH => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}
