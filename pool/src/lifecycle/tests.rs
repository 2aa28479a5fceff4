//! The lifecycle against a model of its effects, and its rows one by one.

mod model;

use pool_api::{Epoch, IfPaused, PauseCause, SandboxState, SnapshotScope, StartCause, StopReason};
use proptest::prelude::*;

use self::model::Model;
use super::{Effect, Input, Lifecycle, Reply, StateChange, Waiter, WakeSource};
use crate::start_plan::StartPlan;

type TestLifecycle = Lifecycle<u32>;

const FULL: SnapshotScope = SnapshotScope::Full;
const DISK: SnapshotScope = SnapshotScope::DiskOnly;

fn source(snapshot: u32, scope: SnapshotScope) -> WakeSource<u32> {
    WakeSource { snapshot, scope }
}

fn scope() -> impl Strategy<Value = SnapshotScope> {
    prop_oneof![3 => Just(FULL), 2 => Just(DISK)]
}

/// Generates an input. Epochs are offsets from the present one; waiters and snapshots are numbered by the model.
fn input() -> impl Strategy<Value = Input<u32>> {
    let if_paused = prop_oneof![3 => Just(IfPaused::Wake), 1 => Just(IfPaused::Fail)];
    let epoch = prop_oneof![3 => Just(Some(0)), 1 => Just(Some(1)), 1 => Just(None)];
    let target = |scope| source(0, scope);
    prop_oneof![
        4 => if_paused.prop_map(|if_paused| Input::Enter { waiter: 0, if_paused }),
        2 => scope().prop_map(|scope| Input::Resume { waiter: 0, scope }),
        4 => (epoch, scope()).prop_map(|(epoch, scope)| Input::Pause {
            waiter: 0,
            epoch: epoch.map(Epoch),
            scope,
            cause: PauseCause::Requested,
        }),
        4 => scope().prop_map(|scope| Input::Capture { waiter: 0, scope }),
        2 => scope().prop_map(move |scope| Input::Rollback { waiter: 0, target: target(scope) }),
        1 => Just(Input::Kill(0)),
        3 => Just(Input::Idle),
        8 => Just(Input::Started),
        2 => Just(Input::StartFailed),
        2 => Just(Input::Exited),
        1 => Just(Input::Damaged),
        6 => Just(Input::Snapshotted(0)),
        2 => Just(Input::SnapshotFailed),
        6 => Just(Input::Captured(0)),
        2 => Just(Input::CaptureFailed),
        1 => Just(Input::TaskPanicked),
        2 => Just(Input::TasksEnded),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn random_inputs_keep_every_invariant(
        paused in proptest::option::of(scope()),
        recorded: bool,
        inputs in proptest::collection::vec(input(), 0..40),
    ) {
        let mut model = match paused {
            Some(scope) => Model::paused(scope),
            None => Model::forked(),
        };
        model.rollbacks_are_recorded = recorded;
        for input in inputs {
            model.take(input);
        }
    }
}

fn run(
    lifecycle: &mut TestLifecycle,
    inputs: impl IntoIterator<Item = Input<u32>>,
) -> Vec<Effect<u32>> {
    inputs
        .into_iter()
        .flat_map(|input| lifecycle.step(input))
        .collect()
}

fn running() -> TestLifecycle {
    let (mut lifecycle, _) = Lifecycle::fork(0, Epoch(1), source(1, FULL));
    run(&mut lifecycle, [Input::Started]);
    lifecycle
}

fn enter(waiter: Waiter) -> Input<u32> {
    let if_paused = IfPaused::Wake;
    Input::Enter { waiter, if_paused }
}

fn pause(waiter: Waiter, epoch: u64, scope: SnapshotScope) -> Input<u32> {
    Input::Pause {
        waiter,
        epoch: Some(Epoch(epoch)),
        scope,
        cause: PauseCause::Requested,
    }
}

#[test]
fn wake_during_pause_resumes_the_machine() {
    let mut lifecycle = running();
    run(&mut lifecycle, [Input::Idle, enter(1)]);
    assert_eq!(
        run(&mut lifecycle, [Input::Snapshotted(2)]),
        [Effect::Resume { after: FULL }, Effect::CollectGarbage]
    );
    assert_eq!(lifecycle.epoch(), Epoch(2));
    assert_eq!(
        run(&mut lifecycle, [Input::Started]),
        [
            Effect::OpenGate,
            Effect::Reply(vec![1], Reply::Running),
            Effect::Notify(StateChange::Started(StartCause::Woken)),
        ]
    );
}

#[test]
fn failed_pause_resumes_in_the_same_epoch() {
    let mut lifecycle = running();
    run(&mut lifecycle, [pause(1, 1, DISK)]);
    assert_eq!(
        run(&mut lifecycle, [Input::SnapshotFailed]),
        [
            Effect::Reply(vec![1], Reply::SnapshotFailed),
            Effect::Resume { after: DISK },
        ]
    );
    let effects = run(&mut lifecycle, [Input::Started]);
    let change = StateChange::Started(StartCause::PauseFailed);
    assert_eq!(effects, [Effect::OpenGate, Effect::Notify(change)]);
    assert_eq!(lifecycle.epoch(), Epoch(1));
}

#[test]
fn concurrent_wakes_share_one_restore() {
    let mut lifecycle = Lifecycle::paused(Epoch(1), source(1, FULL));
    let effects = run(&mut lifecycle, [enter(1), enter(2), Input::StartFailed]);
    let cause = PauseCause::StartFailed;
    assert_eq!(
        effects,
        [
            Effect::Start {
                plan: StartPlan::Restore,
                snapshot: 1,
            },
            Effect::Release,
            Effect::Reply(vec![1, 2], Reply::StartFailed),
            Effect::Notify(StateChange::Paused { scope: FULL, cause }),
        ]
    );
    assert_eq!(lifecycle.state(), SandboxState::Paused);
}

#[test]
fn lost_machine_falls_back_to_a_snapshot_or_stops() {
    let mut lifecycle = running();
    run(&mut lifecycle, [Input::Exited]);
    assert_eq!(
        lifecycle.state(),
        SandboxState::Stopped(StopReason::Crashed)
    );

    let mut lifecycle = running();
    let capture = Input::Capture {
        waiter: 1,
        scope: FULL,
    };
    run(&mut lifecycle, [capture, Input::Captured(2), Input::Exited]);
    assert_eq!(lifecycle.state(), SandboxState::Paused);
    assert_eq!(lifecycle.source(), Some(&source(2, FULL)));
}

#[test]
fn disk_only_capture_is_no_fallback() {
    let mut lifecycle = running();
    let capture = Input::Capture {
        waiter: 1,
        scope: DISK,
    };
    run(&mut lifecycle, [capture, Input::Captured(2), Input::Exited]);
    assert_eq!(
        lifecycle.state(),
        SandboxState::Stopped(StopReason::Crashed)
    );
}

#[test]
fn snapshot_outlives_a_machine_that_exits_meanwhile() {
    let mut lifecycle = running();
    run(&mut lifecycle, [Input::Idle, Input::Exited, enter(1)]);
    assert_eq!(
        run(&mut lifecycle, [Input::Snapshotted(2)]),
        [
            Effect::Release,
            Effect::Start {
                plan: StartPlan::Restore,
                snapshot: 2,
            },
            Effect::CollectGarbage,
        ]
    );
}

#[test]
fn disk_only_pause_boots_for_its_owner_alone() {
    let mut lifecycle = running();
    run(&mut lifecycle, [pause(1, 1, DISK)]);
    let refused = [Effect::Reply(vec![2], Reply::NotWoken)];
    assert_eq!(run(&mut lifecycle, [enter(2)]), refused);
    let resume = Input::Resume {
        waiter: 3,
        scope: FULL,
    };
    run(&mut lifecycle, [resume]);
    let effects = run(&mut lifecycle, [Input::Snapshotted(2)]);
    let plan = StartPlan::Boot {
        snapshot_scope: DISK,
    };
    assert!(effects.contains(&Effect::Start { plan, snapshot: 2 }));
}

#[test]
fn stale_epoch_is_a_conflict() {
    let mut lifecycle = running();
    let conflict = Reply::Conflict(SandboxState::Running);
    assert_eq!(
        run(&mut lifecycle, [pause(1, 7, FULL)]),
        [Effect::Reply(vec![1], conflict)]
    );
}

#[test]
fn calls_during_a_capture_are_replayed_in_order() {
    let mut lifecycle = running();
    let capture = |waiter| Input::Capture {
        waiter,
        scope: FULL,
    };
    let deferred = [capture(1), pause(2, 1, FULL), capture(3)];
    assert_eq!(
        run(&mut lifecycle, deferred),
        [Effect::Capture { scope: FULL }]
    );
    assert_eq!(
        run(&mut lifecycle, [Input::Captured(2)]),
        [
            Effect::Reply(vec![1], Reply::Captured(2)),
            Effect::CollectGarbage,
            Effect::Replay(vec![pause(2, 1, FULL), capture(3)]),
        ]
    );
}

#[test]
fn panic_during_a_capture_answers_deferred_calls() {
    let mut lifecycle = running();
    let capture = Input::Capture {
        waiter: 1,
        scope: FULL,
    };
    run(&mut lifecycle, [capture, pause(2, 1, FULL)]);
    assert_eq!(
        run(&mut lifecycle, [Input::TaskPanicked]),
        [
            Effect::ShutGate,
            Effect::Release,
            Effect::Remove,
            Effect::Reply(vec![1], Reply::CaptureFailed),
            Effect::Notify(StateChange::Stopped(StopReason::Crashed)),
            Effect::Replay(vec![pause(2, 1, FULL)]),
        ]
    );
}

#[test]
fn first_start_that_fails_stops_the_sandbox() {
    let (mut lifecycle, _) = Lifecycle::fork(7, Epoch(1), source(1, FULL));
    assert_eq!(
        run(&mut lifecycle, [Input::StartFailed]),
        [
            Effect::Release,
            Effect::Remove,
            Effect::Reply(vec![7], Reply::StartFailed),
            Effect::Notify(StateChange::Stopped(StopReason::StartFailed)),
        ]
    );
}
