//! Thread of one vCPU.
//!
//! The monitor sets the run control (run, stop); the thread follows it and publishes whether it runs. A stop completes
//! only once the vCPU is out of `KVM_RUN` with no partially executed instruction: KVM completes an I/O exit on the next
//! entry, so the thread enters once more with `immediate_exit` before it publishes that it has stopped.

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
};

use kvm_ioctls::VcpuFd;

use super::exits::{AfterExit, ExitHandler};
use crate::{jail::filter::Filter, sys::kick};

/// A vCPU and its thread, which runs until the process exits.
#[derive(Debug)]
pub(crate) struct VcpuThread {
    control: Arc<RunControl>,
    fd: Arc<Mutex<VcpuFd>>,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct RunControl {
    /// Requested state: `true` if the vCPU should run. The thread reads it before each entry into the guest.
    run: AtomicBool,
    exits: OnceLock<Arc<ExitHandler>>,
    running: Mutex<bool>,
    changed: Condvar,
}

// === impl VcpuThread ===

impl VcpuThread {
    /// Starts the thread, with the vCPU stopped, and waits until it is under its filter.
    pub(crate) fn spawn(id: u8, fd: VcpuFd, filter: Option<Filter>) -> io::Result<Self> {
        let control = Arc::new(RunControl::default());
        let fd = Arc::new(Mutex::new(fd));
        let (ready, is_ready) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name(format!("vcpu{id}"))
            .stack_size(256 << 10)
            .spawn({
                let (control, fd) = (Arc::clone(&control), Arc::clone(&fd));
                move || {
                    let applied = filter.map_or(Ok(()), |filter| filter.apply());
                    let failed = applied.is_err();
                    if ready.send(applied).is_err() || failed {
                        return;
                    }
                    thread_main(&control, &fd);
                }
            })?;
        is_ready.recv().map_err(io::Error::other)??;
        Ok(Self {
            control,
            fd,
            thread,
        })
    }

    /// Attaches the handler of the vCPU's exits, once, before the first start.
    pub(crate) fn attach(&self, exits: Arc<ExitHandler>) {
        // A machine is assembled once from a VM.
        self.control.exits.get_or_init(|| exits);
    }

    /// Locks the vCPU to access its state. Waits until it is stopped.
    pub(crate) fn fd(&self) -> MutexGuard<'_, VcpuFd> {
        lock(&self.fd)
    }

    /// Runs the vCPU.
    pub(crate) fn start(&self) {
        let running = lock(&self.control.running);
        self.control.run.store(true, Ordering::Release);
        drop(running);
        self.control.changed.notify_all();
    }

    /// Requests a stop. [`Self::wait_stopped`] waits for it, so that all vCPUs stop concurrently.
    pub(crate) fn stop(&self) -> io::Result<()> {
        self.control.run.store(false, Ordering::Release);
        kick::kick(&self.thread)
    }

    /// Waits until the vCPU has stopped.
    pub(crate) fn wait_stopped(&self) {
        let mut running = lock(&self.control.running);
        while *running {
            running = self
                .control
                .changed
                .wait(running)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Alternates between running the vCPU and waiting for the next start.
fn thread_main(control: &RunControl, fd: &Mutex<VcpuFd>) {
    loop {
        let mut running = lock(&control.running);
        let exits = loop {
            match control.exits.get() {
                Some(exits) if control.run.load(Ordering::Acquire) => break exits,
                _ => {
                    running = control
                        .changed
                        .wait(running)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        };
        *running = true;
        drop(running);

        kick::with_kicks(&mut lock(fd), |fd| run(fd, control, exits));

        *lock(&control.running) = false;
        control.changed.notify_all();
    }
}

/// Runs the guest until a stop is requested.
fn run(fd: &mut VcpuFd, control: &RunControl, exits: &ExitHandler) {
    loop {
        if !control.run.load(Ordering::Acquire) {
            return complete_pending_io(fd, exits);
        }
        match exits.run_once(fd) {
            AfterExit::Reenter => {}
            AfterExit::CheckControl => fd.set_kvm_immediate_exit(0),
            AfterExit::Stop => control.run.store(false, Ordering::Release),
        }
    }
}

/// Enters KVM with `immediate_exit`, so that it completes the instruction of the last exit without running another.
fn complete_pending_io(fd: &mut VcpuFd, exits: &ExitHandler) {
    loop {
        fd.set_kvm_immediate_exit(1);
        if matches!(exits.run_once(fd), AfterExit::CheckControl) {
            fd.set_kvm_immediate_exit(0);
            return;
        }
    }
}
