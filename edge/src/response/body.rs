//! Bodies of the gateway's own responses: JSON for programs, a page for browsers.

mod page;

use http::HeaderMap;
use pool_api::SandboxId;
use serde_json::{Value, json};

/// A body before content negotiation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    Empty,
    Text(String),
    /// JSON for programs, a page for browsers.
    JsonOrPage {
        json: String,
        title: &'static str,
        message: String,
        /// The sandbox that the page names.
        sandbox: Option<SandboxId>,
    },
    Json(String),
}

impl Body {
    /// Returns the content type and the text for a client that sent these headers.
    pub(super) fn render(self, headers: &HeaderMap) -> (&'static str, String) {
        const JSON: &str = "application/json; charset=utf-8";
        match self {
            Self::Empty => ("text/plain; charset=utf-8", String::new()),
            Self::Text(text) => ("text/plain; charset=utf-8", text),
            Self::JsonOrPage {
                title,
                message,
                sandbox,
                ..
            } if page::is_accepted(headers) => {
                let page = page::render(title, &message, sandbox.as_ref());
                ("text/html; charset=utf-8", page)
            }
            Self::JsonOrPage { json, .. } | Self::Json(json) => (JSON, json),
        }
    }
}

/// Returns a JSON object whose members keep their order.
pub(super) fn ordered(members: &[(&str, Value)]) -> String {
    let members: Vec<String> = members
        .iter()
        .map(|(name, value)| format!("{}:{value}", json!(name)))
        .collect();
    format!("{{{}}}", members.join(","))
}
