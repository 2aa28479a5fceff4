//! Doing what the lifecycle says.

use std::sync::Arc;

use pool_api::{SnapshotScope, Start};
use snapshotter::Pin;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Driver, Inhabited, NotCaptured, Outcome, Plan, Record, Trouble};
use crate::{
    cause::{Shared, chain},
    host::blocking,
    lifecycle::Effect,
    pause::{Remember, go_on, write_down},
};

/// A running sandbox without a machine, or a paused one without a snapshot: a fault of this program.
#[derive(Debug, thiserror::Error)]
#[error("there is no {0} to do this with")]
struct Missing(&'static str);

impl Driver {
    pub(super) async fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::OpenGate => self.open_gate(),
            Effect::ShutGate => {
                self.gate.shut();
                if let Some(inhabited) = self.inhabited.write().take() {
                    inhabited.revoked.cancel();
                }
            }
            Effect::Restore => {
                self.next_life();
                match self.own.clone() {
                    Some(own) => {
                        if own.keep == SnapshotScope::DiskOnly {
                            self.from = SnapshotScope::DiskOnly;
                        }
                        self.spawn_start(Start::Restore, own.pin);
                    }
                    None => self.fail_start("snapshot"),
                }
            }
            Effect::Unpause => self.spawn_unpause(),
            Effect::Snapshot => self.spawn_snapshot(),
            Effect::Release => self.release().await,
            Effect::Destroy => self.spawn_destroy(),
            Effect::DropAll => self.drop_all().await,
            Effect::Answer(waiters, answer) => {
                for waiter in waiters {
                    self.answer(waiter, answer);
                }
            }
        }
    }

    fn open_gate(&mut self) {
        let Some(live) = &self.live else {
            return;
        };
        let inhabited = Inhabited {
            machine: Arc::clone(&live.machine),
            epoch: self.epoch(),
            revoked: CancellationToken::new(),
        };
        *self.inhabited.write() = Some(Arc::new(inhabited));
        self.ready = Instant::now();
        self.gate.open();
    }

    pub(super) fn spawn_start(&mut self, start: Start, snapshot: Pin) {
        self.began = Instant::now();
        self.frozen = false;
        let plan = Plan {
            start,
            from: std::mem::take(&mut self.from),
            snapshot,
            spec: Arc::clone(&self.spec),
            epoch: self.epoch(),
            resources: self.info.borrow().resources,
            home: self.home.clone(),
        };
        let host = Arc::clone(&self.host);
        let child =
            async move { Outcome::Started(Box::new(crate::start::start(&host, plan).await)) };
        self.starting = Some(self.children.spawn(child));
    }

    fn fail_start(&mut self, missing: &'static str) {
        self.trouble = Some(Trouble::Failed(Shared::new(Missing(missing))));
        self.children.spawn(async { Outcome::Unpaused(Err(())) });
    }

    fn spawn_unpause(&mut self) {
        self.began = Instant::now();
        let Some(live) = &self.live else {
            return self.fail_start("machine");
        };
        let machine = Arc::clone(&live.machine);
        let home = self.home.clone();
        let moved = std::mem::take(&mut self.moved);
        let new_tops = if moved {
            live.lineage.disk_sizes()
        } else {
            Vec::new()
        };
        let frozen = std::mem::take(&mut self.frozen);
        self.starting = Some(self.children.spawn(async move {
            let gone_on = go_on(&*machine, &home, new_tops, frozen).await;
            // Why it failed was logged there.
            Outcome::Unpaused(gone_on.map_err(drop))
        }));
    }

    fn spawn_snapshot(&mut self) {
        let Some(live) = &self.live else {
            self.trouble = Some(Trouble::Failed(Shared::new(Missing("machine"))));
            return;
        };
        let machine = Arc::clone(&live.machine);
        let cut = live.cut(&self.home);
        let keep = self.keeping;
        self.frozen = keep == SnapshotScope::DiskOnly;
        let remember = Some((self.home.clone(), self.remember(keep)));
        let (host, gate) = (Arc::clone(&self.host), Arc::clone(&self.gate));
        self.children.spawn(async move {
            if timeout(host.config.drain, gate.emptied()).await.is_err() {
                warn!("leases were not given back in time; pausing without them");
            }
            let written = write_down(&host, &*machine, keep, cut, remember).await;
            Outcome::Snapshotted(Box::new(written))
        });
    }

    /// Captures the running machine and lets it go on.
    pub(super) fn spawn_capture(
        &mut self,
        keep: SnapshotScope,
        reply: oneshot::Sender<Result<Pin, NotCaptured>>,
    ) {
        let Some(live) = &self.live else {
            return;
        };
        self.capturing = true;
        let machine = Arc::clone(&live.machine);
        let cut = live.cut(&self.home);
        let before = cut
            .disks
            .iter()
            .map(|disk| disk.chain.clone())
            .collect::<Vec<_>>();
        let sizes = live.lineage.disk_sizes();
        let home = self.home.clone();
        // What has no memory is nothing to go back to after a crash.
        let remember = (keep == SnapshotScope::Full).then(|| (home.clone(), self.remember(keep)));
        let host = Arc::clone(&self.host);
        self.children.spawn(async move {
            let written = write_down(&host, &*machine, keep, cut, remember).await;
            let moved = written.as_ref().is_ok_and(|committed| {
                let now = committed
                    .manifest
                    .disks
                    .iter()
                    .map(|disk| disk.chain.owned_by(committed.pin.id()));
                !now.eq(before)
            });
            // When it cannot go on it is killed, and that is taken note of as its exit.
            let new_tops = if moved { sizes } else { Vec::new() };
            let _went_on = go_on(&*machine, &home, new_tops, keep == SnapshotScope::DiskOnly).await;
            Outcome::Captured {
                written: Box::new(written),
                keep,
                reply,
            }
        });
    }

    /// Makes the record of the sandbox as it will be once its snapshot has a name.
    fn remember(&self, keep: SnapshotScope) -> Remember {
        let info = self.info.borrow().clone();
        let spec = (*self.spec).clone();
        Box::new(move |snapshot| Record {
            spec,
            epoch: info.epoch,
            started_at: info.started_at,
            since: std::time::SystemTime::now(),
            resources: info.resources,
            snapshot,
            keep,
        })
    }

    /// Ends the machine; its exit is no news.
    pub(super) async fn release(&mut self) {
        if let Some(live) = self.live.take() {
            live.end().await;
        }
        let home = self.home.clone();
        if let Ok(Err(error)) = blocking(move || home.drop_top()).await {
            warn!(%error, "cannot remove the writable layer of a paused sandbox");
        }
    }

    fn spawn_destroy(&mut self) {
        if let Some(starting) = self.starting.take() {
            starting.abort();
        }
        let live = self.live.take();
        let (gate, drain) = (Arc::clone(&self.gate), self.host.config.drain);
        self.children.spawn(async move {
            if timeout(drain, gate.emptied()).await.is_err() {
                warn!("leases were not given back in time; ending the machine under them");
            }
            if let Some(live) = live {
                live.end().await;
            }
            Outcome::Destroyed
        });
    }

    /// Nothing of the sandbox is left when this returns.
    async fn drop_all(&mut self) {
        self.release().await;
        self.own = None;
        let home = self.home.clone();
        if let Ok(Err(error)) = blocking(move || home.remove()).await {
            warn!(error = chain(&error), "cannot remove a sandbox's files");
        }
        // Others may take the name from here on.
        self.host.registry.remove(&self.spec.id);
        self.host.collect().await;
    }
}
