//! Rows of `Machine::{kill, exit}` and of ended machines.

use super::{
    files::{Snapshot, empty, top_layer},
    harness::{Capability, Guest, Harness, Kernel, boot},
};
use crate::{CaptureError, DialError, Exit, MachineError, NextLayers};

pub(super) async fn kill_ends_the_process_and_publishes_killed(harness: &dyn Harness) {
    let guest = Guest::paused(harness).await;
    assert_eq!(*guest.machine.exit().borrow(), None);
    guest.machine.kill().await;
    assert_eq!(*guest.machine.exit().borrow(), Some(Exit::Killed));
    if harness.has(Capability::Process) {
        let pid = guest.machine.pid();
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }
}

pub(super) async fn kill_of_an_ended_machine_has_no_effect(harness: &dyn Harness) {
    let guest = Guest::paused(harness).await;
    harness.crash(&*guest.machine);
    let exit = guest.exit().await;
    guest.machine.kill().await;
    assert_eq!(*guest.machine.exit().borrow(), Some(exit));
}

pub(super) async fn dropped_machine_is_killed(harness: &dyn Harness) {
    let guest = Guest::paused(harness).await;
    let mut exit = guest.machine.exit();
    drop(guest);
    let reason = exit.wait_for(Option::is_some).await.unwrap().clone();
    assert_eq!(reason, Some(Exit::Killed));
}

pub(super) async fn drained_hypervisor_has_no_processes(harness: &dyn Harness) {
    let guest = Guest::paused(harness).await;
    let (blank, _workload) = harness.blank(Kernel::Counting).await;
    let pids = [guest.machine.pid(), blank.pid()];
    drop((guest, blank));
    harness.hypervisor().drained().await;
    for pid in pids {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }
}

pub(super) async fn guest_reset_is_published(harness: &dyn Harness) {
    let (blank, mut workload) = harness.blank(Kernel::Resetting).await;
    let machine = boot(harness, blank, Kernel::Resetting, Vec::new())
        .await
        .unwrap();
    workload.reset(&*machine).await;
    let guest = Guest { machine, workload };
    assert_eq!(guest.exit().await, Exit::Guest);
}

pub(super) async fn dead_process_is_published(harness: &dyn Harness) {
    let guest = Guest::paused(harness).await;
    harness.crash(&*guest.machine);
    let exit = guest.exit().await;
    assert!(matches!(exit, Exit::Died(_)), "{exit:?}");
}

pub(super) async fn calls_on_an_ended_machine_fail(harness: &dyn Harness) {
    let guest = Guest::paused(harness).await;
    guest.machine.kill().await;
    let gone = |result: Result<(), MachineError>| {
        assert!(
            matches!(result, Err(MachineError::Gone(Exit::Killed))),
            "{result:?}"
        );
    };
    gone(guest.machine.resume().await);
    gone(guest.machine.pause().await);
    let next = NextLayers {
        top: top_layer(&empty()),
        sealed: None,
    };
    gone(guest.machine.advance(vec![next]).await);
    match Snapshot::take(&*guest.machine, 0).await {
        Err(CaptureError::Lost(error)) => gone(Err(error)),
        other => panic!("{other:?}"),
    }
    let failed = guest.machine.dial(harness.vsock_ports().0).await;
    assert!(matches!(failed, Err(DialError::Io(_))), "{failed:?}");
}
