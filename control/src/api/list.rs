//! Lists of sandboxes: filters, order and pages.

mod page;

use std::collections::BTreeMap;

use axum::{
    extract::State,
    http::{HeaderName, HeaderValue, StatusCode},
    response::Response,
};
use percent_encoding::percent_decode_str;
use pool_api::TemplateName;

pub(super) use self::page::{Order, Token};
use super::{
    Shared,
    dto::Listed,
    error::{self, ApiError},
    extract::{Audience, Pairs},
};
use crate::{
    reference::Reference,
    sandboxes::{Failure, Sandboxes, Seen},
    time::Micros,
};

pub(super) const NEXT_TOKEN: HeaderName = HeaderName::from_static("x-next-token");
const TOTAL_RUNNING: HeaderName = HeaderName::from_static("x-total-running");

/// Entries on a page at most.
pub(super) const LONGEST_PAGE: usize = 100;

/// What is asked for.
#[derive(Debug)]
struct Filter {
    running: bool,
    paused: bool,
    metadata: BTreeMap<String, String>,
    template: Option<TemplateName>,
    started_after: Option<Micros>,
    order: Order,
    limit: usize,
    from: Option<Token>,
}

/// `GET /sandboxes`: running ones, the one started last first.
pub(super) async fn running(
    State(sandboxes): Shared,
    audience: Audience,
    pairs: Pairs,
) -> Result<Response, ApiError> {
    let metadata = pairs.get("metadata").map(metadata).unwrap_or_default();
    let listed: Vec<Listed> = sandboxes
        .list()
        .await?
        .iter()
        .filter(|seen| seen.running && has(seen, &metadata))
        .map(|seen| Listed::new(seen, audience))
        .collect();
    Ok(error::json(StatusCode::OK, &listed))
}

/// `GET /v2/sandboxes`.
pub(super) async fn all(
    State(sandboxes): Shared,
    audience: Audience,
    pairs: Pairs,
) -> Result<Response, ApiError> {
    let mut filter = Filter::read(&pairs)?;
    if let Some(name) = filter.template.take() {
        filter.template = Some(template(&sandboxes, name).await?);
    }
    let mut seen: Vec<Seen> = sandboxes
        .list()
        .await?
        .into_iter()
        .filter(|seen| filter.takes(seen))
        .collect();
    let running = seen.iter().filter(|seen| seen.running).count();
    seen.sort_by(|a, b| filter.order.compare(key(a), key(b)));
    if let Some(from) = &filter.from {
        seen.retain(|seen| from.is_before(key(seen)));
    }
    let next = (seen.len() > filter.limit).then(|| {
        seen.get(filter.limit - 1)
            .map(|last| filter.order.token(key(last)))
    });
    let listed: Vec<Listed> = seen
        .iter()
        .take(filter.limit)
        .map(|seen| Listed::new(seen, audience))
        .collect();
    let mut response = error::json(StatusCode::OK, &listed);
    if let Some(token) = next
        .flatten()
        .and_then(|token| HeaderValue::try_from(token.encode()).ok())
    {
        response.headers_mut().insert(NEXT_TOKEN, token);
    }
    if filter.running {
        response
            .headers_mut()
            .insert(TOTAL_RUNNING, HeaderValue::from(running));
    }
    Ok(response)
}

fn key(seen: &Seen) -> (Micros, &str) {
    (seen.entry.started_at, seen.entry.id.as_str())
}

/// The id of the template with this name; the name itself when there is none, as sandboxes outlive their templates.
async fn template(sandboxes: &Sandboxes, name: TemplateName) -> Result<TemplateName, Failure> {
    let reference = Reference {
        namespace: None,
        name,
        tag: None,
    };
    match sandboxes.find(&reference).await {
        Ok(found) => Ok(found.id().clone()),
        Err(Failure::NoTemplate(_)) => Ok(reference.name),
        Err(failure) => Err(failure),
    }
}

/// How many entries are asked for.
pub(super) fn limit(pairs: &Pairs) -> Result<usize, ApiError> {
    let limit = pairs.get("limit").map_or(Ok(LONGEST_PAGE), str::parse);
    let limit = limit
        .ok()
        .filter(|limit| (1..=LONGEST_PAGE).contains(limit));
    limit.ok_or_else(|| ApiError::bad(format!("limit must be between 1 and {LONGEST_PAGE}")))
}

fn has(seen: &Seen, wanted: &BTreeMap<String, String>) -> bool {
    wanted
        .iter()
        .all(|(name, value)| seen.entry.lasting.metadata.get(name) == Some(value))
}

/// Clients encode each name and value, then the whole, and then the query is encoded again.
fn metadata(text: &str) -> BTreeMap<String, String> {
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let whole = decode(text);
    let pairs = whole.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

impl Filter {
    fn read(pairs: &Pairs) -> Result<Self, ApiError> {
        let order = match pairs.get("order") {
            None | Some("desc") => Order::Descending,
            Some("asc") => Order::Ascending,
            Some(other) => return Err(ApiError::bad(format!("Invalid order parameter: {other}"))),
        };
        let from = pairs
            .get("nextToken")
            .map(|text| Token::decode(text).filter(|token| token.order() == order));
        if let Some(None) = from {
            return Err(ApiError::bad("Invalid next token"));
        }
        let mut filter = Self {
            running: false,
            paused: false,
            metadata: pairs.get("metadata").map(metadata).unwrap_or_default(),
            template: None,
            started_after: None,
            order,
            limit: limit(pairs)?,
            from: from.flatten(),
        };
        for state in states(pairs) {
            match state {
                "running" => filter.running = true,
                "paused" => filter.paused = true,
                other => return Err(ApiError::bad(format!("Invalid state parameter: {other}"))),
            }
        }
        if let Some(text) = pairs.get("startedAfter") {
            let time = Micros::parse(text)
                .ok_or_else(|| ApiError::bad("Invalid startedAfter parameter"))?;
            filter.started_after = Some(time);
        }
        if let Some(text) = pairs.get("template") {
            if text.contains(':') {
                return Err(ApiError::bad("template must be given without a tag"));
            }
            let reference: Reference = text.parse().map_err(Failure::from)?;
            filter.template = Some(reference.name);
        }
        Ok(filter)
    }

    fn takes(&self, seen: &Seen) -> bool {
        let state = if seen.running {
            self.running
        } else {
            self.paused
        };
        let template = self
            .template
            .as_ref()
            .is_none_or(|id| seen.entry.lasting.template == *id);
        let time = self
            .started_after
            .is_none_or(|time| seen.entry.started_at >= time);
        state && template && time && has(seen, &self.metadata)
    }
}

/// The states asked for: repeated, joined by commas, or both when there are none.
fn states(pairs: &Pairs) -> Vec<&str> {
    let given = pairs.0.iter().filter(|(name, _)| name == "state");
    let states: Vec<&str> = given
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
mod test {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn metadata_is_decoded_as_often_as_it_was_encoded() {
        // As the query parser hands it over.
        let got = metadata("a%2520b=c%2526d&plain=x");
        let want = [("a b", "c&d"), ("plain", "x")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(got, BTreeMap::from(want));
    }

    proptest! {
        #[test]
        fn any_metadata_is_answered(text in ".*") {
            drop(metadata(&text));
        }

        #[test]
        fn any_query_is_answered(pairs in proptest::collection::vec(
            ("(state|order|limit|nextToken|startedAfter|template|metadata)", ".{0,40}"), 0..6)) {
            drop(Filter::read(&Pairs(pairs)));
        }
    }
}
