//! Extractors, with error messages of the API.

use std::time::Duration;

use axum::{
    body::to_bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{StatusCode, header, request::Parts},
};
use pool_api::{SandboxId, TemplateName};
use serde::de::DeserializeOwned;

use super::error::ApiError;
use crate::{error::ServiceError, reference::Reference};

/// The longest request body, in bytes.
const MAX_BODY: usize = 1 << 20;
/// The time in which a client must send its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Substrings of the user agents of E2B's clients.
const E2B: [&str; 3] = ["e2b-python-sdk/", "e2b-js-sdk/", "e2b-code-interpreter/"];
/// Prefixes of the user agents of CubeSandbox's client, which sends that of its HTTP library.
const CUBE: [&str; 2] = ["cubesandbox", "python-requests/"];

/// The client that sent a request, by its user agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientKind {
    /// A client of E2B.
    E2b,
    /// A client of CubeSandbox. A sandbox that it creates without a timeout has no deadline.
    Cube,
    /// Any other client.
    Other,
}

/// The template reference in the path: one segment, or a namespace and a name.
#[derive(Debug)]
pub(super) struct TemplateRef(pub(super) Reference);

/// The sandbox id in the path: `<id>`, or `<id>-<client id>` from old clients.
#[derive(Debug)]
pub(super) struct PathId(pub(super) SandboxId);

/// The template name in the path.
#[derive(Debug)]
pub(super) struct PathName(pub(super) TemplateName);

/// The body, not parsed.
#[derive(Debug)]
pub(super) struct RawBody(pub(super) Vec<u8>);

/// A JSON body.
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) T);

/// A JSON body, or the default if it is empty.
#[derive(Debug)]
pub(super) struct OptionalJson<T>(pub(super) T);

/// The parameters of the query, decoded.
#[derive(Debug)]
pub(super) struct QueryParams(pub(super) Vec<(String, String)>);

/// Parses a sandbox id of a request.
pub(super) fn sandbox_id(text: &str) -> Result<SandboxId, ApiError> {
    SandboxId::from_wire(text).map_err(|_| ApiError::bad_request("Invalid sandbox ID"))
}

impl QueryParams {
    /// The value of a parameter, unless it is missing or empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ClientKind {
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
            Self::Other
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for TemplateRef {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let Path(segments) =
            path.map_err(|_| ApiError::bad_request("Invalid template reference"))?;
        let text: Vec<&str> = segments.iter().map(|(_, text)| text.as_str()).collect();
        let reference: Reference = text.join("/").parse().map_err(ServiceError::from)?;
        Ok(Self(reference))
    }
}

async fn segment<S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
    message: &str,
) -> Result<String, ApiError> {
    let path = Path::<String>::from_request_parts(parts, state).await;
    path.map(|Path(text)| text)
        .map_err(|_| ApiError::bad_request(message))
}

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let text = segment(parts, state, "Invalid sandbox ID").await?;
        sandbox_id(&text).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PathName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        const INVALID: &str = "Invalid template name";
        let text = segment(parts, state, INVALID).await?;
        text.parse()
            .map(Self)
            .map_err(|_| ApiError::bad_request(INVALID))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for QueryParams {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let query = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        query
            .map(|Query(params)| Self(params))
            .map_err(|_| ApiError::bad_request("Invalid query"))
    }
}

async fn read(request: Request) -> Result<Vec<u8>, ApiError> {
    let content_type = request.headers().get(header::CONTENT_TYPE).cloned();
    let reading = to_bytes(request.into_body(), MAX_BODY);
    let Ok(read) = tokio::time::timeout(BODY_TIMEOUT, reading).await else {
        return Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "timed out reading the body",
        ));
    };
    let bytes = read.map_err(|_| {
        ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body could not be read or is longer than 1 MiB",
        )
    })?;
    if !bytes.is_empty()
        && let Some(content_type) = content_type
    {
        let media_type = content_type
            .to_str()
            .unwrap_or_default()
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_lowercase();
        if media_type != "application/json" {
            return Err(ApiError::bad_request("the body must be application/json"));
        }
    }
    Ok(bytes.to_vec())
}

/// Parses a JSON body. The error names the member that is invalid.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let invalid = |path: &str, error: &serde_json::Error| {
        let member = if path == "." {
            String::new()
        } else {
            format!("{path}: ")
        };
        let message = format!("invalid request body: {member}{error}");
        ApiError::bad_request(message.chars().take(500).collect::<String>())
    };
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader)
        .map_err(|error| invalid(&error.path().to_string(), error.inner()))?;
    reader.end().map_err(|error| invalid(".", &error))?;
    Ok(value)
}

impl<S: Send + Sync> FromRequest<S> for RawBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        read(request).await.map(Self)
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        parse(&read(request).await?).map(Self)
    }
}

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for OptionalJson<T> {
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
