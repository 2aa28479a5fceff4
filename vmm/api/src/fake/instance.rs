//! A machine of the fake, as its streams and its handle share it.

use std::{
    future::Future,
    sync::{Arc, atomic::Ordering},
};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{controls::Controls, state::GuestState};
use crate::{Exit, MachineError};

/// A machine, shared by its handle and its streams.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) controls: Arc<Controls>,
    pub(super) guest: Mutex<GuestState>,
    pub(super) running: watch::Sender<bool>,
    pub(super) exit: watch::Sender<Option<Exit>>,
}

impl Instance {
    /// Starts a machine, which also ends with [`Controls::crash`].
    pub(super) fn start(guest: GuestState, running: bool, controls: Arc<Controls>) -> Arc<Self> {
        controls.live.fetch_add(1, Ordering::SeqCst);
        let mut crash = controls.crash.subscribe();
        let instance = Arc::new(Self {
            controls,
            guest: Mutex::new(guest),
            running: watch::Sender::new(running),
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
        let _ = self.running.subscribe().wait_for(|running| *running).await;
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
