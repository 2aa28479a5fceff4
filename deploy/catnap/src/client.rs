//! A client of the gateway's API.

use anyhow::{Context, Result};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;

use crate::cli::ClientArgs;

#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    key: Option<String>,
}

/// A response with an error status.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ApiError {
    /// The status of the response.
    pub(crate) status: StatusCode,
    /// The message in its body.
    pub(crate) message: String,
}

/// Maps an error to the exit code of the program.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<ApiError>() {
            return match error.status.as_u16() {
                400 | 422 => 2,
                401 | 403 => 5,
                404 => 4,
                409 => 6,
                429 | 502..=504 => 7,
                _ => 1,
            };
        }
        if let Some(error) = cause.downcast_ref::<reqwest::Error>()
            && (error.is_connect() || error.is_timeout())
        {
            return 7;
        }
    }
    1
}

/// Builds the path of a route below `/sandboxes/<id>`. Replaces characters that no ID has, so that a malformed ID is not
/// found.
pub(crate) fn sandbox_path(id: &str, rest: &str) -> String {
    let id: String = id
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' {
                c
            } else {
                '_'
            }
        })
        .collect();
    format!("/sandboxes/{id}{rest}")
}

impl Client {
    pub(crate) fn new(args: &ClientArgs) -> Result<Self> {
        let http = reqwest::Client::builder()
            .build()
            .context("failed to create an HTTP client")?;
        let key = args
            .api_key
            .clone()
            .or_else(|| std::env::var("E2B_API_KEY").ok());
        Ok(Self {
            http,
            url: args.url.trim_end_matches('/').to_owned(),
            key,
        })
    }

    /// Calls the API. Returns the body of the response, or `null` if it is empty.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value> {
        let (body, _) = self.call_paged(method, path, body).await?;
        Ok(body)
    }

    /// Calls the API. Returns the body of the response and the token of the next page.
    pub(crate) async fn call_paged(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(Value, Option<String>)> {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(key) = &self.key {
            request = request.header("X-API-Key", key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = error_for_status(self.send(request).await?).await?;
        let next = response
            .headers()
            .get("x-next-token")
            .and_then(|token| token.to_str().ok())
            .map(str::to_owned);
        let bytes = response
            .bytes()
            .await
            .context("failed to read the response")?;
        if bytes.is_empty() {
            return Ok((Value::Null, next));
        }
        let body = serde_json::from_slice(&bytes).context("failed to decode the response")?;
        Ok((body, next))
    }

    /// Builds a POST request to a port of a sandbox.
    pub(crate) fn sandbox_request(&self, id: &str, port: u16, path: &str) -> RequestBuilder {
        let request = self.http.post(format!("{}{path}", self.url));
        request
            .header("E2b-Sandbox-Id", id)
            .header("E2b-Sandbox-Port", port)
    }

    /// Sends a request.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response> {
        request.send().await.with_context(|| {
            format!(
                "failed to reach the gateway at {} (is `catnap up` running there?)",
                self.url
            )
        })
    }
}

/// Converts a response with an error status to an [`ApiError`].
pub(crate) async fn error_for_status(response: Response) -> Result<Response> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = response.text().await.unwrap_or_default();
    let message = serde_json::from_str::<Value>(&text)
        .ok()
        .and_then(|body| {
            body.get("message")
                .and_then(Value::as_str)
                .map(str::to_owned)
        })
        .unwrap_or_else(|| format!("the gateway returned status {status}"));
    Err(ApiError { status, message }.into())
}
