//! A model of the world that the effects act on. It asserts the invariants after each input.

use std::collections::{BTreeMap, VecDeque};

use pool_api::{Epoch, PauseCause, SandboxState, SnapshotScope, StartCause};

use super::{FULL, TestLifecycle, source};
use crate::lifecycle::{Effect, Input, Lifecycle, Reply, StateChange, Waiter, WakeSource};

/// The machine of the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Machine {
    None,
    Alive,
    /// It ended and was not released.
    Ended,
}

/// The task that the driver runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    None,
    Start,
    Resume,
    Snapshot(SnapshotScope),
    Capture(SnapshotScope),
    Destroy,
}

#[derive(Debug)]
pub(super) struct Model {
    lifecycle: TestLifecycle,
    gate_open: bool,
    machine: Machine,
    task: Task,
    /// A cancelled start may still complete.
    cancelled_start: bool,
    removed: bool,
    /// Replies to each waiter.
    replies: BTreeMap<Waiter, u32>,
    next_waiter: Waiter,
    next_snapshot: u32,
    /// The snapshot that the next start must use.
    source: Option<WakeSource<u32>>,
    epoch: Epoch,
    pub(super) rollbacks_are_recorded: bool,
}

impl Model {
    fn new(lifecycle: TestLifecycle, source: Option<WakeSource<u32>>, task: Task) -> Self {
        Self {
            lifecycle,
            gate_open: false,
            machine: Machine::None,
            task,
            cancelled_start: false,
            removed: false,
            replies: BTreeMap::new(),
            next_waiter: 1,
            next_snapshot: 2,
            source,
            epoch: Epoch(1),
            rollbacks_are_recorded: true,
        }
    }

    pub(super) fn forked() -> Self {
        let (lifecycle, effects) = Lifecycle::fork(0, Epoch(1), source(1, FULL));
        assert!(matches!(effects[..], [Effect::Start { snapshot: 1, .. }]));
        let mut model = Self::new(lifecycle, None, Task::Start);
        model.replies.insert(0, 0);
        model
    }

    pub(super) fn paused(scope: SnapshotScope) -> Self {
        let source = source(1, scope);
        let lifecycle = Lifecycle::paused(Epoch(1), source.clone());
        Self::new(lifecycle, Some(source), Task::None)
    }

    /// Feeds one input as the driver would, or drops it when the driver cannot have it now.
    pub(super) fn take(&mut self, input: Input<u32>) {
        let Some(input) = self.possible(input) else {
            return;
        };
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let before = self.lifecycle.state();
            if let Input::RollbackRecorded { target, .. } = &input {
                self.source = Some(target.clone());
            }
            let stale_pause = self.is_stale_pause(&input);
            let effects = self.lifecycle.step(input);
            let changes = effects
                .iter()
                .filter(|effect| matches!(effect, Effect::Notify(_)))
                .count();
            for effect in effects {
                assert!(
                    !(stale_pause && matches!(effect, Effect::Snapshot { .. })),
                    "a stale epoch paused the sandbox"
                );
                match effect {
                    Effect::Replay(deferred) => inputs.extend(deferred),
                    effect => {
                        if let Some(input) = self.perform(effect) {
                            inputs.push_front(input);
                        }
                    }
                }
            }
            self.check(before, changes);
            if inputs.is_empty() {
                self.check_replies();
            }
        }
    }

    fn is_stale_pause(&self, input: &Input<u32>) -> bool {
        matches!(input, Input::Pause { epoch: Some(epoch), .. } if *epoch != self.epoch)
    }

    /// Numbers the input, and applies it to the task and the machine; `None` when it cannot happen now.
    fn possible(&mut self, mut input: Input<u32>) -> Option<Input<u32>> {
        match &mut input {
            Input::Enter { waiter, .. }
            | Input::Resume { waiter, .. }
            | Input::Capture { waiter, .. }
            | Input::Kill(waiter) => *waiter = self.new_waiter(),
            Input::Pause { waiter, epoch, .. } => {
                *waiter = self.new_waiter();
                *epoch = epoch.map(|offset| Epoch(self.epoch.0 + offset.0));
            }
            Input::Rollback { waiter, target } => {
                *waiter = self.new_waiter();
                target.snapshot = self.new_snapshot();
            }
            Input::Idle => return self.lifecycle.may_idle().then_some(input),
            Input::Exited => {
                if !self.lifecycle.watches_exit() {
                    return None;
                }
                assert_eq!(self.machine, Machine::Alive, "watched without a machine");
                self.machine = Machine::Ended;
            }
            Input::Damaged => {
                if !self.lifecycle.watches_damage() {
                    return None;
                }
                assert_eq!(self.machine, Machine::Alive, "watched without a machine");
            }
            Input::RollbackRecorded { .. } | Input::RollbackNotRecorded(_) => return None,
            Input::Started if self.cancelled_start => {
                self.cancelled_start = false;
                self.machine = Machine::Alive;
            }
            _ => return self.complete_task(input),
        }
        Some(input)
    }

    /// Ends the task that the input is a completion of; `None` when another task or none is in progress.
    fn complete_task(&mut self, mut input: Input<u32>) -> Option<Input<u32>> {
        match (&mut input, self.task) {
            (Input::Started, Task::Resume) if self.machine == Machine::Ended => return None,
            (Input::Started, Task::Start | Task::Resume) => self.machine = Machine::Alive,
            (Input::StartFailed, Task::Start) => {}
            // A machine that fails to resume is killed.
            (Input::StartFailed, Task::Resume) => self.machine = Machine::Ended,
            (Input::Snapshotted(snapshot), Task::Snapshot(scope)) => {
                *snapshot = self.new_snapshot();
                self.source = Some(source(*snapshot, scope));
            }
            (Input::Captured(snapshot), Task::Capture(scope)) => {
                *snapshot = self.new_snapshot();
                if scope == FULL {
                    self.source = Some(source(*snapshot, scope));
                }
            }
            (Input::SnapshotFailed, Task::Snapshot(_))
            | (Input::CaptureFailed, Task::Capture(_))
            | (Input::TasksEnded, Task::None | Task::Destroy) => {}
            (Input::TaskPanicked, task) if task != Task::None => {}
            _ => return None,
        }
        self.task = Task::None;
        self.cancelled_start = false;
        Some(input)
    }

    fn new_waiter(&mut self) -> Waiter {
        let waiter = self.next_waiter;
        self.next_waiter += 1;
        self.replies.insert(waiter, 0);
        waiter
    }

    fn new_snapshot(&mut self) -> u32 {
        self.next_snapshot += 1;
        self.next_snapshot
    }

    fn perform(&mut self, effect: Effect<u32>) -> Option<Input<u32>> {
        assert!(
            !self.removed || matches!(effect, Effect::Reply(..) | Effect::Notify(_)),
            "{effect:?} after the end"
        );
        match effect {
            Effect::OpenGate => {
                assert_eq!(self.machine, Machine::Alive);
                self.gate_open = true;
            }
            Effect::ShutGate => self.gate_open = false,
            Effect::Start { .. }
            | Effect::Resume { .. }
            | Effect::Snapshot { .. }
            | Effect::Capture { .. } => self.begin_task(&effect),
            Effect::RecordRollback { waiter, target } => {
                if !self.rollbacks_are_recorded {
                    return Some(Input::RollbackNotRecorded(waiter));
                }
                return Some(Input::RollbackRecorded { waiter, target });
            }
            Effect::KillMachine => {
                assert_eq!(self.machine, Machine::Alive);
                self.machine = Machine::Ended;
            }
            Effect::Release => self.machine = Machine::None,
            Effect::Destroy => {
                self.cancelled_start = matches!(self.task, Task::Start | Task::Resume);
                (self.machine, self.task) = (Machine::None, Task::Destroy);
            }
            Effect::Remove => {
                assert_eq!(self.machine, Machine::None, "removed under a machine");
                assert_eq!(self.task, Task::None, "removed under a task");
                self.removed = true;
            }
            Effect::CollectGarbage => {}
            Effect::Reply(waiters, reply) => {
                for waiter in waiters {
                    *self.replies.get_mut(&waiter).expect("a caller") += 1;
                }
                match reply {
                    Reply::Running | Reply::AlreadyRunning => assert!(self.gate_open),
                    Reply::Gone => assert!(self.removed),
                    _ => {}
                }
            }
            Effect::Notify(change) => self.check_change(change),
            Effect::Replay(_) => unreachable!("taken by the caller"),
        }
        None
    }

    /// Begins a task; no other may be in progress.
    fn begin_task(&mut self, effect: &Effect<u32>) {
        assert_eq!(self.task, Task::None);
        let needed = match effect {
            Effect::Start { .. } => Machine::None,
            _ => Machine::Alive,
        };
        assert_eq!(self.machine, needed, "{effect:?}");
        self.task = match effect {
            Effect::Start { snapshot, plan } => {
                let source = self.source.as_ref().expect("a snapshot to start from");
                assert_eq!(*snapshot, source.snapshot, "started from another snapshot");
                let needs_memory = plan.scope() == FULL;
                assert!(
                    !needs_memory || source.scope == FULL,
                    "no memory to restore"
                );
                Task::Start
            }
            Effect::Resume { after } => {
                assert!(!self.gate_open);
                let paused = self.lifecycle.epoch() > self.epoch;
                assert!(
                    !paused || *after == FULL,
                    "a disk-only pause resumed its memory"
                );
                Task::Resume
            }
            Effect::Snapshot { scope } => {
                assert!(!self.gate_open);
                Task::Snapshot(*scope)
            }
            Effect::Capture { scope } => Task::Capture(*scope),
            other => unreachable!("{other:?} is no task"),
        };
    }

    fn check_change(&self, change: StateChange) {
        match (change, self.lifecycle.state()) {
            (StateChange::Started(cause), SandboxState::Running) => {
                if cause == StartCause::PauseFailed {
                    assert_eq!(self.lifecycle.epoch(), self.epoch);
                }
            }
            (StateChange::Paused { scope, cause }, SandboxState::Paused) => {
                let source = self.source.as_ref().expect("a snapshot to wake from");
                assert_eq!(scope, source.scope);
                assert_ne!(cause, PauseCause::Shutdown, "no input asked for it");
            }
            (StateChange::Stopped(reason), SandboxState::Stopped(state)) => {
                assert_eq!(reason, state);
            }
            (change, state) => panic!("{change:?} in {state:?}"),
        }
    }

    fn check(&mut self, before: SandboxState, changes: usize) {
        let state = self.lifecycle.state();
        assert_eq!(self.gate_open, state == SandboxState::Running, "{state:?}");
        let twice = self.replies.values().any(|count| *count > 1);
        assert!(!twice, "answered twice: {:?}", self.replies);
        let stopped = matches!(state, SandboxState::Stopped(_));
        assert_eq!(self.removed, stopped);
        if matches!(before, SandboxState::Stopped(_)) {
            assert_eq!(state, before);
        }
        if matches!(state, SandboxState::Paused) || stopped {
            assert_eq!(self.machine, Machine::None);
        }
        if state == SandboxState::Pausing && !self.lifecycle.watches_exit() {
            assert_eq!(self.machine, Machine::Ended, "a lost machine still runs");
        }
        if !stopped && let Some(source) = &self.source {
            assert_eq!(self.lifecycle.source(), Some(source));
        }
        let notable = |state| {
            matches!(
                state,
                SandboxState::Running | SandboxState::Paused | SandboxState::Stopped(_)
            )
        };
        if notable(state) && state != before {
            assert_eq!(changes, 1, "{before:?} to {state:?}");
        }
        assert!(self.lifecycle.epoch() >= self.epoch);
        self.epoch = self.lifecycle.epoch();
    }

    /// Asserts that no caller waits while the sandbox is at rest.
    fn check_replies(&self) {
        let state = self.lifecycle.state();
        let at_rest = match state {
            SandboxState::Running => self.lifecycle.may_idle(),
            SandboxState::Paused | SandboxState::Stopped(_) => true,
            _ => false,
        };
        if at_rest {
            let answered = self.replies.values().all(|count| *count == 1);
            assert!(
                answered,
                "{state:?} leaves a caller waiting: {:?}",
                self.replies
            );
        }
    }
}
