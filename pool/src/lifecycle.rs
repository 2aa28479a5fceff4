//! What may happen next in a sandbox's life: the whole policy, with no clock, no I/O and no lock.
//!
//! ```text
//!             Started             Idle, Pause          Snapshotted
//!  create -> Starting ---------> Running ---------> Pausing ---------> Paused
//!               ^  ^                                   |                  |
//!               |  +---- someone waits, or it failed --+                  |
//!               +--------------------------- Wake ------------------------+
//!  any of them -- Kill --> Stopping --> Stopped
//!  Running, Paused -- Rollback --> Starting
//! ```
//!
//! A snapshot that someone waits for, or that failed, leads back through `Starting`: the machine is still there and only
//! goes on. A machine that ends by itself leads to `Paused` when there is a snapshot of the sandbox's own to wake from,
//! else to `Stopped`. One that ends while it is written down does not end the writing: if all was captured, nothing is
//! lost. And one that ends while it is being ended is not all that has to end.
//!
//! An input with no entry here is late or meaningless and changes nothing.

#[cfg(test)]
mod tests;

use pool_api::{SandboxState, StopReason};

/// A caller that waits for an answer.
pub(crate) type Waiter = u64;

/// What happens to a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    /// A caller wants it running.
    Wake(Waiter),
    /// Nobody used it for its idle window, and the gate was shut.
    Idle,
    /// A caller wants it paused.
    Pause(Waiter),
    /// A caller wants it running from the snapshot it wakes from, whatever it does now.
    Rollback(Waiter),
    /// A caller wants it gone.
    Kill(Waiter),
    /// The machine runs and knows what it is.
    Started,
    /// There is no machine: it could not be made, or could not go on.
    StartFailed,
    /// The machine ended by itself.
    Exited,
    /// A snapshot of it is durable.
    Snapshotted,
    /// A snapshot was not made; the machine is as it was.
    SnapshotFailed,
    /// A snapshot was made of the running machine, which goes on.
    Kept,
    /// The machine was ended, and whatever was under way with it.
    Destroyed,
}

/// What is to be done about it, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Callers are let in from now on.
    OpenGate,
    /// They are not, and leases are revoked.
    ShutGate,
    /// Make a machine from the sandbox's own snapshot: `Started` or `StartFailed`.
    Restore,
    /// Let the machine go on: `Started`, or end it: `StartFailed`.
    Unpause,
    /// Write the machine down: `Snapshotted` or `SnapshotFailed`.
    Snapshot,
    /// End the machine now; its snapshot has everything.
    Release,
    /// End the machine, or what is under way to make one: `Destroyed`.
    Destroy,
    /// Nothing of the sandbox is needed any more.
    DropAll,
    /// Callers get their answer.
    Answer(Vec<Waiter>, Answer),
}

/// What callers are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It runs, and the gate is open.
    Running,
    /// It has a durable snapshot of this moment.
    Paused,
    /// It was paused before.
    AlreadyPaused,
    /// It could not be started, or its machine ended.
    StartFailed,
    /// It could not be written down.
    SnapshotFailed,
    /// It is between states that do not allow this.
    Conflict,
    /// It is gone.
    Gone,
}

/// A sandbox's life.
#[derive(Debug, Clone)]
pub(crate) struct Lifecycle {
    phase: Phase,
    /// There is a snapshot of its own to wake from.
    durable: bool,
    wakers: Vec<Waiter>,
    pausers: Vec<Waiter>,
    killers: Vec<Waiter>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// `lived`: it ran before, and its machine is still there.
    Starting {
        lived: bool,
    },
    Running,
    /// `machine`: it has not ended meanwhile.
    Pausing {
        machine: bool,
    },
    Paused,
    Stopping,
    Stopped(StopReason),
}

// === impl Lifecycle ===

impl Lifecycle {
    /// A new sandbox, whose first machine is being made for `waiter`.
    pub(crate) fn starting(waiter: Waiter) -> Self {
        Self {
            wakers: vec![waiter],
            ..Self::at(Phase::Starting { lived: false }, false)
        }
    }

    /// A sandbox that is a snapshot.
    pub(crate) fn paused() -> Self {
        Self::at(Phase::Paused, true)
    }

    fn at(phase: Phase, durable: bool) -> Self {
        Self {
            phase,
            durable,
            wakers: Vec::new(),
            pausers: Vec::new(),
            killers: Vec::new(),
        }
    }

    /// What others see.
    pub(crate) fn state(&self) -> SandboxState {
        match self.phase {
            Phase::Starting { .. } => SandboxState::Starting,
            Phase::Running => SandboxState::Running,
            Phase::Pausing { .. } => SandboxState::Pausing,
            Phase::Paused => SandboxState::Paused,
            Phase::Stopping => SandboxState::Stopping,
            Phase::Stopped(reason) => SandboxState::Stopped(reason),
        }
    }

    /// Whether somebody waits for it to wake.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.wakers.is_empty()
    }

    /// Takes one input and says what is to be done.
    pub(crate) fn step(&mut self, input: Input) -> Vec<Effect> {
        match self.phase {
            Phase::Starting { lived } => self.starting_step(input, lived),
            Phase::Running => self.running_step(input),
            Phase::Pausing { machine } => self.pausing_step(input, machine),
            Phase::Paused => self.paused_step(input),
            Phase::Stopping => self.stopping_step(input),
            Phase::Stopped(_) => match input {
                Input::Wake(waiter)
                | Input::Pause(waiter)
                | Input::Rollback(waiter)
                | Input::Kill(waiter) => {
                    vec![Effect::Answer(vec![waiter], Answer::Gone)]
                }
                _ => Vec::new(),
            },
        }
    }

    fn starting_step(&mut self, input: Input, lived: bool) -> Vec<Effect> {
        match input {
            Input::Wake(waiter) => self.wait_to_wake(waiter),
            Input::Pause(waiter) | Input::Rollback(waiter) => {
                vec![Effect::Answer(vec![waiter], Answer::Conflict)]
            }
            Input::Kill(waiter) => self.destroy(waiter),
            Input::Started => {
                self.phase = Phase::Running;
                let mut effects = vec![Effect::OpenGate];
                effects.extend(answer(&mut self.wakers, Answer::Running));
                effects
            }
            Input::StartFailed => {
                let reason = if lived {
                    StopReason::Crashed
                } else {
                    StopReason::StartFailed
                };
                self.without_machine(reason)
            }
            _ => Vec::new(),
        }
    }

    fn running_step(&mut self, input: Input) -> Vec<Effect> {
        match input {
            Input::Wake(waiter) => vec![Effect::Answer(vec![waiter], Answer::Running)],
            Input::Idle => self.pause(),
            Input::Pause(waiter) => {
                self.pausers.push(waiter);
                self.pause()
            }
            Input::Rollback(waiter) => {
                self.durable = true;
                self.wakers.push(waiter);
                self.phase = Phase::Starting { lived: false };
                vec![Effect::ShutGate, Effect::Release, Effect::Restore]
            }
            Input::Kill(waiter) => {
                let mut effects = vec![Effect::ShutGate];
                effects.extend(self.destroy(waiter));
                effects
            }
            Input::Exited => {
                let mut effects = vec![Effect::ShutGate];
                effects.extend(self.without_machine(StopReason::Crashed));
                effects
            }
            Input::Kept => {
                self.durable = true;
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn pausing_step(&mut self, input: Input, machine: bool) -> Vec<Effect> {
        match input {
            Input::Wake(waiter) => self.wait_to_wake(waiter),
            Input::Pause(waiter) => {
                self.pausers.push(waiter);
                Vec::new()
            }
            Input::Rollback(waiter) => vec![Effect::Answer(vec![waiter], Answer::Conflict)],
            Input::Kill(waiter) => self.destroy(waiter),
            Input::Exited => {
                self.phase = Phase::Pausing { machine: false };
                Vec::new()
            }
            Input::Snapshotted => {
                self.durable = true;
                let mut effects = answer(&mut self.pausers, Answer::Paused);
                if self.wakers.is_empty() {
                    self.phase = Phase::Paused;
                    effects.extend(machine.then_some(Effect::Release));
                } else {
                    self.phase = Phase::Starting { lived: machine };
                    effects.push(if machine {
                        Effect::Unpause
                    } else {
                        Effect::Restore
                    });
                }
                effects
            }
            Input::SnapshotFailed if machine => {
                self.phase = Phase::Starting { lived: true };
                let mut effects = answer(&mut self.pausers, Answer::SnapshotFailed);
                effects.push(Effect::Unpause);
                effects
            }
            Input::SnapshotFailed => self.without_machine(StopReason::Crashed),
            _ => Vec::new(),
        }
    }

    fn paused_step(&mut self, input: Input) -> Vec<Effect> {
        match input {
            Input::Wake(waiter) | Input::Rollback(waiter) => {
                self.wakers.push(waiter);
                self.phase = Phase::Starting { lived: false };
                vec![Effect::Restore]
            }
            Input::Pause(waiter) => vec![Effect::Answer(vec![waiter], Answer::AlreadyPaused)],
            Input::Kill(waiter) => {
                self.killers.push(waiter);
                self.stop(StopReason::Killed)
            }
            _ => Vec::new(),
        }
    }

    fn stopping_step(&mut self, input: Input) -> Vec<Effect> {
        match input {
            Input::Wake(waiter) | Input::Pause(waiter) | Input::Rollback(waiter) => {
                vec![Effect::Answer(vec![waiter], Answer::Conflict)]
            }
            Input::Kill(waiter) => {
                self.killers.push(waiter);
                Vec::new()
            }
            Input::Destroyed => self.stop(StopReason::Killed),
            _ => Vec::new(),
        }
    }

    fn wait_to_wake(&mut self, waiter: Waiter) -> Vec<Effect> {
        self.wakers.push(waiter);
        Vec::new()
    }

    fn pause(&mut self) -> Vec<Effect> {
        self.phase = Phase::Pausing { machine: true };
        vec![Effect::ShutGate, Effect::Snapshot]
    }

    fn destroy(&mut self, killer: Waiter) -> Vec<Effect> {
        self.phase = Phase::Stopping;
        self.killers.push(killer);
        let mut effects = answer(&mut self.wakers, Answer::Conflict);
        effects.extend(answer(&mut self.pausers, Answer::Conflict));
        effects.push(Effect::Destroy);
        effects
    }

    /// The machine is no more, and nobody asked for that.
    fn without_machine(&mut self, reason: StopReason) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.durable {
            self.phase = Phase::Paused;
        } else {
            // First, so that whoever is told may use the name again.
            effects.extend(self.stop(reason));
        }
        effects.extend(answer(&mut self.wakers, Answer::StartFailed));
        effects.extend(answer(&mut self.pausers, Answer::SnapshotFailed));
        effects
    }

    fn stop(&mut self, reason: StopReason) -> Vec<Effect> {
        self.phase = Phase::Stopped(reason);
        let mut effects = vec![Effect::DropAll];
        effects.extend(answer(&mut self.killers, Answer::Gone));
        effects
    }
}

fn answer(waiters: &mut Vec<Waiter>, answer: Answer) -> Vec<Effect> {
    match std::mem::take(waiters) {
        none if none.is_empty() => Vec::new(),
        some => vec![Effect::Answer(some, answer)],
    }
}
