//! The API, called.

use anyhow::{Context, Result};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;

use crate::cli::Remote;

/// Where the API is.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    key: Option<String>,
}

/// An answer that says no.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refused {
    /// The status it came with.
    pub(crate) status: StatusCode,
    /// What it says.
    pub(crate) message: String,
}

/// The exit code an error asks for.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if let Some(refused) = cause.downcast_ref::<Refused>() {
            return match refused.status.as_u16() {
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

impl Client {
    /// The gateway `remote` names.
    pub(crate) fn new(remote: &Remote) -> Result<Self> {
        let http = reqwest::Client::builder()
            .build()
            .context("make an HTTP client")?;
        let key = remote
            .api_key
            .clone()
            .or_else(|| std::env::var("E2B_API_KEY").ok());
        Ok(Self {
            http,
            url: remote.url.trim_end_matches('/').to_owned(),
            key,
        })
    }

    /// Asks the API; its answer as JSON, `null` when there is none.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value> {
        let (answer, _) = self.call_paged(method, path, body).await?;
        Ok(answer)
    }

    /// As [`Client::call`], with the token of the next page.
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
        let response = accepted(self.send(request).await?).await?;
        let next = response
            .headers()
            .get("x-next-token")
            .and_then(|token| token.to_str().ok())
            .map(str::to_owned);
        let bytes = response
            .bytes()
            .await
            .context("read the gateway's answer")?;
        if bytes.is_empty() {
            return Ok((Value::Null, next));
        }
        Ok((
            serde_json::from_slice(&bytes).context("understand the gateway's answer")?,
            next,
        ))
    }

    /// Opens a stream to a port of a sandbox.
    pub(crate) fn sandbox(&self, id: &str, port: u16, path: &str) -> RequestBuilder {
        let request = self.http.post(format!("{}{path}", self.url));
        request
            .header("E2b-Sandbox-Id", id)
            .header("E2b-Sandbox-Port", port)
    }

    /// Sends a request.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response> {
        request
            .send()
            .await
            .with_context(|| format!("reach the gateway at {}", self.url))
    }
}

/// The response, if it says yes.
pub(crate) async fn accepted(response: Response) -> Result<Response> {
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
        .unwrap_or_else(|| format!("the gateway answered {status}"));
    Err(Refused { status, message }.into())
}
