//! The gate of a sandbox: one atomic number that every lease passes.
//!
//! The top bit means *shut*, the rest counts passes. Entering a running sandbox is one compare-and-swap without a call to
//! the driver. Pausing an idle sandbox swaps "open, no passes" for "shut", so a pass and an idle pause never coexist.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

const SHUT: u64 = 1 << 63;

/// The gate of one sandbox. It is shut at first.
#[derive(Debug)]
pub(crate) struct Gate {
    state: AtomicU64,
    /// Notified when the last pass is dropped.
    emptied: Notify,
    /// The time of that, in nanoseconds since `created`.
    emptied_at: AtomicU64,
    created: Instant,
}

/// The right to use the sandbox. An idle pause waits until it is dropped.
#[derive(Debug)]
#[must_use = "the sandbox may be paused as soon as the pass is dropped"]
pub(crate) struct Pass(Arc<Gate>);

// === impl Gate ===

impl Gate {
    pub(crate) fn new() -> Self {
        Self {
            state: AtomicU64::new(SHUT),
            emptied: Notify::new(),
            emptied_at: AtomicU64::new(0),
            created: Instant::now(),
        }
    }

    /// Issues a pass; `None` when the gate is shut.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Pass> {
        let one_more = |state: u64| (state & SHUT == 0).then_some(state + 1);
        let entered = self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        entered.ok().map(|_| Pass(Arc::clone(self)))
    }

    /// Opens the gate and starts the idle clock.
    pub(crate) fn open(&self) {
        self.mark_empty();
        self.state.fetch_and(!SHUT, Ordering::AcqRel);
    }

    /// Shuts the gate. Passes stay valid.
    pub(crate) fn shut(&self) {
        self.state.fetch_or(SHUT, Ordering::AcqRel);
    }

    /// Shuts an open gate without passes; returns whether it did.
    pub(crate) fn shut_if_idle(&self) -> bool {
        self.state
            .compare_exchange(0, SHUT, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Returns whether there are no passes.
    pub(crate) fn is_empty(&self) -> bool {
        self.state.load(Ordering::Acquire) & !SHUT == 0
    }

    /// Completes when there are no passes.
    pub(crate) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// Returns the time since which there have been no passes; meaningless while there are some.
    pub(crate) fn empty_since(&self) -> Instant {
        self.created + Duration::from_nanos(self.emptied_at.load(Ordering::Acquire))
    }

    fn mark_empty(&self) {
        let now = u64::try_from(self.created.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.emptied_at.store(now, Ordering::Release);
    }
}

// === impl Pass ===

impl Drop for Pass {
    fn drop(&mut self) {
        // Before the count falls, so that a reader of zero sees the time.
        self.0.mark_empty();
        let before = self.0.state.fetch_sub(1, Ordering::AcqRel);
        if before & !SHUT == 1 {
            self.0.emptied.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shut_gate_issues_no_pass() {
        let gate = Arc::new(Gate::new());
        assert!(gate.enter().is_none());
        gate.open();
        let pass = gate.enter().unwrap();
        assert!(!gate.shut_if_idle());
        gate.shut();
        assert!(gate.enter().is_none() && !gate.is_empty());
        drop(pass);
        assert!(gate.is_empty() && gate.enter().is_none());
        gate.open();
        assert!(gate.shut_if_idle());
    }

    /// Threads take and drop passes while another shuts the gate whenever it is idle.
    #[test]
    fn idle_shut_and_pass_never_coexist() {
        let gate = Arc::new(Gate::new());
        gate.open();
        let (idle, done) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !done.load(Ordering::SeqCst) {
                        if let Some(pass) = gate.enter() {
                            assert!(!idle.load(Ordering::SeqCst), "a pass through an idle gate");
                            drop(pass);
                        }
                    }
                });
            }
            let mut shut = 0;
            while shut < 5_000 {
                if gate.shut_if_idle() {
                    idle.store(true, Ordering::SeqCst);
                    assert!(gate.is_empty());
                    idle.store(false, Ordering::SeqCst);
                    gate.open();
                    shut += 1;
                }
                std::thread::yield_now();
            }
            done.store(true, Ordering::SeqCst);
        });
    }

    proptest! {
        #[test]
        fn gate_behaves_as_flag_and_count(moves in proptest::collection::vec(0u8..5, 0..100)) {
            let gate = Arc::new(Gate::new());
            let (mut shut, mut passes) = (true, Vec::new());
            for step in moves {
                match step {
                    0 => { gate.open(); shut = false; }
                    1 => { gate.shut(); shut = true; }
                    2 => {
                        let did = gate.shut_if_idle();
                        prop_assert_eq!(did, !shut && passes.is_empty());
                        shut |= did;
                    }
                    3 => {
                        let pass = gate.enter();
                        prop_assert_eq!(pass.is_some(), !shut);
                        passes.extend(pass);
                    }
                    _ => drop(passes.pop()),
                }
                prop_assert_eq!(gate.is_empty(), passes.is_empty());
            }
        }
    }
}
