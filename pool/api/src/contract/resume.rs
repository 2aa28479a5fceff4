//! Rows of [`crate::Node::resume`].

use crate::{
    EnterError, Epoch, ResumeError, SandboxState, SnapshotScope, Start, StartCause,
    contract::{Bench, Row, expect_err, expect_ok, id, started},
};

const FULL: SnapshotScope = SnapshotScope::Full;
const DISK: SnapshotScope = SnapshotScope::DiskOnly;

pub(super) fn rows<'a>(bench: &'a Bench<'a>) -> Vec<(&'static str, Row<'a>)> {
    vec![
        ("resume_wakes_in_the_next_epoch", Box::pin(wakes(bench))),
        ("disk_only_resume_boots", Box::pin(boots(bench))),
        (
            "pausing_sandbox_is_awaited_and_woken",
            Box::pin(pausing(bench)),
        ),
    ]
}

async fn wakes(bench: &Bench<'_>) {
    bench.create_paused("a", FULL).await;
    let mut events = bench.events();
    let info = expect_ok(bench.node().resume(&id("a"), FULL).await);
    assert_eq!((info.state, info.epoch), (SandboxState::Running, Epoch(2)));
    let event = events.next("a").await;
    assert_eq!(started(&event), (StartCause::Woken, Start::Restore));
    let again = expect_err(bench.node().resume(&id("a"), FULL).await);
    assert!(matches!(again, ResumeError::AlreadyRunning(_)), "{again:?}");
    let missing = expect_err(bench.node().resume(&id("b"), FULL).await);
    assert!(
        matches!(missing, ResumeError::Enter(EnterError::NotFound(_))),
        "{missing:?}"
    );
}

async fn boots(bench: &Bench<'_>) {
    let boot = async |name, saved, scope| {
        bench.create_paused(name, saved).await;
        let mut events = bench.events();
        let info = expect_ok(bench.node().resume(&id(name), scope).await);
        assert_eq!((info.state, info.epoch), (SandboxState::Running, Epoch(2)));
        let event = events.next(name).await;
        assert_eq!(started(&event), (StartCause::Woken, Start::Boot));
    };
    // At once, because a real guest boots slowly.
    futures::join!(boot("a", FULL, DISK), boot("b", DISK, FULL));
}

async fn pausing(bench: &Bench<'_>) {
    let Some(faults) = bench.harness.faults() else {
        return;
    };
    for (name, kept) in [("a", FULL), ("b", DISK)] {
        bench.create(name).await;
        faults.hold_pauses();
        let (node, name_id) = (bench.node(), id(name));
        let mut pause = Box::pin(node.pause(&name_id, Epoch(1), kept));
        assert!(futures::poll!(&mut pause).is_pending());
        faults.wait_for_held_pauses(1).await;
        let mut resume = Box::pin(node.resume(&name_id, FULL));
        assert!(futures::poll!(&mut resume).is_pending());
        faults.release_pauses();
        let (taken, info) = futures::join!(pause, resume);
        assert_eq!(expect_ok(taken).scope, kept);
        let info = expect_ok(info);
        assert_eq!((info.state, info.epoch), (SandboxState::Running, Epoch(2)));
    }
}
