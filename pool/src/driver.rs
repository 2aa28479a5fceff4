//! One task a sandbox: inputs in, effects out.
//!
//! The driver is the only writer of its sandbox. Requests, the idle clock, the machine's exit and the outcomes of its own
//! long effects come in one by one and go through [`Lifecycle::step`]; what it says is done in order. A long effect runs
//! as a child and comes back as an outcome. A snapshot of a running machine that goes on is a child, too: while it is
//! made, calls that would pause the sandbox wait.

mod effects;
mod handle;
mod outcome;
mod reply;
mod turn;

use std::{
    collections::{HashMap, VecDeque},
    future,
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::RwLock;
use pool_api::{
    Epoch, Event, EventKind, PauseCause, SandboxInfo, SandboxSpec, SandboxState, SnapshotScope,
    Stage, StartCause, WakeReport,
};
use snapshotter::Damage;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{AbortHandle, JoinSet},
    time::Instant,
};
use tracing::{error, info, warn};
use vmm_api::Exit;

pub(crate) use self::handle::{Beginning, Command, Handle, NotCaptured, Own};
use self::{
    outcome::Outcome,
    reply::{Reply, Trouble},
};
use crate::{
    cause::chain,
    gate::Gate,
    home::{Home, Record},
    host::Host,
    idle::idle,
    lease::{Held, Inhabited},
    lifecycle::{Input, Lifecycle, Waiter},
    live::Live,
    start::{Plan, StartError},
};

struct Driver {
    host: Arc<Host>,
    spec: Arc<SandboxSpec>,
    home: Home,
    gate: Arc<Gate>,
    inhabited: Arc<RwLock<Option<Arc<Inhabited>>>>,
    info: watch::Sender<SandboxInfo>,
    inbox: mpsc::Receiver<Command>,
    life: Lifecycle,
    live: Option<Live>,
    /// What it wakes from.
    own: Option<Own>,
    /// What the pause under way keeps.
    keeping: SnapshotScope,
    /// Why it is being paused.
    pause_cause: PauseCause,
    /// What of its snapshot the next machine is made of.
    from: SnapshotScope,
    /// The guest's filesystem may be frozen.
    frozen: bool,
    trouble: Option<Trouble>,
    /// Who waits for what.
    replies: HashMap<Waiter, Reply>,
    next_waiter: Waiter,
    children: JoinSet<Outcome>,
    starting: Option<AbortHandle>,
    /// When the start under way began, and what the last one cost.
    began: Instant,
    /// When the gate was last opened.
    ready: Instant,
    report: Option<WakeReport>,
    /// The machine's disk lies on other layers since the last snapshot.
    moved: bool,
    /// A snapshot of the running machine is being made.
    capturing: bool,
    /// What waits until it is made.
    deferred: VecDeque<Command>,
    /// The machine's end was taken note of.
    exit_seen: bool,
    /// The machine was ended; children of it may still be.
    destroyed: bool,
    shutdown: Option<oneshot::Sender<()>>,
}

enum Woken {
    Command(Option<Command>),
    Child(Result<Outcome, tokio::task::JoinError>),
    Idle,
    Exit(Exit),
    Damage(Damage),
}

// === impl Driver ===

impl Driver {
    fn new(
        host: Arc<Host>,
        spec: Arc<SandboxSpec>,
        home: Home,
        gate: Arc<Gate>,
        inhabited: Arc<RwLock<Option<Arc<Inhabited>>>>,
        info: watch::Sender<SandboxInfo>,
        inbox: mpsc::Receiver<Command>,
    ) -> Self {
        Self {
            life: Lifecycle::paused(),
            live: None,
            own: None,
            keeping: SnapshotScope::Full,
            pause_cause: PauseCause::Requested,
            from: SnapshotScope::Full,
            frozen: false,
            trouble: None,
            replies: HashMap::new(),
            next_waiter: 0,
            children: JoinSet::new(),
            starting: None,
            began: Instant::now(),
            ready: Instant::now(),
            report: None,
            moved: false,
            capturing: false,
            deferred: VecDeque::new(),
            exit_seen: false,
            destroyed: false,
            shutdown: None,
            host,
            spec,
            home,
            gate,
            inhabited,
            info,
            inbox,
        }
    }

    async fn run(mut self, beginning: Beginning) {
        match beginning {
            Beginning::Fork {
                snapshot, reply, ..
            } => {
                let waiter = self.wait(Reply::Enter {
                    asked: Instant::now(),
                    reply,
                });
                self.life = Lifecycle::starting(waiter);
                self.from = snapshot.keep;
                self.spawn_start(pool_api::Start::Fork, snapshot.pin);
            }
            Beginning::Paused { own, record } => {
                self.life = Lifecycle::paused();
                self.own = Some(Own {
                    pin: own,
                    keep: record.keep,
                });
            }
        }
        while !matches!(self.life.state(), SandboxState::Stopped(_)) && self.shutdown.is_none() {
            match self.woken().await {
                Woken::Command(Some(command)) => self.command(command).await,
                Woken::Command(None) => break,
                Woken::Child(outcome) => self.child(outcome).await,
                Woken::Idle => {
                    if self.gate.shut_if_idle() {
                        self.keeping = SnapshotScope::Full;
                        self.pause_cause = PauseCause::Idle;
                        self.feed(Input::Idle).await;
                    }
                }
                Woken::Exit(exit) => self.exited(&exit).await,
                Woken::Damage(damage) => self.damaged(damage).await,
            }
        }
        self.close().await;
    }

    /// What happens next.
    async fn woken(&mut self) -> Woken {
        let state = self.life.state();
        let running = state == SandboxState::Running && !self.capturing;
        let heeds_exit = !self.exit_seen && (running || state == SandboxState::Pausing);
        let gate = Arc::clone(&self.gate);
        let window = self.spec.idle.filter(|_| running);
        let (exit, damage) = match &mut self.live {
            Some(live) => (Some(live.exit.clone()), Some(&mut live.damage)),
            None => (None, None),
        };
        tokio::select! {
            biased;
            Some(outcome) = self.children.join_next() => Woken::Child(outcome),
            exit = ended(exit), if heeds_exit => Woken::Exit(exit),
            damage = reported(damage), if heeds_exit => Woken::Damage(damage),
            command = self.inbox.recv() => Woken::Command(command),
            () = unused(&gate, window) => Woken::Idle,
        }
    }

    async fn command(&mut self, command: Command) {
        match command {
            Command::Enter { wake, asked, reply } => self.enter(wake, asked, reply).await,
            Command::Kill { reply } => {
                let waiter = self.wait(Reply::Kill(reply));
                self.feed(Input::Kill(waiter)).await;
            }
            Command::Shutdown { reply } => self.shutdown = Some(reply),
            later
            @ (Command::Pause { .. } | Command::Capture { .. } | Command::Rollback { .. })
                if self.capturing =>
            {
                self.deferred.push_back(later);
            }
            Command::Resume { from, asked, reply } => self.wake(from, asked, reply).await,
            Command::Rollback { to, asked, reply } => self.roll_back(to, asked, reply).await,
            Command::Pause {
                epoch,
                keep,
                cause,
                reply,
            } => self.pause(epoch, keep, cause, reply).await,
            Command::Capture { keep, reply } => {
                if self.life.state() == SandboxState::Running && self.live.is_some() {
                    self.spawn_capture(keep, reply);
                } else {
                    let not = NotCaptured::State(self.life.state(), self.own.clone());
                    drop(reply.send(Err(not)));
                }
            }
        }
    }

    async fn exited(&mut self, exit: &Exit) {
        warn!(%exit, "the machine ended by itself");
        self.exit_seen = true;
        if self.trouble.is_none() || self.life.state() == SandboxState::Running {
            self.trouble = Some(Trouble::Ended(exit.clone()));
        }
        if self.life.state() == SandboxState::Running {
            self.release().await;
        }
        self.feed(Input::Exited).await;
    }

    /// A page cannot be served: the machine would wait for ever, so it is ended, and its exit is taken note of.
    async fn damaged(&mut self, damage: Damage) {
        error!(error = chain(&damage), "guest memory is damaged");
        self.trouble = Some(Trouble::Failed(crate::cause::Shared::new(
            StartError::Damaged(damage),
        )));
        self.exit_seen = true;
        if self.life.state() == SandboxState::Running {
            self.release().await;
        } else if let Some(live) = &self.live {
            live.machine.kill().await;
        }
        self.feed(Input::Exited).await;
    }

    /// Takes one input, tells others where the sandbox is now, and does what is to be done.
    async fn feed(&mut self, input: Input) {
        let before = self.life.state();
        let effects = self.life.step(input);
        let news = self.publish(before);
        for effect in effects {
            self.carry_out(effect).await;
        }
        // Told when it is so: a sandbox that is gone has left nothing.
        if let Some(event) = news {
            // An error only says that nobody listens.
            let _listeners = self.host.events.send(event);
        }
    }

    /// Tells others where the sandbox is, and gives what is to be told once that is done.
    fn publish(&mut self, before: SandboxState) -> Option<Event> {
        let state = self.life.state();
        let trouble = self.trouble.as_ref().map(Trouble::text);
        let snapshot = self.own.as_ref().map(|own| own.pin.id().clone());
        let keep = self.own.as_ref().map(|own| own.keep).unwrap_or_default();
        let changed = state != before;
        let now = SystemTime::now();
        self.info.send_modify(|info| {
            if changed {
                info.since = now;
            }
            (info.state, info.last_error, info.snapshot) = (state, trouble, snapshot);
            info.scope = keep;
        });
        if !changed {
            return None;
        }
        info!(epoch = %self.epoch(), ?state, "changed");
        let kind = match state {
            SandboxState::Running => {
                let report = self.report.clone()?;
                let cause = if self.epoch() == self.spec.epoch {
                    StartCause::Created
                } else {
                    StartCause::Woken
                };
                EventKind::Started { cause, report }
            }
            SandboxState::Paused => EventKind::Paused {
                scope: keep,
                cause: match before {
                    SandboxState::Pausing if self.trouble.is_some() => PauseCause::MachineLost,
                    SandboxState::Pausing => self.pause_cause,
                    SandboxState::Running => PauseCause::MachineLost,
                    _ => PauseCause::StartFailed,
                },
            },
            SandboxState::Stopped(reason) => EventKind::Stopped(reason),
            _ => return None,
        };
        Some(Event {
            id: self.spec.id.clone(),
            epoch: self.epoch(),
            at: now,
            kind,
        })
    }

    fn epoch(&self) -> Epoch {
        self.info.borrow().epoch
    }

    /// A new life begins.
    fn next_life(&mut self) {
        self.info.send_modify(|info| {
            info.epoch = info.epoch.next();
            info.started_at = SystemTime::now();
        });
    }

    /// The driver ends, and with it whatever it has.
    async fn close(mut self) {
        self.gate.shut();
        if let Some(inhabited) = self.inhabited.write().take() {
            inhabited.revoked.cancel();
        }
        self.children.shutdown().await;
        if let Some(live) = self.live.take() {
            live.end().await;
        }
        self.host.registry.remove(&self.spec.id);
        if let Some(reply) = self.shutdown.take() {
            // Whoever asked may have gone.
            let _heard = reply.send(());
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // A sandbox that is not gone lets go of its pins because the process ends, and needs its snapshots later.
        if !matches!(self.life.state(), SandboxState::Stopped(_)) {
            self.host.store.close();
        }
    }
}

async fn ended(exit: Option<watch::Receiver<Option<Exit>>>) -> Exit {
    let Some(mut exit) = exit else {
        return future::pending().await;
    };
    match exit.wait_for(Option::is_some).await {
        Ok(exit) => exit.clone().unwrap_or(Exit::Killed),
        Err(_) => Exit::Died("its monitor is no longer watched".to_owned()),
    }
}

async fn reported(damage: Option<&mut mpsc::UnboundedReceiver<Damage>>) -> Damage {
    match damage {
        Some(damage) => match damage.recv().await {
            Some(damage) => damage,
            None => future::pending().await,
        },
        None => future::pending().await,
    }
}

async fn unused(gate: &Gate, window: Option<Duration>) {
    match window {
        Some(window) => idle(gate, window).await,
        None => future::pending().await,
    }
}
