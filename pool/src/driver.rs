//! The task of one sandbox: inputs in, effects out.
//!
//! The driver is the only writer of its sandbox. Commands, the idle clock, the machine's exit and the completions of its
//! own tasks arrive one by one and pass through [`Lifecycle::step`]; the driver performs the effects in order. Effects
//! that take long run as tasks, and their completions are inputs.

mod commands;
mod completions;
mod effects;
mod handle;
mod replies;

use std::{collections::VecDeque, future, sync::Arc, time::Duration, time::SystemTime};

use parking_lot::RwLock;
use pool_api::{Event, EventKind, SandboxInfo, SandboxSpec};
use snapshotter::{Damage, Pin};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{AbortHandle, JoinError, JoinSet},
    time::Instant,
};
use tracing::info;
use vmm_api::Exit;

pub(crate) use self::{
    commands::Command,
    handle::{Handle, InitialState},
    replies::CaptureRejected,
};
use self::{completions::Completion, replies::Replies};
use crate::{
    backoff::Backoff,
    capacity::KeptShare,
    gate::Gate,
    host::Host,
    idle::idle,
    lease::LeaseTarget,
    lifecycle::{Effect, Input, Lifecycle, StateChange},
    registry::Registration,
    running::RunningMachine,
    sandbox_dir::SandboxDir,
};

struct Driver {
    host: Arc<Host>,
    spec: Arc<SandboxSpec>,
    dir: SandboxDir,
    /// Keeps the id taken.
    registration: Option<Registration>,
    gate: Arc<Gate>,
    target: Arc<RwLock<Option<Arc<LeaseTarget>>>>,
    info: watch::Sender<SandboxInfo>,
    inbox: mpsc::Receiver<Command>,
    lifecycle: Lifecycle<Pin>,
    machine: Option<RunningMachine>,
    /// The memory that the sandbox keeps while it is paused; none before its first start.
    kept: Option<KeptShare>,
    /// Snapshots that the record may name although its write failed; it names another one after the next write.
    maybe_recorded: Vec<Pin>,
    replies: Replies,
    wake_backoff: Backoff,
    pause_backoff: Backoff,
    tasks: JoinSet<Completion>,
    /// The start in progress.
    starting: Option<AbortHandle>,
    shutdown: Option<oneshot::Sender<()>>,
}

enum DriverEvent {
    Command(Option<Command>),
    Completion(Result<Completion, JoinError>),
    Idle,
    Exit(Exit),
    Damage(Damage),
}

// === impl Driver ===

impl Driver {
    async fn run(mut self, effects: Vec<Effect<Pin>>) {
        for effect in effects {
            // The first start leads to no input at once.
            let _none = self.perform(effect).await;
        }
        while !self.lifecycle.is_stopped() && self.shutdown.is_none() {
            match self.next_event().await {
                DriverEvent::Command(Some(command)) => self.command(command).await,
                DriverEvent::Command(None) => break,
                DriverEvent::Completion(completion) => self.complete(completion).await,
                DriverEvent::Idle => {
                    if self.gate.shut_if_idle() {
                        self.apply(Input::Idle).await;
                    }
                }
                DriverEvent::Exit(exit) => self.machine_exited(exit).await,
                DriverEvent::Damage(damage) => self.memory_damaged(damage).await,
            }
        }
        self.close().await;
    }

    async fn next_event(&mut self) -> DriverEvent {
        let gate = Arc::clone(&self.gate);
        let window = self.spec.idle.filter(|_| self.lifecycle.may_idle());
        let least_awake = self.replies.running_since() + self.host.config.least_awake;
        let earliest = self
            .pause_backoff
            .until()
            .unwrap_or(least_awake)
            .max(least_awake);
        let (watches_exit, watches_damage) = (
            self.lifecycle.watches_exit(),
            self.lifecycle.watches_damage(),
        );
        let (exit, damage) = match &mut self.machine {
            Some(machine) => (Some(machine.exit.clone()), Some(&mut machine.damage)),
            None => (None, None),
        };
        tokio::select! {
            biased;
            Some(completion) = self.tasks.join_next() => DriverEvent::Completion(completion),
            exit = exited(exit), if watches_exit => DriverEvent::Exit(exit),
            damage = damaged(damage), if watches_damage => DriverEvent::Damage(damage),
            command = self.inbox.recv() => DriverEvent::Command(command),
            () = idle_for(&gate, window, earliest) => DriverEvent::Idle,
        }
    }

    /// Takes one input, publishes the new state and performs the effects.
    async fn apply(&mut self, input: Input<Pin>) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let effects = self.lifecycle.step(input);
            self.publish();
            for effect in effects {
                match effect {
                    Effect::Replay(deferred) => inputs.extend(deferred),
                    effect => {
                        if let Some(input) = self.perform(effect).await {
                            inputs.push_front(input);
                        }
                    }
                }
            }
        }
    }

    /// Publishes the sandbox's description.
    fn publish(&self) {
        let (state, epoch) = (self.lifecycle.state(), self.lifecycle.epoch());
        let source = self.lifecycle.source();
        let (last_error, now) = (self.replies.last_failure(), SystemTime::now());
        self.info.send_modify(|info| {
            if info.state != state {
                info!(%epoch, ?state, "sandbox state changed");
                (info.state, info.since) = (state, now);
            }
            if info.epoch != epoch {
                (info.epoch, info.started_at) = (epoch, now);
            }
            info.last_error = last_error;
            info.snapshot = source.map(|source| source.snapshot.id().clone());
            info.scope = source.map(|source| source.scope).unwrap_or_default();
        });
    }

    fn notify(&self, change: StateChange) {
        let kind = match change {
            StateChange::Started(cause) => EventKind::Started {
                cause,
                report: self.replies.start_report(),
            },
            StateChange::Paused { scope, cause } => EventKind::Paused { scope, cause },
            StateChange::Stopped(reason) => EventKind::Stopped(reason),
        };
        let event = Event {
            id: self.spec.id.clone(),
            epoch: self.lifecycle.epoch(),
            at: SystemTime::now(),
            kind,
        };
        // An error means that there is no subscriber.
        let _subscribers = self.host.events.send(event);
    }

    /// Ends the driver and everything it owns.
    async fn close(mut self) {
        self.shut_gate();
        self.tasks.shutdown().await;
        if let Some(machine) = self.machine.take() {
            machine.destroy().await;
        }
        drop(self.registration.take());
        if let Some(reply) = self.shutdown.take() {
            // The caller may have left.
            let _received = reply.send(());
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Pins that drop because the process ends must not remove the snapshots of sandboxes that still exist.
        if !self.lifecycle.is_stopped() {
            self.host.store.close();
        }
    }
}

async fn exited(exit: Option<watch::Receiver<Option<Exit>>>) -> Exit {
    let Some(mut exit) = exit else {
        return future::pending().await;
    };
    match exit.wait_for(Option::is_some).await {
        Ok(exit) => exit.clone().unwrap_or(Exit::Killed),
        Err(_) => Exit::Died("its monitor is no longer watched".to_owned()),
    }
}

async fn damaged(damage: Option<&mut mpsc::UnboundedReceiver<Damage>>) -> Damage {
    match damage {
        Some(damage) => match damage.recv().await {
            Some(damage) => damage,
            None => future::pending().await,
        },
        None => future::pending().await,
    }
}

async fn idle_for(gate: &Gate, window: Option<Duration>, earliest: Instant) {
    match window {
        Some(window) => idle(gate, window, earliest).await,
        None => future::pending().await,
    }
}
