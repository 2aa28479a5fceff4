use std::time::{Duration, SystemTime};

use pool_api::{Epoch, Resources, SandboxState, SnapshotScope};
use snapshotter::Store;

use super::*;

fn info(state: SandboxState) -> SandboxInfo {
    SandboxInfo {
        id: "a".parse().unwrap(),
        template: "base".parse().unwrap(),
        state,
        epoch: Epoch(3),
        started_at: SystemTime::UNIX_EPOCH,
        since: SystemTime::UNIX_EPOCH,
        resources: Resources {
            vcpus: 1,
            memory: 1,
            disk: 1,
        },
        snapshot: Some("0".repeat(64).parse().unwrap()),
        scope: SnapshotScope::DiskOnly,
        last_error: None,
    }
}

fn replies() -> Replies {
    Replies::new(Instant::now())
}

/// Replies to a call of `enter` behind a shut gate.
fn enter(replies: &mut Replies, outcome: Reply<Pin>, state: SandboxState) -> EnterError {
    let (reply, mut received) = oneshot::channel();
    let asked = Instant::now();
    let waiter = replies.add(Pending::Enter { asked, reply });
    let info = info(state);
    let context = Context {
        info: &info,
        grant: &|| None,
    };
    replies.send(waiter, outcome, &context);
    received.try_recv().unwrap().unwrap_err()
}

/// Replies to a call of `pause`.
fn pause(replies: &mut Replies, outcome: Reply<Pin>) -> Result<TakenSnapshot, PauseError> {
    let (reply, mut received) = oneshot::channel();
    let waiter = replies.add(Pending::Pause(reply));
    let info = info(SandboxState::Paused);
    let context = Context {
        info: &info,
        grant: &|| None,
    };
    replies.send(waiter, outcome, &context);
    received.try_recv().unwrap()
}

#[test]
fn enter_replies_carry_the_reason() {
    let mut replies = replies();
    let paused = enter(&mut replies, Reply::NotWoken, SandboxState::Paused);
    assert!(matches!(paused, EnterError::Paused(_)));
    let gone = enter(&mut replies, Reply::Gone, SandboxState::Stopping);
    assert!(matches!(gone, EnterError::NotFound(_)));
    for outcome in [Reply::Conflict(SandboxState::Stopping), Reply::Running] {
        let error = enter(&mut replies, outcome, SandboxState::Stopping);
        let state = SandboxState::Stopping;
        assert!(matches!(error, EnterError::Transitioning { state: found, .. } if found == state));
    }
}

#[test]
fn failed_starts_report_the_last_failure() {
    let mut replies = replies();
    let text = |error: EnterError| error_chain::chain(&error).to_string();
    let error = enter(&mut replies, Reply::StartFailed, SandboxState::Paused);
    assert_eq!(text(error), "failed to wake sandbox a: unknown error");
    replies.set_failure(LastFailure::MachineEnded(Exit::Guest));
    let error = enter(&mut replies, Reply::StartFailed, SandboxState::Paused);
    assert!(text(error).starts_with("failed to wake sandbox a: the machine ended: "));
    let full = StartError::NoRoom(NoRoom("memory".to_owned()));
    replies.set_failure(LastFailure::of_start(full));
    let error = enter(&mut replies, Reply::StartFailed, SandboxState::Paused);
    assert!(matches!(error, EnterError::NoRoom { diagnostic } if diagnostic == "memory"));
    let last = replies.last_failure().unwrap();
    assert_eq!(last, "no room on this host: memory");
}

#[test]
fn pause_replies_carry_the_snapshot() {
    let mut replies = replies();
    let taken = pause(&mut replies, Reply::Paused).unwrap();
    assert_eq!(taken.scope, SnapshotScope::DiskOnly);
    match pause(&mut replies, Reply::AlreadyPaused) {
        Err(PauseError::AlreadyPaused { epoch, scope, .. }) => {
            assert_eq!((epoch, scope), (Epoch(3), SnapshotScope::DiskOnly));
        }
        other => panic!("{other:?}"),
    }
    let failed = pause(&mut replies, Reply::SnapshotFailed);
    assert!(matches!(failed, Err(PauseError::Failed { .. })));
}

#[test]
fn capture_failure_is_reported_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let pin = store.pin(&"0".repeat(64).parse().unwrap());
    let mut replies = replies();
    assert!(replies.captured(Reply::Captured(pin)).is_ok());
    replies.set_capture_failure(SharedError::new(Unknown));
    let failed = replies.captured(Reply::CaptureFailed);
    assert!(matches!(failed, Err(CaptureRejected::Failed(_))));
    assert!(replies.capture_failure.is_none());
    assert_eq!(replies.last_failure(), None);
}

#[test]
fn report_is_for_callers_that_waited() {
    let mut replies = replies();
    let asked = Instant::now();
    replies.start_began(asked + Duration::from_millis(5));
    replies.start_succeeded(WakeReport {
        start: Start::Restore,
        stages: vec![(Stage::Load, Duration::from_millis(2))],
    });
    replies.gate_opened(asked + Duration::from_millis(9));
    let report = replies.report_for(asked).unwrap();
    let queue = (Stage::Queue, Duration::from_millis(5));
    let load = (Stage::Load, Duration::from_millis(2));
    assert_eq!(
        (report.start, report.stages),
        (Start::Restore, vec![queue, load])
    );
    let later = asked + Duration::from_millis(10);
    assert!(replies.report_for(later).is_none());
    assert_eq!(replies.start_report().stages, [load], "no caller waited");
}

#[test]
fn event_report_has_the_first_callers_queue_time() {
    let mut replies = replies();
    let asked = Instant::now();
    for wait in [3, 0] {
        let (reply, _) = oneshot::channel();
        let asked = asked + Duration::from_millis(wait);
        replies.add(Pending::Enter { asked, reply });
    }
    replies.start_began(asked + Duration::from_millis(5));
    replies.gate_opened(asked + Duration::from_millis(9));
    let queue = (Stage::Queue, Duration::from_millis(5));
    assert_eq!(replies.start_report().stages, [queue]);
}

#[test]
fn caller_gets_one_reply() {
    let mut replies = replies();
    let (reply, mut received) = oneshot::channel();
    let waiter = replies.add(Pending::Kill(reply));
    let info = info(SandboxState::Stopping);
    let context = Context {
        info: &info,
        grant: &|| None,
    };
    for _ in 0..2 {
        replies.send(waiter, Reply::Gone, &context);
    }
    assert!(received.try_recv().is_ok());
    assert!(replies.pending.is_empty());
}
