//! Handlers for templates, their names and their visibility.

use axum::{extract::State, http::StatusCode, response::IntoResponse};
use guest_api::envd;
use pool_api::{Resources, TemplateInfo, TemplateName};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    error::{self, ApiError},
    extract::{Json, OptionalJson, PathName, TemplateRef},
    handler::{HandlerResult, Service, run_to_completion},
};
use crate::{
    error::ServiceError,
    ids::{BuildId, TemplateId},
    ledger::{Build, Template, Visibility},
    reference::NAMESPACE,
    service::{ResolvedTemplate, SandboxService},
    time::Micros,
};

/// The longest alias, a limit of CubeSandbox.
const MAX_ALIAS_LEN: usize = 64;

/// The body of a request that publishes a template.
#[derive(Debug, Default, Deserialize)]
pub(super) struct PublishBody {
    public: Option<bool>,
}

/// The body of a request that renames a template.
#[derive(Debug, Default, Deserialize)]
pub(super) struct AliasBody {
    alias: Option<String>,
}

/// The members that describe every template.
struct TemplateView {
    id: TemplateId,
    build: BuildId,
    ready: bool,
    public: bool,
    aliases: Vec<String>,
    names: Vec<String>,
    resources: Resources,
    created_at: Option<Micros>,
    updated_at: Option<Micros>,
    builds: usize,
}

impl TemplateView {
    fn of_host(info: &TemplateInfo, aliases: Vec<String>) -> Self {
        let built_at = info.built_at.map(Micros::from);
        let names: Vec<String> = [info.name.to_string()].into_iter().chain(aliases).collect();
        Self {
            id: info.name.clone().into(),
            build: BuildId::of_host_template(info),
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

    /// Describes a template made of snapshots. `None` if its last build was removed.
    fn of_snapshots(template: &Template, builds: &[Build]) -> Option<Self> {
        let newest = builds.first()?;
        let name = template.name.as_ref();
        Some(Self {
            id: template.id.clone(),
            build: newest.id,
            ready: true,
            public: template.visibility.is_public(),
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

    fn to_json(&self) -> Value {
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

fn build_to_json(id: BuildId, resources: &Resources, created_at: Option<Micros>) -> Value {
    json!({
        "buildID": id,
        "status": "ready",
        "createdAt": created_at,
        "updatedAt": created_at,
        "finishedAt": created_at,
        "cpuCount": resources.vcpus,
        "memoryMB": resources.memory >> 20,
        "diskSizeMB": resources.disk >> 20,
        "envdVersion": envd::VERSION,
    })
}

/// Describes a template with its builds.
async fn with_builds(
    service: &SandboxService,
    template: &ResolvedTemplate,
) -> Result<Value, ServiceError> {
    let (view, builds): (TemplateView, Vec<Value>) = match template {
        ResolvedTemplate::Host(info) => {
            let aliases = service.names_of(&template.id()).await?;
            let view = TemplateView::of_host(info, aliases);
            let build = build_to_json(view.build, &view.resources, view.created_at);
            (view, vec![build])
        }
        ResolvedTemplate::Snapshots(template) => {
            let builds = service.builds(&template.id).await?;
            let view = TemplateView::of_snapshots(template, &builds)
                .ok_or_else(|| ServiceError::template_not_found(template.id.as_name()))?;
            let builds = builds
                .iter()
                .map(|build| build_to_json(build.id, &build.resources, Some(build.created_at)));
            (view, builds.collect())
        }
    };
    let mut body = view.to_json();
    body["builds"] = builds.into();
    Ok(body)
}

/// `GET /templates`: the host's templates. Those made of snapshots are listed as snapshots.
pub(super) async fn list(State(service): Service) -> HandlerResult {
    let mut listed = Vec::new();
    for info in service.host_templates().await {
        let aliases = service.names_of(&info.name.clone().into()).await?;
        listed.push(TemplateView::of_host(&info, aliases).to_json());
    }
    Ok(error::json(StatusCode::OK, &listed))
}

/// `GET /templates/{name}`
pub(super) async fn detail(
    State(service): Service,
    TemplateRef(reference): TemplateRef,
) -> HandlerResult {
    let template = service.resolve(&reference).await?;
    let body = with_builds(&service, &template).await?;
    Ok(error::json(StatusCode::OK, &body))
}

/// `DELETE /templates/{name}`
pub(super) async fn delete(
    State(service): Service,
    TemplateRef(reference): TemplateRef,
) -> HandlerResult {
    run_to_completion(async move { service.delete_template(&reference).await }).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `GET /templates/aliases/{alias}`
pub(super) async fn resolve_alias(
    State(service): Service,
    TemplateRef(reference): TemplateRef,
) -> HandlerResult {
    let template = service.resolve_tagged(&reference).await?;
    let public = template.visibility().is_public();
    let body = json!({ "templateID": template.id(), "public": public });
    Ok(error::json(StatusCode::OK, &body))
}

/// `PATCH /templates/{name}`
pub(super) async fn publish(
    State(service): Service,
    TemplateRef(reference): TemplateRef,
    OptionalJson(publish): OptionalJson<PublishBody>,
) -> HandlerResult {
    let template = match publish.public {
        Some(public) => {
            let visibility = Visibility::from_public(public);
            service.set_visibility(&reference, visibility).await?
        }
        None => service.resolve(&reference).await?,
    };
    let body = with_builds(&service, &template).await?;
    let names = &body["names"];
    Ok(error::json(StatusCode::OK, &json!({ "names": names })))
}

/// `PUT /templates/{name}/alias`: an empty alias removes the name.
pub(super) async fn set_alias(
    State(service): Service,
    TemplateRef(reference): TemplateRef,
    Json(alias): Json<AliasBody>,
) -> HandlerResult {
    let alias = alias.alias.unwrap_or_default();
    let name = if alias.is_empty() {
        None
    } else {
        Some(parse_alias(&alias)?)
    };
    let template = service.rename(&reference, name.as_ref()).await?;
    let body = with_builds(&service, &template).await?;
    Ok(error::json(StatusCode::OK, &body))
}

fn parse_alias(alias: &str) -> Result<TemplateName, ApiError> {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let valid = alias.len() <= MAX_ALIAS_LEN
        && alias.starts_with(alphanumeric)
        && alias.chars().all(|c| alphanumeric(c) || c == '-')
        && !alias.starts_with("tpl-")
        && !alias.starts_with("snap-");
    let name = alias.parse().ok().filter(|_| valid);
    name.ok_or_else(|| {
        ApiError::bad_request(
            "alias must be 1 to 64 characters of a-z, 0-9 and '-', begin with a letter or a digit, and not with \
             'tpl-' or 'snap-'",
        )
    })
}

/// `POST /templates/{name}/build`
pub(super) async fn build(State(service): Service, PathName(name): PathName) -> HandlerResult {
    let info = run_to_completion(async move { service.build_template(&name).await }).await?;
    let body = TemplateView::of_host(&info, Vec::new()).to_json();
    Ok(error::json(StatusCode::OK, &body))
}
