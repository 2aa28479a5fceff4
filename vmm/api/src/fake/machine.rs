//! Handle of a machine of the fake.

use std::{io, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{net::UnixStream, sync::watch};

use super::{
    controls::{Fault, released},
    guest,
    instance::{Instance, RunState},
};
use crate::{
    CaptureError, CaptureSpec, Captured, DialError, Exit, LoadReport, Machine, MachineError,
    NextLayers,
};

/// Handle of a machine.
#[derive(Debug)]
pub(super) struct FakeMachine {
    instance: Arc<Instance>,
    load_report: Option<LoadReport>,
}

impl FakeMachine {
    pub(super) fn new(instance: Arc<Instance>, load_report: Option<LoadReport>) -> Self {
        Self {
            instance,
            load_report,
        }
    }
}

/// The report of every load.
pub(super) fn load_report() -> LoadReport {
    let tick = Duration::from_micros(1);
    LoadReport {
        image: tick,
        memory: tick,
        prefetch: Duration::ZERO,
        state: tick,
    }
}

#[async_trait]
impl Machine for FakeMachine {
    async fn resume(&self) -> Result<(), MachineError> {
        self.instance.check()?;
        if self.instance.controls.take_fault(Fault::Resume) {
            return Err(MachineError::Refused("injected fault".to_owned()));
        }
        self.instance.run_state.send_replace(RunState::Running);
        Ok(())
    }

    async fn pause(&self) -> Result<(), MachineError> {
        self.instance.check()?;
        self.instance.run_state.send_replace(RunState::Paused);
        Ok(())
    }

    async fn capture(&self, spec: CaptureSpec) -> Result<Captured, CaptureError> {
        let controls = &self.instance.controls;
        controls.captures.send_modify(|begun| *begun += 1);
        self.instance
            .unless_ended(released(&controls.captures_held))
            .await;
        self.instance.check().map_err(CaptureError::Lost)?;
        if *self.instance.run_state.borrow() == RunState::Running {
            return Err(CaptureError::Refused("the machine is running".to_owned()));
        }
        assert!(
            !controls.take_fault(Fault::CapturePanic),
            "injected panic of a capture"
        );
        if controls.take_fault(Fault::Space) {
            return Err(CaptureError::NoSpace);
        }
        if controls.take_fault(Fault::Capture) {
            return Err(CaptureError::Refused("injected fault".to_owned()));
        }
        let guest = self.instance.guest.lock();
        if spec.disk_bitmaps.len() != guest.disk_count() {
            return Err(CaptureError::Refused(
                "the number of bitmaps is not that of the disks".to_owned(),
            ));
        }
        guest.capture(spec).map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => CaptureError::NoSpace,
            _ => CaptureError::Refused(error.to_string()),
        })
    }

    async fn advance(&self, disks: Vec<NextLayers>) -> Result<(), MachineError> {
        self.instance.check()?;
        let refused = |reason: &str| Err(MachineError::Refused(reason.to_owned()));
        if *self.instance.run_state.borrow() == RunState::Running {
            return refused("the machine is running");
        }
        if self.instance.controls.take_fault(Fault::Advance) {
            return refused("injected fault");
        }
        let mut guest = self.instance.guest.lock();
        if disks.len() != guest.disk_count() {
            return refused("the number of top layers is not that of the disks");
        }
        guest
            .advance(disks)
            .map_err(|error| MachineError::Refused(error.to_string()))
    }

    async fn dial(&self, port: u32) -> Result<UnixStream, DialError> {
        self.instance.unless_ended(self.instance.runs()).await;
        if self.instance.check().is_err() {
            return Err(DialError::Io(io::ErrorKind::ConnectionRefused.into()));
        }
        if !guest::listens_on(port) {
            return Err(DialError::Closed(port));
        }
        let (host, stream) = UnixStream::pair().map_err(DialError::Io)?;
        let instance = Arc::clone(&self.instance);
        tokio::spawn(async move {
            let served = Arc::clone(&instance);
            instance
                .unless_ended(guest::serve(served, port, stream))
                .await;
        });
        Ok(host)
    }

    async fn kill(&self) {
        self.instance.end(Exit::Killed);
    }

    fn exit(&self) -> watch::Receiver<Option<Exit>> {
        self.instance.exit.subscribe()
    }

    fn load_report(&self) -> Option<LoadReport> {
        self.load_report
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }
}

impl Drop for FakeMachine {
    fn drop(&mut self) {
        self.instance.end(Exit::Killed);
    }
}
