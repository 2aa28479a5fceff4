//! Carries out what the API asks: on the host, in the ledger, and in what the edge is told.
//!
//! The order of writes decides what a crash leaves behind. A sandbox is made before it is noted, so that what nobody was
//! told of is found without an entry and killed. It is withdrawn before it is killed, so that the edge says that it is
//! gone before any stream breaks.

mod error;
mod fork;
mod wake;

use std::{sync::Arc, time::Duration};

use coordinator::{Coordinator, Placement};
use pool_api::{
    Epoch, KillError, Node, Origin, PauseError, SandboxId, SandboxInfo, SandboxSpec, SandboxState,
    Secret, TemplateName,
};
use rand::RngCore;
use tokio::sync::Notify;

pub(crate) use self::{
    error::{Conflict, Failure},
    wake::Connected,
};
use crate::{
    config::Config,
    ledger::{Entry, Lasting, Ledger},
    time::Micros,
};

/// A wake by traffic grants at least this.
pub(crate) const SHORTEST_AUTO_RESUME: Duration = Duration::from_secs(300);

/// Everything the routes need.
#[derive(Debug)]
pub(crate) struct Sandboxes {
    pub(crate) config: Config,
    pub(crate) node: Arc<dyn Node>,
    pub(crate) coordinator: Arc<dyn Coordinator>,
    pub(crate) ledger: Ledger,
    /// Told whenever the earliest end may have changed.
    pub(crate) ends_changed: Notify,
}

/// A sandbox to be made.
#[derive(Debug)]
pub(crate) struct NewSandbox {
    /// What it keeps.
    pub(crate) lasting: Lasting,
    /// Its guest agent asks for a token.
    pub(crate) secure: bool,
    /// Its ports ask for a token.
    pub(crate) private: bool,
}

/// A sandbox as callers see it: the entry, with the host's word on where it is.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// What was promised.
    pub(crate) entry: Entry,
    /// Whether it runs, or is about to.
    pub(crate) running: bool,
}

/// A token nobody can guess: 40 hexadecimal digits.
fn new_token() -> Secret {
    let mut bytes = [0; 20];
    rand::rng().fill_bytes(&mut bytes);
    Secret::new(
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>(),
    )
}

fn runs(state: SandboxState) -> Option<bool> {
    match state {
        SandboxState::Starting | SandboxState::Running => Some(true),
        SandboxState::Pausing | SandboxState::Paused => Some(false),
        SandboxState::Stopping | SandboxState::Stopped(_) => None,
    }
}

// === impl Sandboxes ===

impl Sandboxes {
    /// Makes a sandbox.
    pub(crate) async fn create(&self, new: NewSandbox) -> Result<Entry, Failure> {
        let spec = SandboxSpec {
            id: SandboxId::generate(&mut rand::rng()),
            epoch: Epoch(1),
            origin: Origin::Template(new.lasting.template.clone()),
            template: new.lasting.template.clone(),
            idle: new.lasting.idle_timeout,
            env: new.lasting.env.clone(),
            access_token: new.secure.then(new_token),
        };
        let envd_token = spec.access_token.clone();
        let traffic_token = new.private.then(new_token);
        let end = new.lasting.timeout;
        let info = self.node.create(spec).await?;
        self.note_new(info, new.lasting, envd_token, traffic_token, end)
            .await
    }

    /// Notes a sandbox that was made, and lets the edge know.
    async fn note_new(
        &self,
        info: SandboxInfo,
        lasting: Lasting,
        envd_token: Option<Secret>,
        traffic_token: Option<Secret>,
        timeout: Duration,
    ) -> Result<Entry, Failure> {
        let now = Micros::now();
        let entry = Entry {
            id: info.id,
            running: true,
            epoch: info.epoch,
            started_at: now,
            end_at: now.after(timeout),
            resources: info.resources,
            envd_token,
            traffic_token,
            lasting,
        };
        if let Err(error) = self.ledger.insert(&entry).await {
            // Nobody will ever be told of it.
            drop(self.node.kill(&entry.id).await);
            return Err(error.into());
        }
        self.publish(&entry).await?;
        self.ends_changed.notify_one();
        if self.node.info(&entry.id).await.is_none() {
            // It ended before its entry was there to be removed.
            self.forget(&entry.id).await?;
        }
        Ok(entry)
    }

    /// Tells the edge where a sandbox is and who may use it.
    pub(crate) async fn publish(&self, entry: &Entry) -> Result<(), Failure> {
        let placement = Placement {
            node: self.config.node.clone(),
            epoch: entry.epoch,
            access: entry.access(),
        };
        match self.coordinator.publish(&entry.id, placement).await {
            // A later life was published meanwhile, and is as good.
            Ok(()) | Err(coordinator::PublishError::Superseded { .. }) => Ok(()),
            Err(coordinator::PublishError::Coordinator(error)) => Err(error.into()),
        }
    }

    /// Drops what is known of a sandbox that is gone.
    pub(crate) async fn forget(&self, id: &SandboxId) -> Result<bool, Failure> {
        self.coordinator.withdraw(id).await?;
        let known = self.ledger.remove(id).await?;
        Ok(known)
    }

    /// A sandbox.
    pub(crate) async fn get(&self, id: &SandboxId) -> Result<Seen, Failure> {
        let missing = || Failure::NotFound(id.clone());
        let entry = self.ledger.get(id).await?.ok_or_else(missing)?;
        let info = self.node.info(id).await.ok_or_else(missing)?;
        let running = runs(info.state).ok_or_else(missing)?;
        Ok(Seen { entry, running })
    }

    /// Every sandbox, the one started last first.
    pub(crate) async fn list(&self) -> Result<Vec<Seen>, Failure> {
        let states: std::collections::HashMap<SandboxId, SandboxState> = self
            .node
            .list()
            .await
            .into_iter()
            .map(|info| (info.id, info.state))
            .collect();
        let seen = self.ledger.all().await?.into_iter().filter_map(|entry| {
            let running = runs(*states.get(&entry.id)?)?;
            Some(Seen { entry, running })
        });
        Ok(seen.collect())
    }

    /// Ends a sandbox.
    pub(crate) async fn kill(&self, id: &SandboxId) -> Result<(), Failure> {
        self.ledger
            .get(id)
            .await?
            .ok_or_else(|| Failure::NotFound(id.clone()))?;
        self.coordinator.withdraw(id).await?;
        let killed = self.node.kill(id).await;
        let known = self.ledger.remove(id).await?;
        self.ends_changed.notify_one();
        match killed {
            Ok(()) => Ok(()),
            // Whoever asked second finds nothing.
            Err(KillError::NotFound(id)) if !known => Err(Failure::NotFound(id)),
            Err(KillError::NotFound(_)) => Ok(()),
        }
    }

    /// Pauses a sandbox.
    pub(crate) async fn pause(&self, id: &SandboxId) -> Result<(), Failure> {
        let missing = || Failure::NotFound(id.clone());
        self.ledger.get(id).await?.ok_or_else(missing)?;
        let info = self.node.info(id).await.ok_or_else(missing)?;
        match self.node.pause(id, info.epoch).await {
            Ok(_) => {
                self.ledger.paused(id, info.epoch, Micros::now()).await?;
                self.ends_changed.notify_one();
                Ok(())
            }
            Err(PauseError::NotFound(id)) => Err(Failure::NotFound(id)),
            Err(PauseError::Already(id)) => Err(Conflict::AlreadyPaused(id).into()),
            Err(PauseError::Conflict { id, state }) => Err(Conflict::between(id, state)),
            Err(error @ PauseError::Failed { .. }) => Err(Failure::internal(error)),
        }
    }

    /// Sets when a running sandbox ends.
    pub(crate) async fn set_timeout(
        &self,
        id: &SandboxId,
        timeout: Duration,
    ) -> Result<(), Failure> {
        self.must_run(id).await?;
        self.move_end(id, timeout, false).await
    }

    /// Moves the end of a running sandbox to a later time, or leaves it.
    pub(crate) async fn extend(&self, id: &SandboxId, timeout: Duration) -> Result<(), Failure> {
        self.must_run(id).await?;
        self.move_end(id, timeout, true).await
    }

    async fn must_run(&self, id: &SandboxId) -> Result<(), Failure> {
        match self.node.info(id).await.map(|info| info.state) {
            None | Some(SandboxState::Stopped(_)) => Err(Failure::NotFound(id.clone())),
            Some(state @ (SandboxState::Pausing | SandboxState::Stopping)) => {
                Err(Conflict::between(id.clone(), state))
            }
            // A paused sandbox has no end to move.
            Some(SandboxState::Paused) => Err(Failure::NotFound(id.clone())),
            Some(SandboxState::Starting | SandboxState::Running) => Ok(()),
        }
    }

    async fn move_end(
        &self,
        id: &SandboxId,
        timeout: Duration,
        only_later: bool,
    ) -> Result<(), Failure> {
        let end = Micros::now().after(timeout);
        let moved = self.ledger.set_end(id, end, only_later).await?;
        moved.ok_or_else(|| Failure::NotFound(id.clone()))?;
        self.ends_changed.notify_one();
        Ok(())
    }

    /// The last lines of a sandbox's console.
    pub(crate) async fn console(&self, id: &SandboxId, limit: usize) -> Result<Vec<u8>, Failure> {
        let missing = || Failure::NotFound(id.clone());
        self.ledger.get(id).await?.ok_or_else(missing)?;
        self.node.console(id, limit).await.ok_or_else(missing)
    }

    /// Builds a template from the host's artefacts.
    pub(crate) async fn build_template(
        &self,
        name: &TemplateName,
    ) -> Result<pool_api::TemplateInfo, Failure> {
        Ok(self.node.build_template(name).await?)
    }
}
