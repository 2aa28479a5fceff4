//! Routes of templates, their names and who may use them.

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use guest_api::envd;
use pool_api::{Resources, TemplateInfo, TemplateName};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Shared, carried_out,
    error::{self, ApiError},
    extract::{Body, Optional, Referred, Template},
};
use crate::{
    ledger::{self, Build},
    reference::NAMESPACE,
    sandboxes::{Failure, Found, Sandboxes, host_build},
    time::Micros,
};

type Answer = Result<Response, ApiError>;

/// The longest alias CubeSandbox's clients may give.
const LONGEST_ALIAS: usize = 64;

/// Who may use a template.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Publish {
    public: Option<bool>,
}

/// A template's other name.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Alias {
    alias: Option<String>,
}

/// What every template says of itself.
struct Face {
    id: TemplateName,
    build: String,
    ready: bool,
    public: bool,
    aliases: Vec<String>,
    names: Vec<String>,
    resources: Resources,
    created_at: Option<Micros>,
    updated_at: Option<Micros>,
    builds: usize,
}

impl Face {
    fn of_host(info: &TemplateInfo, given: Vec<String>) -> Self {
        let built_at = info.built_at.map(Micros::from);
        let names: Vec<String> = [info.name.to_string()].into_iter().chain(given).collect();
        Self {
            id: info.name.clone(),
            build: host_build(info).to_string(),
            ready: info.snapshot.is_some(),
            public: true,
            aliases: names.clone(),
            names,
            resources: info.resources,
            created_at: built_at,
            updated_at: built_at,
            builds: 1,
        }
    }

    /// Of a template made of snapshots; `None` when it has none any more.
    fn of_snapshots(template: &ledger::Template, builds: &[Build]) -> Option<Self> {
        let newest = builds.first()?;
        let name = template.name.as_ref();
        Some(Self {
            id: template.id.clone(),
            build: newest.id.clone(),
            ready: true,
            public: template.public,
            aliases: name.map(ToString::to_string).into_iter().collect(),
            names: name
                .map(|name| format!("{NAMESPACE}/{name}"))
                .into_iter()
                .collect(),
            resources: newest.resources,
            created_at: Some(template.created_at),
            updated_at: Some(template.updated_at),
            builds: builds.len(),
        })
    }

    fn shown(&self) -> Value {
        json!({
            "templateID": self.id,
            "buildID": self.build,
            "buildStatus": if self.ready { "ready" } else { "building" },
            "status": if self.ready { "READY" } else { "BUILDING" },
            "aliases": self.aliases,
            "names": self.names,
            "public": self.public,
            "cpuCount": self.resources.vcpus,
            "memoryMB": self.resources.memory >> 20,
            "diskSizeMB": self.resources.disk >> 20,
            "createdAt": self.created_at,
            "updatedAt": self.updated_at,
            "createdBy": null,
            "lastSpawnedAt": null,
            "spawnCount": 0,
            "buildCount": self.builds,
            "envdVersion": envd::VERSION,
        })
    }
}

fn build_shown(id: &str, resources: &Resources, at: Option<Micros>) -> Value {
    json!({
        "buildID": id,
        "status": "ready",
        "createdAt": at,
        "updatedAt": at,
        "finishedAt": at,
        "cpuCount": resources.vcpus,
        "memoryMB": resources.memory >> 20,
        "diskSizeMB": resources.disk >> 20,
        "envdVersion": envd::VERSION,
    })
}

/// A template with its builds.
async fn whole(sandboxes: &Sandboxes, found: &Found) -> Result<Value, Failure> {
    let (face, builds): (Face, Vec<Value>) = match found {
        Found::Host(info) => {
            let given = sandboxes.ledger.names_of(&info.name).await?;
            let face = Face::of_host(info, given);
            let builds = vec![build_shown(&face.build, &face.resources, face.created_at)];
            (face, builds)
        }
        Found::Snapshots(template) => {
            let builds = sandboxes.ledger.builds(&template.id).await?;
            let face = Face::of_snapshots(template, &builds)
                .ok_or_else(|| Failure::no_template(&template.id))?;
            let shown = builds
                .iter()
                .map(|build| build_shown(&build.id, &build.resources, Some(build.created_at)));
            (face, shown.collect())
        }
    };
    let mut shown = face.shown();
    shown["builds"] = builds.into();
    Ok(shown)
}

/// The host's templates. Those made of snapshots are listed as snapshots.
pub(super) async fn list(State(sandboxes): Shared) -> Answer {
    let mut listed = Vec::new();
    for info in sandboxes.node.templates().await {
        let given = sandboxes.ledger.names_of(&info.name).await;
        listed.push(Face::of_host(&info, given.map_err(Failure::from)?).shown());
    }
    Ok(error::json(StatusCode::OK, &listed))
}

pub(super) async fn detail(State(sandboxes): Shared, Referred(reference): Referred) -> Answer {
    let found = sandboxes.find(&reference).await?;
    let shown = whole(&sandboxes, &found).await?;
    Ok(error::json(StatusCode::OK, &shown))
}

pub(super) async fn delete(State(sandboxes): Shared, Referred(reference): Referred) -> Answer {
    carried_out(async move { sandboxes.delete_template(&reference).await }).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn exists(State(sandboxes): Shared, Referred(reference): Referred) -> Answer {
    let found = sandboxes.find_tagged(&reference).await?;
    let public = match &found {
        Found::Host(_) => true,
        Found::Snapshots(template) => template.public,
    };
    let body = json!({ "templateID": found.id(), "public": public });
    Ok(error::json(StatusCode::OK, &body))
}

pub(super) async fn publish(
    State(sandboxes): Shared,
    Referred(reference): Referred,
    Optional(publish): Optional<Publish>,
) -> Answer {
    let found = match publish.public {
        Some(public) => sandboxes.set_public(&reference, public).await?,
        None => sandboxes.find(&reference).await?,
    };
    let shown = whole(&sandboxes, &found).await?;
    let names = &shown["names"];
    Ok(error::json(StatusCode::OK, &json!({ "names": names })))
}

pub(super) async fn alias(
    State(sandboxes): Shared,
    Referred(reference): Referred,
    Body(alias): Body<Alias>,
) -> Answer {
    let alias = alias.alias.unwrap_or_default();
    let name = if alias.is_empty() {
        None
    } else {
        Some(checked_alias(&alias)?)
    };
    let found = sandboxes.rename(&reference, name.as_ref()).await?;
    let shown = whole(&sandboxes, &found).await?;
    Ok(error::json(StatusCode::OK, &shown))
}

fn checked_alias(alias: &str) -> Result<TemplateName, ApiError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fits = alias.len() <= LONGEST_ALIAS
        && alias.starts_with(plain)
        && alias.chars().all(|c| plain(c) || c == '-')
        && !alias.starts_with("tpl-")
        && !alias.starts_with("snap-");
    let name = alias.parse().ok().filter(|_| fits);
    name.ok_or_else(|| {
        ApiError::bad(
            "alias must be 1 to 64 characters of a-z, 0-9 and '-', begin with a letter or a digit, and not with \
             'tpl-' or 'snap-'",
        )
    })
}

pub(super) async fn build(State(sandboxes): Shared, Template(name): Template) -> Answer {
    let built = carried_out(async move { sandboxes.build_template(&name).await }).await?;
    let shown = Face::of_host(&built, Vec::new()).shown();
    Ok(error::json(StatusCode::OK, &shown))
}
