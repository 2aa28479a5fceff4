//! Getting a vCPU thread out of `KVM_RUN`.
//!
//! The kick signal's handler sets `immediate_exit` in the running vCPU's shared page, so that a kick which arrives
//! between the thread's last look at its control and `KVM_RUN` is not lost: `KVM_RUN` then returns at once.

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
    // SAFETY: `run` was set by this thread from a live vCPU's mapping and is cleared before that ends; the field lies
    // inside it.
    let field = unsafe { addr_of_mut!((*run).immediate_exit) };
    // SAFETY: `field` is valid for writes (above); it is a byte the kernel reads, hence volatile.
    unsafe { field.write_volatile(1) };
}

/// Installs the handler for the whole process. Call it once, before the first vCPU thread.
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

/// Runs `body` on this thread with kicks aimed at `vcpu`.
pub(crate) fn with_kicks<T>(vcpu: &mut VcpuFd, body: impl FnOnce(&mut VcpuFd) -> T) -> T {
    RUNNING.set(ptr::from_mut(vcpu.get_kvm_run()));
    let result = body(vcpu);
    RUNNING.set(ptr::null_mut());
    result
}

/// Kicks a vCPU thread that has not been joined.
pub(crate) fn kick<T>(thread: &JoinHandle<T>) -> io::Result<()> {
    // SAFETY: the thread has not been joined (the handle is still here), so its pthread_t is valid.
    match unsafe { libc::pthread_kill(thread.as_pthread_t() as libc::pthread_t, signal()) } {
        0 => Ok(()),
        // It has ended by itself.
        libc::ESRCH => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}
