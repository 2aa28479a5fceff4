//! Rows of `Machine::{resume, pause, dial}`.

use std::{future::Future, pin::pin, task::Poll};

use super::{
    files::{Snapshot, is_paused},
    harness::{Guest, Harness, Kernel},
};
use crate::DialError;

pub(super) async fn resume_of_a_running_machine_has_no_effect(harness: &dyn Harness) {
    let mut guest = Guest::paused(harness).await;
    assert_eq!(guest.step().await, 0);
    guest.machine.resume().await.unwrap();
    assert!(!is_paused(&*guest.machine).await);
    guest.machine.pause().await.unwrap();
    assert_eq!(guest.step().await, 1);
}

pub(super) async fn pause_of_a_paused_machine_has_no_effect(harness: &dyn Harness) {
    let mut guest = Guest::paused(harness).await;
    guest.machine.pause().await.unwrap();
    assert!(is_paused(&*guest.machine).await);
    assert_eq!(guest.step().await, 0);
}

pub(super) async fn dropped_call_does_not_affect_a_later_result(harness: &dyn Harness) {
    let guest = Guest::paused(harness).await;
    // The capture's request is sent and its future dropped, before or after the reply.
    drop(poll_once(Snapshot::take(&*guest.machine, 0)).await);
    guest.machine.pause().await.unwrap();
    assert!(is_paused(&*guest.machine).await);
    let snapshot = Snapshot::take(&*guest.machine, 0).await.unwrap();
    assert!(snapshot.captured.image_len > 0);
}

pub(super) async fn dial_opens_a_stream_to_an_open_port(harness: &dyn Harness) {
    let guest = Guest::boot(harness, Kernel::Counting, Vec::new()).await;
    guest.machine.dial(harness.vsock_ports().0).await.unwrap();
}

pub(super) async fn dial_of_a_closed_port_is_closed(harness: &dyn Harness) {
    let guest = Guest::boot(harness, Kernel::Counting, Vec::new()).await;
    let (_, port) = harness.vsock_ports();
    let closed = guest.machine.dial(port).await;
    assert!(
        matches!(closed, Err(DialError::Closed(closed)) if closed == port),
        "{closed:?}"
    );
}

pub(super) async fn dial_waits_while_paused(harness: &dyn Harness) {
    let guest = Guest::paused(harness).await;
    let mut dial = pin!(guest.machine.dial(harness.vsock_ports().0));
    assert!(poll_once(&mut dial).await.is_pending());
    guest.machine.resume().await.unwrap();
    dial.await.unwrap();
}

/// Polls a future once.
async fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}
