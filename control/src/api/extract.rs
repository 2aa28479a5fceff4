//! What is taken out of a request, with our own words for what is wrong with it.

use std::time::Duration;

use axum::{
    body::to_bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{StatusCode, header, request::Parts},
};
use pool_api::{SandboxId, TemplateName};
use serde::de::DeserializeOwned;

use super::error::ApiError;
use crate::reference::Reference;

/// The longest body any route reads, in bytes.
const LONGEST_BODY: usize = 1 << 20;
/// How long a caller may take to send one.
const PATIENCE: Duration = Duration::from_secs(30);
/// What clients of E2B call themselves.
const E2B: [&str; 3] = ["e2b-python-sdk/", "e2b-js-sdk/", "e2b-code-interpreter/"];
/// What the client of CubeSandbox calls itself: what its HTTP library does.
const CUBE: [&str; 2] = ["cubesandbox", "python-requests/"];

/// Who reads an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// A client of E2B.
    E2b,
    /// A client of CubeSandbox, to which a sandbox that is given no time has no end.
    Cube,
    /// Any other.
    Native,
}

/// A reference to a template in the path: one segment, or a namespace's and a name's.
#[derive(Debug)]
pub(crate) struct Referred(pub(crate) Reference);

/// The sandbox in the path: `<id>`, or `<id>-<client>` of old clients.
#[derive(Debug)]
pub(crate) struct Id(pub(crate) SandboxId);

/// The template in the path.
#[derive(Debug)]
pub(crate) struct Template(pub(crate) TemplateName);

/// A body as it came.
#[derive(Debug)]
pub(crate) struct Raw(pub(crate) Vec<u8>);

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

impl<S: Send + Sync> FromRequestParts<S> for Audience {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let agent = parts.headers.get(header::USER_AGENT);
        let agent = agent
            .and_then(|agent| agent.to_str().ok())
            .unwrap_or_default();
        Ok(if E2B.iter().any(|name| agent.contains(name)) {
            Self::E2b
        } else if CUBE.iter().any(|name| agent.starts_with(name)) {
            Self::Cube
        } else {
            Self::Native
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Referred {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let bad = || ApiError::bad("Invalid template reference");
        let path = Path::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let Path(segments) = path.map_err(|_| bad())?;
        let text: Vec<&str> = segments.iter().map(|(_, text)| text.as_str()).collect();
        let reference: Result<Reference, _> = text.join("/").parse();
        reference
            .map(Self)
            .map_err(|error| ApiError::from(crate::sandboxes::Failure::from(error)))
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
    let reading = to_bytes(request.into_body(), LONGEST_BODY);
    let Ok(read) = tokio::time::timeout(PATIENCE, reading).await else {
        return Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not come in time",
        ));
    };
    let bytes = read.map_err(|_| {
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

/// Reads a JSON body; what is wrong with it is said with the member it is wrong with.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let wrong = |path: &str, error: &serde_json::Error| {
        let at = if path == "." {
            String::new()
        } else {
            format!("{path}: ")
        };
        let message = format!("the body is not what it should be: {at}{error}");
        ApiError::bad(message.chars().take(500).collect::<String>())
    };
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader)
        .map_err(|error| wrong(&error.path().to_string(), error.inner()))?;
    reader.end().map_err(|error| wrong(".", &error))?;
    Ok(value)
}

impl<S: Send + Sync> FromRequest<S> for Raw {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        read(request).await.map(Self)
    }
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
