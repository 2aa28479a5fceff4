//! What is taken out of a request, with our own words for what is wrong with it.

use axum::{
    body::to_bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{StatusCode, header, request::Parts},
};
use pool_api::{SandboxId, TemplateName};
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// The longest body any route reads, in bytes.
const LONGEST_BODY: usize = 1 << 20;

/// The sandbox in the path: `<id>`, or `<id>-<client>` of old clients.
#[derive(Debug)]
pub(crate) struct Id(pub(crate) SandboxId);

/// The template in the path.
#[derive(Debug)]
pub(crate) struct Template(pub(crate) TemplateName);

/// A JSON body that must be there.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(crate) T);

/// A JSON body that may be absent or empty.
#[derive(Debug)]
pub(crate) struct Optional<T>(pub(crate) T);

/// The query, decoded.
#[derive(Debug)]
pub(crate) struct Pairs(pub(crate) Vec<(String, String)>);

impl Pairs {
    /// The value of a parameter, if it is given and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }
}

async fn segment<S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
    wrong: &str,
) -> Result<String, ApiError> {
    let path = Path::<String>::from_request_parts(parts, state).await;
    path.map(|Path(text)| text)
        .map_err(|_| ApiError::bad(wrong))
}

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let text = segment(parts, state, "Invalid sandbox ID").await?;
        let mut dashed = text.split('-');
        let id = dashed.next().unwrap_or_default();
        let more = dashed.count();
        id.parse()
            .ok()
            .filter(|_| more <= 1)
            .map(Self)
            .ok_or_else(|| ApiError::bad("Invalid sandbox ID"))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Template {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let text = segment(parts, state, "Invalid template name").await?;
        text.parse()
            .map(Self)
            .map_err(|_| ApiError::bad("Invalid template name"))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Pairs {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let query = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        query
            .map(|Query(pairs)| Self(pairs))
            .map_err(|_| ApiError::bad("Invalid query"))
    }
}

async fn read(request: Request) -> Result<Vec<u8>, ApiError> {
    let content = request.headers().get(header::CONTENT_TYPE).cloned();
    let bytes = to_bytes(request.into_body(), LONGEST_BODY)
        .await
        .map_err(|_| {
            ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body could not be read or is longer than 1 MiB",
            )
        })?;
    if !bytes.is_empty()
        && let Some(content) = content
    {
        let name = content
            .to_str()
            .unwrap_or_default()
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_lowercase();
        if name != "application/json" {
            return Err(ApiError::bad("the body must be application/json"));
        }
    }
    Ok(bytes.to_vec())
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ApiError::bad(format!("the body is not what it should be: {error}")))
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        parse(&read(request).await?).map(Self)
    }
}

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for Optional<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let bytes = read(request).await?;
        if bytes.trim_ascii().is_empty() {
            Ok(Self(T::default()))
        } else {
            parse(&bytes).map(Self)
        }
    }
}
