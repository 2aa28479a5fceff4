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
    ledger::SandboxQuery,
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

/// The most sandboxes of a list without pages.
const MAX_LIST: usize = 10_000;

/// `GET /sandboxes`: running sandboxes, in descending order of start.
pub(super) async fn v1(
    State(service): Service,
    client: ClientKind,
    params: QueryParams,
) -> HandlerResult {
    let query = SandboxQuery {
        running: Some(true),
        metadata: params
            .get("metadata")
            .map(parse_metadata)
            .unwrap_or_default(),
        ..SandboxQuery::default()
    };
    let page = service.list(query, MAX_LIST).await?;
    let listed: Vec<ListedSandbox> = page
        .views
        .iter()
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
    let (order, limit, counts_running) = (filter.order, filter.limit, filter.running);
    let query = filter.query(template);
    let running = match counts_running {
        true => Some(service.count_running(&query).await?),
        false => None,
    };
    let page = service.list(query, limit).await?;
    let listed: Vec<ListedSandbox> = page
        .views
        .iter()
        .map(|view| ListedSandbox::new(view, client))
        .collect();
    let mut response = error::json(StatusCode::OK, &listed);
    if page.has_more
        && let Some(last) = page.views.last()
    {
        let token = order.token(key(last));
        if let Ok(token) = HeaderValue::try_from(token.encode()) {
            response.headers_mut().insert(NEXT_TOKEN, token);
        }
    }
    if let Some(running) = running {
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

    /// Converts the filter to a query of the ledger.
    fn query(self, template: Option<TemplateId>) -> SandboxQuery {
        SandboxQuery {
            running: (self.running != self.paused).then_some(self.running),
            metadata: self.metadata,
            template,
            started_after: self.started_after,
            ascending: self.order == Order::Ascending,
            after: self.from.map(PageToken::into_key),
        }
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
