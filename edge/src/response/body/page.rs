//! HTML pages for browsers.

use http::{HeaderMap, header};
use pool_api::SandboxId;

/// Returns whether the client is a browser that displays the response: by its `User-Agent`, unless a script sent the
/// request.
pub(super) fn is_accepted(headers: &HeaderMap) -> bool {
    const BROWSERS: [&str; 7] = [
        "mozilla", "chrome", "safari", "firefox", "edge", "opera", "msie",
    ];
    let value = |name: &str| {
        headers
            .get(name)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).to_lowercase())
    };
    let agent = value(header::USER_AGENT.as_str()).unwrap_or_default();
    if !BROWSERS.iter().any(|browser| agent.contains(browser)) {
        return false;
    }
    let accept = value(header::ACCEPT.as_str()).unwrap_or_default();
    let prefers_json = accept.contains("application/json") && !accept.contains("text/html");
    match value("sec-fetch-mode").as_deref() {
        Some("navigate") => true,
        Some("cors" | "no-cors" | "same-origin" | "websocket") => false,
        _ => !prefers_json && !headers.contains_key("x-requested-with"),
    }
}

/// Renders the page.
pub(super) fn render(title: &str, message: &str, sandbox: Option<&SandboxId>) -> String {
    let (title, message) = (escape(title), escape(message));
    let sandbox = sandbox.map_or_else(String::new, |id| {
        format!("<p>Sandbox <code>{id}</code></p>")
    });
    format!(
        "<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title><style>body{{font-family:sans-serif;\
         max-width:40em;margin:20vh auto;padding:0 1em}}</style></head><body><h1>{title}</h1><p>{message}</p>{sandbox}</body></html>"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn only_navigating_browsers_receive_a_page() {
        let chrome = ("user-agent", "Mozilla/5.0 Chrome/140");
        for (fields, expected) in [
            (&[chrome][..], true),
            (&[chrome, ("accept", "text/html,application/json")], true),
            (&[chrome, ("accept", "application/json")], false),
            (
                &[
                    chrome,
                    ("accept", "application/json"),
                    ("sec-fetch-mode", "navigate"),
                ],
                true,
            ),
            (&[chrome, ("sec-fetch-mode", "cors")], false),
            (&[chrome, ("x-requested-with", "XMLHttpRequest")], false),
            (&[("user-agent", "curl/8"), ("accept", "text/html")], false),
            (&[], false),
        ] {
            let headers: HeaderMap = fields
                .iter()
                .map(|(name, value)| {
                    (
                        HeaderName::from_static(name),
                        HeaderValue::from_static(value),
                    )
                })
                .collect();
            assert_eq!(is_accepted(&headers), expected, "{fields:?}");
        }
    }

    #[test]
    fn page_is_complete_and_escaped() {
        let page = render("Not <b>", "a & b", Some(&"iabc".parse().unwrap()));
        assert!(page.contains("iabc"), "{page}");
        assert!(
            page.starts_with("<html") && page.ends_with("</html>"),
            "{page}"
        );
        assert!(
            page.contains("Not &lt;b&gt;") && page.contains("a &amp; b"),
            "{page}"
        );
    }
}
