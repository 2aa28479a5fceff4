//! The thread of one vCPU.
//!
//! The monitor gives orders (run, stop), the thread obeys and says so. A stop returns only when the vCPU is out of
//! `KVM_RUN` with no half-done instruction left: an exit for I/O is completed by KVM on the next entry, so the thread
//! enters once more with `immediate_exit` before it reports itself stopped.

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use kvm_ioctls::VcpuFd;

use super::exits::{Exits, Next};
use crate::sys::kick;

/// A vCPU with its thread. The thread lives as long as the process.
#[derive(Debug)]
pub(crate) struct VcpuThread {
    orders: Arc<Orders>,
    fd: Arc<Mutex<VcpuFd>>,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Orders {
    /// Read by the thread between two entries into the guest.
    run: AtomicBool,
    running: Mutex<bool>,
    changed: Condvar,
}

// === impl VcpuThread ===

impl VcpuThread {
    /// Starts the thread; it waits for orders.
    pub(crate) fn spawn(id: u8, fd: VcpuFd, exits: Arc<Exits>) -> io::Result<Self> {
        let orders = Arc::new(Orders::default());
        let fd = Arc::new(Mutex::new(fd));
        let thread = thread::Builder::new()
            .name(format!("vcpu{id}"))
            .stack_size(256 << 10)
            .spawn({
                let (orders, fd) = (Arc::clone(&orders), Arc::clone(&fd));
                move || obey(&orders, &fd, &exits)
            })?;
        Ok(Self { orders, fd, thread })
    }

    /// The vCPU, to read and set its state while it is stopped. Waits for a running one.
    pub(crate) fn fd(&self) -> MutexGuard<'_, VcpuFd> {
        lock(&self.fd)
    }

    /// Lets it run.
    pub(crate) fn start(&self) {
        let running = lock(&self.orders.running);
        self.orders.run.store(true, Ordering::Release);
        drop(running);
        self.orders.changed.notify_all();
    }

    /// Tells it to stop. [`Self::wait_stopped`] waits for it, so that several stop at the same time.
    pub(crate) fn stop(&self) -> io::Result<()> {
        self.orders.run.store(false, Ordering::Release);
        kick::kick(&self.thread)
    }

    /// Waits until it has stopped.
    pub(crate) fn wait_stopped(&self) {
        let mut running = lock(&self.orders.running);
        while *running {
            running = self
                .orders
                .changed
                .wait(running)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread's whole life.
fn obey(orders: &Orders, fd: &Mutex<VcpuFd>, exits: &Exits) {
    loop {
        let mut running = lock(&orders.running);
        while !orders.run.load(Ordering::Acquire) {
            running = orders
                .changed
                .wait(running)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *running = true;
        drop(running);

        kick::with_kicks(&mut lock(fd), |fd| run(fd, orders, exits));

        *lock(&orders.running) = false;
        orders.changed.notify_all();
    }
}

/// Runs the guest until the orders change.
fn run(fd: &mut VcpuFd, orders: &Orders, exits: &Exits) {
    loop {
        if !orders.run.load(Ordering::Acquire) {
            return settle(fd, exits);
        }
        match exits.handle(fd) {
            Next::Again => {}
            // A kick: look at the orders again.
            Next::Interrupted => fd.set_kvm_immediate_exit(0),
            Next::Wait => orders.run.store(false, Ordering::Release),
        }
    }
}

/// Lets KVM complete the last exit's instruction without running another.
fn settle(fd: &mut VcpuFd, exits: &Exits) {
    loop {
        fd.set_kvm_immediate_exit(1);
        if matches!(exits.handle(fd), Next::Interrupted) {
            fd.set_kvm_immediate_exit(0);
            return;
        }
    }
}
