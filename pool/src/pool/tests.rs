//! The pool over the fake hypervisor: real files and sockets, no KVM.

mod broken;
mod capacity;
mod contract;
mod disk_only;
mod failures;
mod fork;
mod layers;
mod lifecycle;
mod recovery;
mod retention;
mod templates;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use pool_api::{
    EnterError, Epoch, Event, EventKind, IfPaused, Lease, Node, Origin, PauseCause, Port,
    SandboxId, SandboxInfo, SandboxSpec, SandboxState, Secret, SnapshotScope, StopReason,
    TemplateName,
};
use snapshotter::MemoryMode;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    sync::broadcast,
};
use vmm_api::fake::FakeHypervisor;

use super::Pool;
use crate::{Artefacts, BlankCount, Config, Limits};

const MEMORY: u64 = 4 << 20;
const DISK: u64 = 1 << 20;

struct Rig {
    dir: TempDir,
    fake: FakeHypervisor,
    pool: Arc<Pool>,
}

fn id(name: &str) -> SandboxId {
    name.parse().unwrap()
}

fn base() -> TemplateName {
    "base".parse().unwrap()
}

fn spec(name: &str) -> SandboxSpec {
    SandboxSpec {
        id: id(name),
        epoch: Epoch(1),
        origin: Origin::Template(base()),
        template: base(),
        idle: None,
        env: BTreeMap::from([("COLOUR".to_owned(), "blue".to_owned())]),
        access_token: Some(Secret::new(format!("token of {name}"))),
    }
}

impl Rig {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("kernel"), "kernel").unwrap();
        fs::write(dir.path().join("disk"), vec![b'd'; 8192]).unwrap();
        let fake = FakeHypervisor::new();
        let mut config = Self::config(dir.path(), &fake);
        change(&mut config);
        let pool = Pool::start(config).unwrap();
        pool.build_template(&base()).await.unwrap();
        Self { dir, fake, pool }
    }

    fn config(dir: &Path, fake: &FakeHypervisor) -> Config {
        let artefacts = Artefacts {
            kernel: dir.join("kernel"),
            disk: dir.join("disk"),
            command_line: "quiet".to_owned(),
        };
        let limits = Limits {
            memory: 64 * MEMORY,
            machines: 64,
        };
        let mut config = Config::new(dir.join("data"), artefacts, Arc::new(fake.clone()), limits);
        config.resources.memory = MEMORY;
        config.resources.disk = DISK;
        config.blanks = vec![BlankCount {
            vcpus: 1,
            memory: MEMORY,
            count: 1,
        }];
        config.memory = MemoryMode::Cow;
        config.settle_time = Duration::ZERO;
        config.least_awake = Duration::ZERO;
        config.disk_reserve = 0;
        config
    }

    /// Restarts the pool as after `kill -9`: nothing ends in order.
    async fn crash(self) -> Self {
        self.crash_with(|_| {}).await
    }

    async fn crash_with(self, adjust: impl FnOnce(&mut Config)) -> Self {
        let Self { dir, fake, pool } = self;
        fake.crash_all();
        // The lock is released with the last part of the old pool.
        let handles = pool.registry.all();
        for handle in &handles {
            handle
                .ask(|reply| crate::driver::Command::Shutdown { reply })
                .await;
        }
        pool.host.blanks.close();
        drop(handles);
        let host = Arc::downgrade(&pool.host);
        drop(pool);
        while host.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
        let mut config = Self::config(dir.path(), &fake);
        adjust(&mut config);
        let pool = Pool::start(config).unwrap();
        Self { dir, fake, pool }
    }

    /// Creates a sandbox with a known page and a known block.
    async fn with_data(name: &str) -> Self {
        let rig = Self::new().await;
        rig.create(name).await;
        rig.say(name, "write 7 memory").await;
        rig.say(name, "disk-write 7 disk").await;
        rig
    }

    async fn create(&self, name: &str) -> SandboxInfo {
        self.pool.create(spec(name)).await.unwrap()
    }

    async fn enter(&self, name: &str) -> Box<dyn Lease> {
        self.pool.enter(&id(name), IfPaused::Wake).await.unwrap()
    }

    async fn say(&self, name: &str, line: &str) -> String {
        say(&*self.enter(name).await, line).await
    }

    async fn state(&self, name: &str) -> SandboxState {
        self.pool.info(&id(name)).await.unwrap().state
    }

    async fn pause(&self, name: &str) {
        self.pause_scope(name, SnapshotScope::Full).await;
    }

    async fn pause_scope(&self, name: &str, scope: SnapshotScope) {
        let epoch = self.pool.info(&id(name)).await.unwrap().epoch;
        self.pool.pause(&id(name), epoch, scope).await.unwrap();
    }

    fn data(&self, part: &str) -> PathBuf {
        self.dir.path().join("data").join(part)
    }

    fn count(&self, part: &str) -> usize {
        fs::read_dir(self.data(part)).unwrap().count()
    }
}

async fn say(lease: &dyn Lease, line: &str) -> String {
    try_say(lease, line).await.unwrap()
}

async fn try_say(lease: &dyn Lease, line: &str) -> Option<String> {
    let stream = lease.dial(Port::try_from(80).unwrap()).await.ok()?;
    let mut stream = BufReader::new(stream);
    stream
        .write_all(format!("{line}\n").as_bytes())
        .await
        .ok()?;
    let mut answer = String::new();
    let len = stream.read_line(&mut answer).await.ok()?;
    (len > 0).then(|| answer.trim_end().to_owned())
}

/// Returns once a sandbox has an event of this kind, whatever its details.
async fn wait_for_event(events: &mut broadcast::Receiver<Event>, name: &str, kind: Kind) {
    loop {
        let event = events.recv().await.unwrap();
        let found = match event.kind {
            EventKind::Started { .. } => Kind::Started,
            EventKind::Paused { cause, .. } => Kind::Paused(cause),
            EventKind::Stopped(reason) => Kind::Stopped(reason),
        };
        if event.id == id(name) && found == kind {
            return;
        }
    }
}

/// A kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Started,
    Paused(PauseCause),
    Stopped(StopReason),
}

fn source_text(error: &(dyn std::error::Error + 'static)) -> String {
    error_chain::chain(error).to_string()
}

fn failed(result: Result<Box<dyn Lease>, EnterError>) -> String {
    match result {
        Err(error @ EnterError::Failed { .. }) => source_text(&error),
        other => panic!("{other:?}"),
    }
}
