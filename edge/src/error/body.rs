//! What an answer of the edge says: to programs in JSON, to people who look with a browser in a page.

mod page;

use http::HeaderMap;
use pool_api::SandboxId;
use serde_json::{Value, json};

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    Text(&'static str),
    /// JSON for programs, a page for browsers.
    Either {
        json: String,
        title: &'static str,
        message: String,
        /// Of which sandbox the page tells, if of one.
        sandbox: Option<SandboxId>,
    },
    Json(String),
}

impl Body {
    /// The content type, and the text for a client that sent these fields.
    pub(super) fn rendered(self, headers: &HeaderMap) -> (&'static str, String) {
        const JSON: &str = "application/json; charset=utf-8";
        match self {
            Self::Text(text) => ("text/plain; charset=utf-8", text.to_owned()),
            Self::Either {
                title,
                message,
                sandbox,
                ..
            } if page::wanted(headers) => {
                let page = page::render(title, &message, sandbox.as_ref());
                ("text/html; charset=utf-8", page)
            }
            Self::Either { json, .. } | Self::Json(json) => (JSON, json),
        }
    }
}

/// An object whose members keep their order.
pub(super) fn ordered(members: &[(&str, Value)]) -> String {
    let members: Vec<String> = members
        .iter()
        .map(|(name, value)| format!("{}:{value}", json!(name)))
        .collect();
    format!("{{{}}}", members.join(","))
}
