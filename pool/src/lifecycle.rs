//! The policy of a sandbox's lifecycle: a pure state machine without a clock, I/O or locks.
//!
//! ```text
//!              Started              Idle, Pause           Snapshotted
//!  fork --> Starting ----------> Running ----------> Pausing ----------> Paused
//!              ^  ^                |  ^                  |                  |
//!              |  |                +--+ Capture          |                  |
//!              |  +------ a caller waits, or SnapshotFailed                 |
//!              +------------------------ Enter, Resume ---------------------+
//!  any state -- Kill --> Stopping --> Stopped
//!  Running, Paused -- Rollback --> Starting
//! ```
//!
//! [`Lifecycle::step`] takes one [`Input`] and returns the [`Effect`]s to perform, in order. `S` is a handle on a
//! snapshot; tests use a number. Each state has its own module below this one.
//!
//! - A wake during a pause costs no restore: the machine stays until the snapshot is durable, then resumes. After a
//!   disk-only pause, or for a caller that wants a boot, the machine ends and the sandbox boots from its disk.
//! - A live capture keeps the sandbox running. Pauses, captures and rollbacks that arrive meanwhile are deferred and
//!   replayed in order.
//! - A machine that ends by itself leads to `Paused` when the sandbox has a snapshot to wake from, else to `Stopped`. If
//!   it ends during a pause, the snapshot still completes.
//! - Inputs that do not apply to the current state are stale and ignored. Every waiter is answered exactly once.

mod input;
mod paused;
mod pausing;
mod running;
mod starting;
mod stopping;
#[cfg(test)]
mod tests;

use pool_api::{Epoch, PauseCause, SandboxState, SnapshotScope, StartCause, StopReason};

pub(crate) use self::input::Input;
use self::{pausing::Pause, running::Capture, starting::PendingStart};
use crate::start_plan::StartPlan;

/// A caller that waits for a reply.
pub(crate) type Waiter = u64;

/// The snapshot that a paused sandbox wakes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WakeSource<S> {
    pub(crate) snapshot: S,
    pub(crate) scope: SnapshotScope,
}

/// An action of the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect<S> {
    /// Admit callers.
    OpenGate,
    /// Admit no callers and revoke leases.
    ShutGate,
    /// Make a machine: `Started` or `StartFailed`.
    Start { plan: StartPlan, snapshot: S },
    /// Resume the stopped machine after a pause of this scope: `Started` or `StartFailed`.
    Resume { after: SnapshotScope },
    /// Stop the machine and take a snapshot: `Snapshotted` or `SnapshotFailed`.
    Snapshot { scope: SnapshotScope },
    /// Take a snapshot and resume the machine: `Captured` or `CaptureFailed`.
    Capture { scope: SnapshotScope },
    /// Make the target durable: `RollbackRecorded` or `RollbackNotRecorded`, before any other input.
    RecordRollback {
        waiter: Waiter,
        target: WakeSource<S>,
    },
    /// Kill the machine's process; a task still uses the machine.
    KillMachine,
    /// Destroy the machine, if there is one, and its writable disk layer.
    Release,
    /// Cancel a start and destroy the machine: `TasksEnded` once every task has ended.
    Destroy,
    /// Remove everything of the sandbox.
    Remove,
    /// Remove snapshots that nothing references.
    CollectGarbage,
    /// Take these inputs next, in order, before any other. The input that an effect leads to at once precedes them.
    Replay(Vec<Input<S>>),
    /// Reply to callers.
    Reply(Vec<Waiter>, Reply<S>),
    /// Publish an event.
    Notify(StateChange),
}

/// The reply to a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply<S> {
    /// The sandbox runs and the gate is open.
    Running,
    /// The sandbox ran before the call.
    AlreadyRunning,
    /// The sandbox has a durable snapshot of this pause.
    Paused,
    /// The sandbox was paused before the call.
    AlreadyPaused,
    /// The sandbox is paused or pausing, and this caller may not wake it.
    NotWoken,
    /// The start failed, or the machine ended.
    StartFailed,
    /// The snapshot of a pause failed.
    SnapshotFailed,
    /// The snapshot of a live capture.
    Captured(S),
    /// The live capture failed.
    CaptureFailed,
    /// The sandbox is paused at this snapshot.
    PausedAt(WakeSource<S>),
    /// This state does not allow the call.
    Conflict(SandboxState),
    /// The sandbox has stopped.
    Gone,
}

/// A state change that callers are notified of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StateChange {
    Started(StartCause),
    Paused {
        scope: SnapshotScope,
        cause: PauseCause,
    },
    Stopped(StopReason),
}

/// The state of one sandbox.
#[derive(Debug)]
pub(crate) struct Lifecycle<S> {
    phase: Phase<S>,
    epoch: Epoch,
    /// The snapshot to wake from, or to fall back to when the machine ends.
    source: Option<WakeSource<S>>,
}

/// The machine that a task uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MachineState {
    Alive,
    /// It ended by itself, or was killed because its memory is damaged.
    Ended,
}

#[derive(Debug)]
enum Phase<S> {
    Starting(PendingStart),
    Running(Option<Capture<S>>),
    Pausing(Pause),
    Paused,
    Stopping { killers: Vec<Waiter> },
    Stopped(StopReason),
}

// === impl Lifecycle ===

impl<S: Clone> Lifecycle<S> {
    /// Creates a new sandbox, which forks from `origin` for `waiter`.
    pub(crate) fn fork(
        waiter: Waiter,
        epoch: Epoch,
        origin: WakeSource<S>,
    ) -> (Self, Vec<Effect<S>>) {
        let pending = PendingStart::of_new_machine(StartCause::Created, vec![waiter]);
        let lifecycle = Self {
            phase: Phase::Starting(pending),
            epoch,
            source: None,
        };
        let start = Effect::Start {
            plan: StartPlan::Fork {
                scope: origin.scope,
            },
            snapshot: origin.snapshot,
        };
        (lifecycle, vec![start])
    }

    /// Creates a paused sandbox.
    pub(crate) fn paused(epoch: Epoch, source: WakeSource<S>) -> Self {
        Self {
            phase: Phase::Paused,
            epoch,
            source: Some(source),
        }
    }

    /// Returns the public state.
    pub(crate) fn state(&self) -> SandboxState {
        match &self.phase {
            Phase::Starting(_) => SandboxState::Starting,
            Phase::Running(_) => SandboxState::Running,
            Phase::Pausing(_) => SandboxState::Pausing,
            Phase::Paused => SandboxState::Paused,
            Phase::Stopping { .. } => SandboxState::Stopping,
            Phase::Stopped(reason) => SandboxState::Stopped(*reason),
        }
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(crate) fn source(&self) -> Option<&WakeSource<S>> {
        self.source.as_ref()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.phase, Phase::Stopped(_))
    }

    /// Returns whether damage of the machine's memory is an input now. A task that uses the machine would wait for the
    /// damaged page without end.
    pub(crate) fn watches_damage(&self) -> bool {
        match &self.phase {
            Phase::Starting(start) => start.resumes(),
            Phase::Running(capture) => capture.as_ref().is_none_or(Capture::machine_is_alive),
            Phase::Pausing(pause) => pause.machine_is_alive(),
            _ => false,
        }
    }

    /// Returns whether an exit of the machine is an input now. During a live capture it is not: the capture ends first.
    pub(crate) fn watches_exit(&self) -> bool {
        match &self.phase {
            Phase::Running(capture) => capture.is_none(),
            Phase::Pausing(pause) => pause.machine_is_alive(),
            _ => false,
        }
    }

    /// Returns whether the sandbox may become idle now.
    pub(crate) fn may_idle(&self) -> bool {
        matches!(self.phase, Phase::Running(None))
    }

    /// Takes one input and returns the effects to perform, in order.
    pub(crate) fn step(&mut self, input: Input<S>) -> Vec<Effect<S>> {
        // A placeholder: each state's step sets the next phase before it returns.
        match std::mem::replace(&mut self.phase, Phase::Paused) {
            Phase::Starting(pending) => self.step_starting(pending, input),
            Phase::Running(capture) => self.step_running(capture, input),
            Phase::Pausing(pause) => self.step_pausing(pause, input),
            Phase::Paused => self.step_paused(input),
            Phase::Stopping { killers } => self.step_stopping(killers, input),
            Phase::Stopped(reason) => {
                self.phase = Phase::Stopped(reason);
                reply(input.waiter(), Reply::Gone)
            }
        }
    }

    /// Wakes from the snapshot with a new machine, in the next epoch.
    fn start_from(
        &mut self,
        source: WakeSource<S>,
        scope: SnapshotScope,
        pending: PendingStart,
    ) -> Effect<S> {
        let plan = match (source.scope, scope) {
            (SnapshotScope::Full, SnapshotScope::Full) => StartPlan::Restore,
            (snapshot_scope, _) => StartPlan::Boot { snapshot_scope },
        };
        let snapshot = source.snapshot.clone();
        self.source = Some(source);
        self.epoch = self.epoch.next();
        self.phase = Phase::Starting(pending);
        Effect::Start { plan, snapshot }
    }

    /// Falls back to the last snapshot after the machine was lost, or stops. Waiters follow, then the event.
    fn lose_machine(
        &mut self,
        loss: MachineLoss,
        replies: impl IntoIterator<Item = Effect<S>>,
    ) -> Vec<Effect<S>> {
        let mut effects = vec![Effect::Release];
        let change = match &self.source {
            Some(source) => {
                self.phase = Phase::Paused;
                StateChange::Paused {
                    scope: source.scope,
                    cause: loss.cause,
                }
            }
            None => {
                self.phase = Phase::Stopped(loss.reason);
                // Before the replies, so that callers may use the id again.
                effects.push(Effect::Remove);
                StateChange::Stopped(loss.reason)
            }
        };
        effects.extend(replies);
        effects.push(Effect::Notify(change));
        effects
    }

    fn conflict(&self, waiter: Option<Waiter>) -> Vec<Effect<S>> {
        reply(waiter, Reply::Conflict(self.state()))
    }

    fn is_stale(&self, epoch: Option<Epoch>) -> bool {
        epoch.is_some_and(|epoch| epoch != self.epoch)
    }
}

/// The pause cause, or the stop reason of a sandbox without a snapshot, after its machine is lost.
#[derive(Debug, Clone, Copy)]
struct MachineLoss {
    cause: PauseCause,
    reason: StopReason,
}

impl MachineLoss {
    /// A machine that ran, or was resumed.
    const CRASH: Self = Self {
        cause: PauseCause::MachineLost,
        reason: StopReason::Crashed,
    };
}

fn reply<S>(waiters: impl IntoIterator<Item = Waiter>, reply: Reply<S>) -> Vec<Effect<S>> {
    let waiters: Vec<Waiter> = waiters.into_iter().collect();
    if waiters.is_empty() {
        Vec::new()
    } else {
        vec![Effect::Reply(waiters, reply)]
    }
}
