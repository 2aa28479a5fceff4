//! The test suite that every [`Node`] passes: rows for the sentences of its documentation.
//!
//! [`check`] runs the rows one after the other on a host that a [`Harness`] provides. Rows that need a fault, a delay or
//! a full host run where the harness has [`Faults`].

mod create;
mod describe;
mod enter;
mod fork;
mod kill;
mod pause;
mod resume;
mod rollback;
mod snapshot;

use std::{collections::BTreeMap, future::Future, pin::Pin, time::Duration};

use async_trait::async_trait;
use tokio::{
    sync::broadcast,
    time::{Instant, timeout},
};

use crate::{
    Epoch, Event, EventKind, Lease, Node, Origin, SandboxId, SandboxInfo, SandboxSpec,
    SandboxState, Secret, SnapshotScope, TakenSnapshot, TemplateName,
};

/// The time after which a row fails. A guest on a slow machine may take a minute to boot.
const ROW_TIMEOUT: Duration = Duration::from_secs(180);

/// A host under test.
pub trait Harness: Sync {
    /// Returns the host. It has no sandboxes.
    fn node(&self) -> &dyn Node;

    /// Names a template that is built.
    fn template(&self) -> TemplateName;

    /// Returns the control over faults, where the host has it.
    fn faults(&self) -> Option<&dyn Faults>;
}

/// Faults and delays of a host under test.
#[async_trait]
pub trait Faults: Sync {
    /// Makes the next wake or rollback fail.
    fn fail_next_start(&self);

    /// Makes the next pause or snapshot fail.
    fn fail_next_capture(&self);

    /// Holds the pauses that begin from now on.
    fn hold_pauses(&self);

    /// Returns once this number of pauses is held.
    async fn wait_for_held_pauses(&self, count: u64);

    /// Completes held pauses, and holds no more.
    fn release_pauses(&self);

    /// Holds the wakes that begin from now on.
    fn hold_starts(&self);

    /// Returns once this number of wakes is held.
    async fn wait_for_held_starts(&self, count: u64);

    /// Completes held wakes, and holds no more.
    fn release_starts(&self);

    /// Ends the machine of this sandbox, as a crash would.
    fn crash(&self, id: &SandboxId);

    /// Makes creates fail for want of room, or not.
    fn set_room(&self, room: Room);
}

/// Whether a host has room for another sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Creates succeed.
    Free,
    /// Creates fail.
    Full,
}

type Row<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Runs every row. Panics with the row's name when one fails or hangs.
pub async fn check(harness: &dyn Harness) {
    let bench = Bench { harness };
    let rows: Vec<(&str, Row<'_>)> = [
        create::rows(&bench),
        enter::rows(&bench),
        pause::rows(&bench),
        resume::rows(&bench),
        rollback::rows(&bench),
        fork::rows(&bench),
        snapshot::rows(&bench),
        kill::rows(&bench),
        describe::rows(&bench),
    ]
    .into_iter()
    .flatten()
    .collect();
    for (name, row) in rows {
        // The test runner prints it if the test fails.
        eprintln!("contract row: {name}");
        let begun = Instant::now();
        assert!(timeout(ROW_TIMEOUT, row).await.is_ok(), "{name} hangs");
        bench.clear().await;
        eprintln!("{name}: {:.1} s", begun.elapsed().as_secs_f64());
    }
}

/// The harness, with helpers for all rows.
struct Bench<'a> {
    harness: &'a dyn Harness,
}

impl Bench<'_> {
    fn node(&self) -> &dyn Node {
        self.harness.node()
    }

    fn spec(&self, name: &str) -> SandboxSpec {
        SandboxSpec {
            id: id(name),
            epoch: Epoch(1),
            origin: Origin::Template(self.harness.template()),
            template: self.harness.template(),
            idle: None,
            env: BTreeMap::new(),
            access_token: Some(Secret::new("token")),
        }
    }

    /// Creates a sandbox, and waits for its event, which may follow the call's return.
    async fn create(&self, name: &str) -> SandboxInfo {
        let mut events = self.events();
        let info = expect_ok(self.node().create(self.spec(name)).await);
        started(&events.next(name).await);
        info
    }

    /// Creates a sandbox and pauses it.
    async fn create_paused(&self, name: &str, scope: SnapshotScope) -> TakenSnapshot {
        let info = self.create(name).await;
        let mut events = self.events();
        let taken = expect_ok(self.node().pause(&info.id, info.epoch, scope).await);
        paused(&events.next(name).await);
        taken
    }

    async fn info(&self, name: &str) -> SandboxInfo {
        let info = self.node().info(&id(name)).await;
        info.unwrap_or_else(|| panic!("{name} does not exist"))
    }

    async fn state(&self, name: &str) -> SandboxState {
        self.info(name).await.state
    }

    fn events(&self) -> Events {
        Events(self.node().events())
    }

    /// Kills a sandbox, and waits for its event, so that a later sandbox of the same name does not receive it.
    async fn kill(&self, name: &SandboxId) {
        let mut events = self.events();
        // It may end by itself.
        if self.node().kill(name).await.is_ok() {
            while !matches!(events.next_of(name).await.kind, EventKind::Stopped(_)) {}
        }
    }

    /// Removes what a row left.
    async fn clear(&self) {
        for info in self.node().list().await {
            self.kill(&info.id).await;
        }
        for snapshot in self.node().retained_snapshots().await {
            let released = self.node().release_snapshot(&snapshot).await;
            assert!(released.is_ok(), "{released:?}");
        }
    }
}

/// A subscription to a host's events.
struct Events(broadcast::Receiver<Event>);

impl Events {
    /// Returns the next event of a sandbox.
    async fn next(&mut self, name: &str) -> Event {
        self.next_of(&id(name)).await
    }

    async fn next_of(&mut self, id: &SandboxId) -> Event {
        loop {
            let event = self.0.recv().await;
            let event = event.unwrap_or_else(|error| panic!("{error}"));
            if event.id == *id {
                return event;
            }
        }
    }

    /// Asserts that a sandbox has no further event.
    fn assert_none(&mut self, name: &str) {
        while let Ok(event) = self.0.try_recv() {
            assert_ne!(event.id, id(name), "{event:?}");
        }
    }
}

/// Asserts that an event is a start, and returns its facts.
fn started(event: &Event) -> (crate::StartCause, crate::Start) {
    match &event.kind {
        EventKind::Started { cause, report } => (*cause, report.start),
        other => panic!("{other:?} is no start"),
    }
}

/// Asserts that an event is a pause, and returns its facts.
fn paused(event: &Event) -> (SnapshotScope, crate::PauseCause) {
    match &event.kind {
        EventKind::Paused { scope, cause } => (*scope, *cause),
        other => panic!("{other:?} is no pause"),
    }
}

/// Asserts that a result is a failure, and returns it.
fn expect_err<T, E>(result: Result<T, E>) -> E {
    match result {
        Ok(_) => panic!("the call succeeded"),
        Err(error) => error,
    }
}

/// Asserts that a result is a success, and returns it.
fn expect_ok<T, E: std::fmt::Debug>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{error:?}"))
}

/// Asserts that a lease is revoked, and that it dials no more.
async fn assert_revoked(lease: &dyn Lease) {
    lease.revoked().await;
    let dialled = lease.dial(port(80)).await;
    assert!(
        matches!(dialled, Err(crate::DialError::Gone)),
        "{dialled:?}"
    );
}

fn port(number: u16) -> crate::Port {
    crate::Port::try_from(number).unwrap_or_else(|error| panic!("{error}"))
}

fn id(name: &str) -> SandboxId {
    name.parse().unwrap_or_else(|error| panic!("{error}"))
}
