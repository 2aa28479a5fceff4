//! Carries out what the API asks: on the host, in the ledger, and in what the edge is told.
//!
//! The order of writes decides what a crash leaves behind. A sandbox is made before it is noted, so that what nobody was
//! told of is found without an entry and killed. It is withdrawn before it is killed, so that the edge says that it is
//! gone before any stream breaks.

mod error;
mod fork;
mod keeper;
mod lifetime;
mod networks;
mod once;
mod pause;
mod rollback;
mod snapshot;
mod tags;
mod templates;
mod turns;
mod wake;

use std::{sync::Arc, time::Duration};

use coordinator::{Coordinator, Placement};
use pool_api::{
    CreateError, Epoch, KillError, Node, SandboxId, SandboxInfo, SandboxSpec, SandboxState, Secret,
    TemplateName,
};
use rand::RngCore;
use tokio::sync::Notify;

pub(crate) use self::{
    error::{Conflict, Failure},
    keeper::Keeper,
    once::{Key, Made, Once},
    templates::{Found, host_build},
    turns::Turns,
    wake::{Connected, Wish},
};
use crate::{
    config::Config,
    ledger::{Answer, Entry, Lasting, Ledger},
    reference::Reference,
    sampler::Samples,
    time::{Micros, Window},
};

/// A wake by traffic grants at least this.
pub(crate) const SHORTEST_AUTO_RESUME: Duration = Duration::from_secs(300);

/// Everything the routes need.
#[derive(Debug)]
pub(crate) struct Sandboxes {
    pub(crate) config: Config,
    pub(crate) node: Arc<dyn Node>,
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) ledger: Ledger,
    /// Snapshots that are promised.
    pub(crate) keeper: Keeper,
    /// What guests said of themselves.
    pub(crate) samples: Samples,
    /// Creations with an idempotency key that are under way.
    pub(crate) once: Once,
    /// Whose turn it is with a sandbox.
    pub(crate) turns: Turns,
    /// Whose snapshot is being taken.
    pub(crate) snapshotting: Turns,
    /// Told whenever the earliest end may have changed.
    pub(crate) ends_changed: Notify,
}

/// A sandbox to be made.
#[derive(Debug)]
pub(crate) struct NewSandbox {
    /// What it is made of.
    pub(crate) reference: Reference,
    /// What it keeps; its template is found by the reference.
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
    /// Everything, over a ledger that is open.
    pub(crate) fn new(
        config: Config,
        node: Arc<dyn Node>,
        coordinator: Arc<Coordinator>,
        ledger: Ledger,
    ) -> Self {
        Self {
            keeper: Keeper::new(node.clone(), ledger.clone()),
            samples: Samples::new(node.clone()),
            config,
            node,
            coordinator,
            ledger,
            once: Once::default(),
            turns: Turns::default(),
            snapshotting: Turns::default(),
            ends_changed: Notify::new(),
        }
    }

    /// Makes a sandbox. `answered`: what is remembered of it, when the caller may ask again.
    pub(crate) async fn create(
        &self,
        mut new: NewSandbox,
        answered: Option<&(dyn Fn(&Entry) -> Answer + Send + Sync)>,
    ) -> Result<Entry, Failure> {
        let base = self.base(&new.reference).await?;
        new.lasting.template = base.template.clone();
        new.lasting.alias = base.alias;
        let spec = SandboxSpec {
            id: SandboxId::generate(&mut rand::rng()),
            epoch: Epoch(1),
            origin: base.origin,
            template: base.template,
            idle: new.lasting.idle_timeout,
            env: new.lasting.env.clone(),
            access_token: new.secure.then(new_token),
        };
        let envd_token = spec.access_token.clone();
        let traffic_token = new.private.then(new_token);
        let window = new.lasting.timeout;
        let info = self.node.create(spec).await.map_err(|error| match error {
            // It went between being found and being used; the caller knows it by this name.
            CreateError::NoTemplate(_) => Failure::no_template(&new.reference.name),
            error => error.into(),
        })?;
        let entry = self.entry(info, new.lasting, envd_token, traffic_token, window);
        let answer = answered.map(|answered| answered(&entry));
        self.note_new(entry, answer.as_ref()).await
    }

    /// The entry of a sandbox that was just made.
    fn entry(
        &self,
        info: SandboxInfo,
        lasting: Lasting,
        envd_token: Option<Secret>,
        traffic_token: Option<Secret>,
        window: Window,
    ) -> Entry {
        let now = Micros::now();
        Entry {
            id: info.id,
            running: true,
            epoch: info.epoch,
            started_at: now,
            end_at: window.end(now, now, self.config.longest),
            doomed_at: None,
            keep: None,
            resources: info.resources,
            envd_token,
            traffic_token,
            lasting,
        }
    }

    /// Notes a sandbox that was made, and lets the edge know.
    async fn note_new(&self, entry: Entry, answer: Option<&Answer>) -> Result<Entry, Failure> {
        if let Err(error) = self.ledger.insert(&entry, answer).await {
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
        self.samples.forget(id);
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
        self.samples.forget(id);
        self.ends_changed.notify_one();
        match killed {
            Ok(()) => Ok(()),
            // Whoever asked second finds nothing.
            Err(KillError::NotFound(id)) if !known => Err(Failure::NotFound(id)),
            Err(KillError::NotFound(_)) => Ok(()),
        }
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
        if self.ledger.named(name).await?.is_some() || self.ledger.template(name).await?.is_some() {
            return Err(Conflict::NameTaken(name.clone()).into());
        }
        Ok(self.node.build_template(name).await?)
    }
}
