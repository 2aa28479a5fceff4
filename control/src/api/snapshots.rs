//! Snapshots: taken, listed. They are deleted as templates are.

use axum::{
    extract::State,
    http::{HeaderValue, StatusCode},
    response::Response,
};
use pool_api::SandboxId;
use serde_json::{Value, json};

use super::{
    Shared, carried_out, dto,
    error::{self, ApiError},
    extract::{Id, Optional, Pairs},
    list::{self, NEXT_TOKEN, Order, Token},
};
use crate::{
    ledger::{Named, Page},
    reference::{DEFAULT_TAG, NAMESPACE, Reference},
    sandboxes::{Failure, Found},
};

fn shown(snapshot: &Named) -> Value {
    let Named {
        template,
        name,
        tag,
        ..
    } = snapshot;
    match name {
        // The tag is part of a name unless it is the one that is meant without.
        Some(name) => {
            let tagged = format!("{NAMESPACE}/{name}:{tag}");
            let shown = match tag.as_str() {
                DEFAULT_TAG => format!("{NAMESPACE}/{name}"),
                _ => tagged.clone(),
            };
            json!({ "snapshotID": tagged, "names": [shown] })
        }
        None => json!({ "snapshotID": format!("{template}:{tag}"), "names": [] }),
    }
}

pub(super) async fn take(
    State(sandboxes): Shared,
    Id(id): Id,
    Optional(snapshot): Optional<dto::Snapshot>,
) -> Result<Response, ApiError> {
    let keep = dto::keep(snapshot.memory);
    let name = snapshot.name.filter(|name| !name.trim().is_empty());
    let name: Option<Reference> = name
        .map(|name| name.parse())
        .transpose()
        .map_err(|error| ApiError::bad(format!("Invalid snapshot name: {error}")))?;
    let taken = carried_out(async move { sandboxes.snapshot(&id, name.as_ref(), keep).await });
    Ok(error::json(StatusCode::CREATED, &shown(&taken.await?)))
}

pub(super) async fn list(State(sandboxes): Shared, pairs: Pairs) -> Result<Response, ApiError> {
    let limit = list::limit(&pairs)?;
    let mut page = Page {
        limit: limit + 1,
        ..Page::default()
    };
    if let Some(text) = pairs.get("sandboxID") {
        let text = text.split('-').next().unwrap_or_default();
        let id: Result<SandboxId, _> = text.parse();
        page.sandbox = Some(id.map_err(|_| ApiError::bad("Invalid sandbox ID"))?);
    }
    if let Some(text) = pairs.get("nextToken") {
        let token = Token::decode(text).filter(|token| token.order() == Order::Descending);
        let token = token.ok_or_else(|| ApiError::bad("Invalid next token"))?;
        page.after = Some(token.into_key());
    }
    if let Some(text) = pairs.get("name") {
        let reference: Reference = text.parse().map_err(Failure::from)?;
        page.tag = reference.tag.as_ref().map(ToString::to_string);
        match sandboxes.find(&reference).await {
            Ok(Found::Snapshots(template)) => page.template = Some(template.id),
            Ok(Found::Host(_)) | Err(Failure::NoTemplate(_)) => {
                return Ok(error::json(StatusCode::OK, &json!([])));
            }
            Err(failure) => return Err(failure.into()),
        }
    }
    let mut found = sandboxes
        .ledger
        .snapshots(&page)
        .await
        .map_err(Failure::from)?;
    let more = found.len() > limit;
    found.truncate(limit);
    let listed: Vec<Value> = found.iter().map(shown).collect();
    let mut response = error::json(StatusCode::OK, &listed);
    if more && let Some(last) = found.last() {
        let token = Order::Descending.token((last.created_at, &last.build));
        if let Ok(token) = HeaderValue::try_from(token.encode()) {
            response.headers_mut().insert(NEXT_TOKEN, token);
        }
    }
    Ok(response)
}
