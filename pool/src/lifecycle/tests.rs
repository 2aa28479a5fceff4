use std::collections::BTreeMap;

use pool_api::{SandboxState, StopReason};
use proptest::prelude::*;

use super::{Answer, Effect, Input, Lifecycle, Waiter};

/// What the effects have made of the world.
#[derive(Debug)]
struct World {
    life: Lifecycle,
    gate: bool,
    machines: u32,
    making: bool,
    snapshotting: bool,
    dropped: bool,
    answers: BTreeMap<Waiter, u32>,
}

impl World {
    fn new(paused: bool) -> Self {
        let mut answers = BTreeMap::new();
        if !paused {
            answers.insert(0, 0);
        }
        let life = if paused {
            Lifecycle::paused()
        } else {
            Lifecycle::starting(0)
        };
        Self {
            life,
            gate: false,
            machines: 0,
            making: !paused,
            snapshotting: false,
            dropped: false,
            answers,
        }
    }

    fn take(&mut self, input: Input) {
        let before = self.life.state();
        // The world does what makes such an input possible; the rest are late ones.
        match (input, before) {
            (
                Input::Wake(waiter)
                | Input::Pause(waiter)
                | Input::Rollback(waiter)
                | Input::Kill(waiter),
                _,
            ) => {
                self.answers.insert(waiter, 0);
            }
            (Input::Started, SandboxState::Starting) => {
                assert!(self.making, "started and nobody made it");
                (self.making, self.machines) = (false, 1);
            }
            (Input::StartFailed, SandboxState::Starting) => {
                (self.making, self.machines) = (false, 0);
            }
            (
                Input::Exited,
                SandboxState::Running | SandboxState::Pausing | SandboxState::Stopping,
            ) => {
                self.machines = 0;
            }
            (Input::Snapshotted | Input::SnapshotFailed, SandboxState::Pausing) => {
                assert!(self.snapshotting, "snapshotted and nobody did");
                self.snapshotting = false;
            }
            (Input::Destroyed, SandboxState::Stopping) => (self.making, self.machines) = (false, 0),
            _ => {}
        }
        for effect in self.life.step(input) {
            self.carry_out(effect);
        }
        self.check(before);
    }

    fn carry_out(&mut self, effect: Effect) {
        assert!(
            !self.dropped || matches!(effect, Effect::Answer(..)),
            "{effect:?} after the end"
        );
        match effect {
            Effect::OpenGate => self.gate = true,
            Effect::ShutGate => self.gate = false,
            Effect::Restore => {
                assert!(self.machines == 0 && !self.making, "a second machine");
                self.making = true;
            }
            Effect::Unpause => {
                assert!(self.machines == 1 && !self.making && !self.gate);
                self.making = true;
            }
            Effect::Snapshot => {
                assert!(self.machines == 1 && !self.gate && !self.snapshotting);
                self.snapshotting = true;
            }
            Effect::Release => {
                assert_eq!(self.machines, 1);
                self.machines = 0;
            }
            Effect::Destroy => self.snapshotting = false,
            Effect::DropAll => {
                assert!(matches!(self.life.state(), SandboxState::Stopped(_)));
                assert!(self.machines == 0 && !self.making);
                self.dropped = true;
            }
            Effect::Answer(waiters, answer) => {
                for waiter in waiters {
                    *self.answers.get_mut(&waiter).expect("somebody who asked") += 1;
                    match answer {
                        Answer::Running => assert!(self.gate),
                        Answer::Gone => assert!(self.dropped),
                        _ => {}
                    }
                }
            }
        }
    }

    fn check(&self, before: SandboxState) {
        let state = self.life.state();
        assert_eq!(self.gate, state == SandboxState::Running, "{state:?}");
        assert!(
            self.answers.values().all(|count| *count <= 1),
            "answered twice: {:?}",
            self.answers
        );
        let stopped = matches!(state, SandboxState::Stopped(_));
        assert_eq!(self.dropped, stopped);
        if matches!(before, SandboxState::Stopped(_)) {
            assert_eq!(state, before);
        }
        if matches!(state, SandboxState::Paused | SandboxState::Running) || stopped {
            assert!(
                self.answers.values().all(|count| *count == 1),
                "{state:?} leaves somebody waiting"
            );
        }
        if matches!(state, SandboxState::Paused) || stopped {
            assert_eq!(self.machines, 0);
        }
    }
}

fn input(kind: u8, waiter: Waiter) -> Input {
    match kind {
        0 => Input::Wake(waiter),
        1 => Input::Idle,
        2 => Input::Pause(waiter),
        3 => Input::Kill(waiter),
        4 => Input::Started,
        5 => Input::StartFailed,
        6 => Input::Exited,
        7 => Input::Snapshotted,
        8 => Input::SnapshotFailed,
        9 => Input::Kept,
        10 => Input::Rollback(waiter),
        _ => Input::Destroyed,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn no_sequence_of_inputs_breaks_an_invariant(
        paused: bool,
        kinds in proptest::collection::vec(prop_oneof![6 => 0u8..3, 1 => Just(3u8), 12 => 4u8..12], 0..40),
    ) {
        let mut world = World::new(paused);
        for (waiter, kind) in (1..).zip(kinds) {
            world.take(input(kind, waiter));
        }
    }
}

fn run(life: &mut Lifecycle, inputs: &[Input]) -> Vec<Effect> {
    inputs.iter().flat_map(|input| life.step(*input)).collect()
}

#[test]
fn a_wake_during_a_pause_costs_no_restore() {
    let mut life = Lifecycle::starting(0);
    run(&mut life, &[Input::Started, Input::Idle, Input::Wake(1)]);
    assert_eq!(run(&mut life, &[Input::Snapshotted]), [Effect::Unpause]);
    let effects = run(&mut life, &[Input::Started]);
    assert_eq!(
        effects,
        [Effect::OpenGate, Effect::Answer(vec![1], Answer::Running)]
    );
}

#[test]
fn a_failed_snapshot_lets_the_guest_go_on() {
    let mut life = Lifecycle::starting(0);
    run(&mut life, &[Input::Started, Input::Pause(1)]);
    let effects = run(&mut life, &[Input::SnapshotFailed]);
    assert_eq!(
        effects,
        [
            Effect::Answer(vec![1], Answer::SnapshotFailed),
            Effect::Unpause
        ]
    );
    run(&mut life, &[Input::Started]);
    assert_eq!(life.state(), SandboxState::Running);
}

#[test]
fn a_failed_restore_stays_paused_and_many_wakes_are_one_restore() {
    let mut life = Lifecycle::paused();
    let effects = run(
        &mut life,
        &[Input::Wake(1), Input::Wake(2), Input::StartFailed],
    );
    assert_eq!(
        effects,
        [
            Effect::Restore,
            Effect::Answer(vec![1, 2], Answer::StartFailed)
        ]
    );
    assert_eq!(life.state(), SandboxState::Paused);
}

#[test]
fn a_machine_that_ends_goes_back_to_its_snapshot_or_is_gone() {
    let mut life = Lifecycle::starting(0);
    run(&mut life, &[Input::Started, Input::Exited]);
    assert_eq!(life.state(), SandboxState::Stopped(StopReason::Crashed));
    for before in [
        vec![Input::Started, Input::Kept],
        vec![
            Input::Started,
            Input::Idle,
            Input::Wake(1),
            Input::Snapshotted,
            Input::Started,
        ],
    ] {
        let mut life = Lifecycle::starting(0);
        run(&mut life, &before);
        run(&mut life, &[Input::Exited]);
        assert_eq!(life.state(), SandboxState::Paused);
    }
}

#[test]
fn what_was_captured_outlives_the_machine() {
    let mut life = Lifecycle::starting(0);
    run(
        &mut life,
        &[Input::Started, Input::Idle, Input::Exited, Input::Wake(1)],
    );
    assert_eq!(run(&mut life, &[Input::Snapshotted]), [Effect::Restore]);
}

#[test]
fn a_first_start_that_fails_is_the_end() {
    let mut life = Lifecycle::starting(7);
    let effects = run(&mut life, &[Input::StartFailed]);
    assert_eq!(
        effects,
        [
            Effect::DropAll,
            Effect::Answer(vec![7], Answer::StartFailed)
        ]
    );
    assert_eq!(life.state(), SandboxState::Stopped(StopReason::StartFailed));
}
