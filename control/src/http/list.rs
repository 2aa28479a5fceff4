//! Handlers that list sandboxes: filters, order and pages.

mod page;

use std::collections::BTreeMap;

use axum::{
    extract::State,
    http::{HeaderName, HeaderValue, StatusCode},
};
use percent_encoding::percent_decode_str;

pub(super) use self::page::{Order, PageToken};
use super::{
    dto::ListedSandbox,
    error::{self, ApiError},
    extract::{ClientKind, QueryParams},
    handler::{HandlerResult, Service},
};
use crate::{
    error::ServiceError,
    ids::TemplateId,
    reference::Reference,
    service::{SandboxService, SandboxView},
    time::Micros,
};

/// The header with the token of the next page.
pub(super) const NEXT_TOKEN: HeaderName = HeaderName::from_static("x-next-token");
const TOTAL_RUNNING: HeaderName = HeaderName::from_static("x-total-running");

/// Elements of a page.
const MAX_PAGE: usize = 100;

/// The parameters of a list.
#[derive(Debug)]
struct Filter {
    running: bool,
    paused: bool,
    metadata: BTreeMap<String, String>,
    template: Option<Reference>,
    started_after: Option<Micros>,
    order: Order,
    limit: usize,
    from: Option<PageToken>,
}

/// `GET /sandboxes`: running sandboxes, in descending order of start.
pub(super) async fn v1(
    State(service): Service,
    client: ClientKind,
    params: QueryParams,
) -> HandlerResult {
    let metadata = params
        .get("metadata")
        .map(parse_metadata)
        .unwrap_or_default();
    let listed: Vec<ListedSandbox> = service
        .list()
        .await?
        .iter()
        .filter(|view| view.running && has_metadata(view, &metadata))
        .map(|view| ListedSandbox::new(view, client))
        .collect();
    Ok(error::json(StatusCode::OK, &listed))
}

/// `GET /v2/sandboxes`
pub(super) async fn v2(
    State(service): Service,
    client: ClientKind,
    params: QueryParams,
) -> HandlerResult {
    let filter = Filter::parse(&params)?;
    let template = match &filter.template {
        Some(reference) => Some(template_id(&service, reference).await?),
        None => None,
    };
    let mut views = service.list().await?;
    views.retain(|view| {
        let of_template = template
            .as_ref()
            .is_none_or(|id| view.record.template == *id);
        of_template && filter.matches(view)
    });
    let running = views.iter().filter(|view| view.running).count();
    views.sort_by(|a, b| filter.order.compare(key(a), key(b)));
    if let Some(from) = &filter.from {
        views.retain(|view| from.is_before(key(view)));
    }
    let has_more = views.len() > filter.limit;
    views.truncate(filter.limit);
    let listed: Vec<ListedSandbox> = views
        .iter()
        .map(|view| ListedSandbox::new(view, client))
        .collect();
    let mut response = error::json(StatusCode::OK, &listed);
    if has_more && let Some(last) = views.last() {
        let token = filter.order.token(key(last));
        if let Ok(token) = HeaderValue::try_from(token.encode()) {
            response.headers_mut().insert(NEXT_TOKEN, token);
        }
    }
    if filter.running {
        response
            .headers_mut()
            .insert(TOTAL_RUNNING, HeaderValue::from(running));
    }
    Ok(response)
}

fn key(view: &SandboxView) -> (Micros, &str) {
    (view.record.started_at, view.record.id.as_str())
}

/// Resolves a template to its id. An unknown name is its own id, because sandboxes outlive their templates.
async fn template_id(
    service: &SandboxService,
    reference: &Reference,
) -> Result<TemplateId, ServiceError> {
    match service.resolve(reference).await {
        Ok(template) => Ok(template.id()),
        Err(ServiceError::TemplateNotFound { .. }) => Ok(reference.name.clone().into()),
        Err(error) => Err(error),
    }
}

/// Parses the parameter `limit`.
pub(super) fn limit(params: &QueryParams) -> Result<usize, ApiError> {
    let limit = params.get("limit").map_or(Ok(MAX_PAGE), str::parse);
    let limit = limit.ok().filter(|limit| (1..=MAX_PAGE).contains(limit));
    limit.ok_or_else(|| ApiError::bad_request(format!("limit must be between 1 and {MAX_PAGE}")))
}

fn has_metadata(view: &SandboxView, wanted: &BTreeMap<String, String>) -> bool {
    let metadata = &view.record.settings.metadata;
    wanted
        .iter()
        .all(|(name, value)| metadata.get(name) == Some(value))
}

/// Parses the parameter `metadata`. Clients percent-encode each name and value, then the whole text, and the query parser
/// has decoded only the encoding of the query.
fn parse_metadata(text: &str) -> BTreeMap<String, String> {
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let decoded = decode(text);
    let pairs = decoded.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

impl Filter {
    fn parse(params: &QueryParams) -> Result<Self, ApiError> {
        let order = match params.get("order") {
            None | Some("desc") => Order::Descending,
            Some("asc") => Order::Ascending,
            Some(other) => {
                return Err(ApiError::bad_request(format!(
                    "Invalid order parameter: {other}"
                )));
            }
        };
        let from = params.get("nextToken").map(|text| {
            PageToken::decode(text)
                .filter(|token| token.order() == order)
                .ok_or_else(|| ApiError::bad_request("Invalid next token"))
        });
        let mut filter = Self {
            running: false,
            paused: false,
            metadata: params
                .get("metadata")
                .map(parse_metadata)
                .unwrap_or_default(),
            template: None,
            started_after: None,
            order,
            limit: limit(params)?,
            from: from.transpose()?,
        };
        for state in states(params) {
            match state {
                "running" => filter.running = true,
                "paused" => filter.paused = true,
                other => {
                    return Err(ApiError::bad_request(format!(
                        "Invalid state parameter: {other}"
                    )));
                }
            }
        }
        if let Some(text) = params.get("startedAfter") {
            let time = Micros::parse(text)
                .ok_or_else(|| ApiError::bad_request("Invalid startedAfter parameter"))?;
            filter.started_after = Some(time);
        }
        if let Some(text) = params.get("template") {
            if text.contains(':') {
                return Err(ApiError::bad_request(
                    "template must be given without a tag",
                ));
            }
            let reference: Reference = text.parse().map_err(ServiceError::from)?;
            filter.template = Some(Reference::untagged(reference.name));
        }
        Ok(filter)
    }

    /// Whether a sandbox matches every filter but that of the template.
    fn matches(&self, view: &SandboxView) -> bool {
        let state = if view.running {
            self.running
        } else {
            self.paused
        };
        let time = self
            .started_after
            .is_none_or(|time| view.record.started_at >= time);
        state && time && has_metadata(view, &self.metadata)
    }
}

/// The parameters `state`: repeated or separated by commas. Both states if there is none.
fn states(params: &QueryParams) -> Vec<&str> {
    let values = params.0.iter().filter(|(name, _)| name == "state");
    let states: Vec<&str> = values
        .flat_map(|(_, value)| value.split(','))
        .map(str::trim)
        .filter(|state| !state.is_empty())
        .collect();
    if states.is_empty() {
        vec!["running", "paused"]
    } else {
        states
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn metadata_filter_is_decoded_once_per_encoding() {
        // As the query parser returns it.
        let parsed = parse_metadata("a%2520b=c%2526d&plain=x");
        let expected = [("a b", "c&d"), ("plain", "x")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parsed, BTreeMap::from(expected));
    }

    proptest! {
        #[test]
        fn any_metadata_filter_is_parsed_without_panic(text in ".*") {
            drop(parse_metadata(&text));
        }

        #[test]
        fn any_list_query_is_parsed_without_panic(params in proptest::collection::vec(
            ("(state|order|limit|nextToken|startedAfter|template|metadata)", ".{0,40}"), 0..6)) {
            drop(Filter::parse(&QueryParams(params)));
        }
    }
}
