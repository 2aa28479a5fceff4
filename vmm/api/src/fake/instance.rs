//! A machine of the fake, as its streams and its handle share it.

use std::{
    future::Future,
    sync::{Arc, atomic::Ordering},
};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{controls::Controls, state::GuestState};
use crate::{Exit, MachineError};

/// Execution state of the vCPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunState {
    Running,
    Paused,
}

/// A machine, shared by its handle and its streams.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) controls: Arc<Controls>,
    pub(super) guest: Mutex<GuestState>,
    pub(super) run_state: watch::Sender<RunState>,
    pub(super) exit: watch::Sender<Option<Exit>>,
}

impl Instance {
    /// Starts a machine, which also ends with [`Controls::crash`].
    pub(super) fn start(
        guest: GuestState,
        run_state: RunState,
        controls: Arc<Controls>,
    ) -> Arc<Self> {
        controls.live.fetch_add(1, Ordering::SeqCst);
        let mut crash = controls.crash.subscribe();
        let instance = Arc::new(Self {
            controls,
            guest: Mutex::new(guest),
            run_state: watch::Sender::new(run_state),
            exit: watch::Sender::new(None),
        });
        let watched = Arc::clone(&instance);
        tokio::spawn(async move {
            tokio::select! {
                changed = crash.changed() => if changed.is_ok() { watched.end(died()) },
                () = watched.ended() => {}
            }
        });
        instance
    }

    /// Waits until the vCPUs run.
    pub(super) async fn runs(&self) {
        // `self` owns the sender, so waiting cannot fail.
        let _ = self
            .run_state
            .subscribe()
            .wait_for(|state| *state == RunState::Running)
            .await;
    }

    /// Ends the machine; the first reason counts.
    pub(super) fn end(&self, exit: Exit) {
        self.exit.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                *current = Some(exit);
                self.controls.live.fetch_sub(1, Ordering::SeqCst);
            }
            first
        });
    }

    /// Fails if the machine has ended.
    pub(super) fn check(&self) -> Result<(), MachineError> {
        match self.exit.borrow().clone() {
            Some(exit) => Err(MachineError::Gone(exit)),
            None => Ok(()),
        }
    }

    /// Waits until the machine has ended.
    pub(super) async fn ended(&self) {
        // `self` owns the sender, so waiting cannot fail.
        let _ = self.exit.subscribe().wait_for(Option::is_some).await;
    }

    /// Waits for `event` or for the end of the machine.
    pub(super) async fn unless_ended(&self, event: impl Future<Output = ()>) {
        tokio::select! {
            () = event => {}
            () = self.ended() => {}
        }
    }
}

/// The reason for a process that was killed from outside.
pub(super) fn died() -> Exit {
    Exit::Died("signal 9".to_owned())
}
