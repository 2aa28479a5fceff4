//! References to templates and snapshots: `[namespace/]name[:tag]`, with a name or an id.

use std::{fmt, str::FromStr};

use pool_api::TemplateName;
use uuid::Uuid;

/// The namespace of every template on this server.
pub(crate) const NAMESPACE: &str = "catnap";
/// The tag of a reference that has none.
const DEFAULT_TAG: &str = "default";

/// The longest reference, in bytes.
const MAX_LEN: usize = 512;

/// A reference to a template or a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    /// The owner, if given.
    namespace: Option<Namespace>,
    /// A name or an id.
    pub(crate) name: TemplateName,
    /// The tag of a build, if given.
    pub(crate) tag: Option<Tag>,
}

/// The owner of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Namespace(TemplateName);

/// A tag of a build: `^[a-z0-9-_.]+$`, at most 128 characters, not a UUID.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Tag(String);

/// A text that is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidReference {
    #[error("it is longer than {MAX_LEN} bytes")]
    TooLong,
    #[error("{0:?} is not a name (1 to 128 characters of a-z, 0-9, '-' and '_', not a UUID)")]
    Name(String),
    #[error("{0:?} is not a tag (1 to 128 characters of a-z, 0-9, '-', '_' and '.', not a UUID)")]
    Tag(String),
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

fn is_uuid(text: &str) -> bool {
    text.contains('-') && Uuid::try_parse(text).is_ok()
}

fn parse_name(text: &str) -> Result<TemplateName, InvalidReference> {
    let bad = || InvalidReference::Name(shortened(text));
    if is_uuid(text) {
        return Err(bad());
    }
    text.parse().map_err(|_| bad())
}

// === impl Reference ===

impl Reference {
    /// A reference to a template by name or id.
    pub(crate) fn untagged(name: TemplateName) -> Self {
        Self {
            namespace: None,
            name,
            tag: None,
        }
    }

    /// The tag, or the default tag.
    pub(crate) fn tag_or_default(&self) -> Tag {
        self.tag.clone().unwrap_or_default()
    }

    /// Whether the reference can name a template of this server's namespace.
    pub(crate) fn is_local(&self) -> bool {
        self.namespace
            .as_ref()
            .is_none_or(|namespace| namespace.0.as_str() == NAMESPACE)
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        if text.len() > MAX_LEN {
            return Err(InvalidReference::TooLong);
        }
        let text = text.trim().to_lowercase();
        let (path, tag) = match text.split_once(':') {
            Some((path, tag)) => (path, Some(tag.parse()?)),
            None => (text.as_str(), None),
        };
        let (namespace, last) = match path.split_once('/') {
            Some((namespace, last)) => (Some(Namespace(parse_name(namespace)?)), last),
            None => (None, path),
        };
        Ok(Self {
            namespace,
            name: parse_name(last)?,
            tag,
        })
    }
}

// === impl Tag ===

impl Tag {
    /// The tag as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the default tag.
    pub(crate) fn is_default(&self) -> bool {
        self.0 == DEFAULT_TAG
    }
}

impl Default for Tag {
    fn default() -> Self {
        Self(DEFAULT_TAG.to_owned())
    }
}

impl FromStr for Tag {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        let text = text.trim().to_lowercase();
        if (1..=128).contains(&text.len()) && text.chars().all(allowed) && !is_uuid(&text) {
            Ok(Self(text))
        } else {
            Err(InvalidReference::Tag(shortened(&text)))
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(text: &str) -> Option<(Option<String>, String, Option<String>)> {
        let read: Reference = text.parse().ok()?;
        let namespace = read.namespace.map(|namespace| namespace.0.to_string());
        let tag = read.tag.map(|tag| tag.to_string());
        Some((namespace, read.name.to_string(), tag))
    }

    #[test]
    fn references_are_trimmed_and_lowercased() {
        let own = |text: &str| Some(text.to_owned());
        for (text, want) in [
            ("base", Some((None, "base".to_owned(), None))),
            (
                "  Team/Base:V1.0 ",
                Some((own("team"), "base".to_owned(), own("v1.0"))),
            ),
            (
                "base:default",
                Some((None, "base".to_owned(), own("default"))),
            ),
        ] {
            assert_eq!(parts(text), want, "{text:?}");
        }
        for bad in [
            "",
            "a/b/c",
            "a:b:c",
            "a:",
            "/a",
            "a b",
            "../x",
            "ä",
            "123e4567-e89b-12d3-a456-426614174000",
            "a:123e4567-e89b-12d3-a456-426614174000",
        ] {
            assert_eq!(parts(bad), None, "{bad:?}");
        }
        assert_eq!(parts(&"a".repeat(129)), None);
        assert_eq!(
            " x".repeat(400).parse::<Reference>(),
            Err(InvalidReference::TooLong)
        );
    }

    proptest! {
        #[test]
        fn parsing_any_text_does_not_panic(text in ".*") {
            drop(text.parse::<Reference>());
        }

        #[test]
        fn parsed_references_round_trip(text in "[a-zA-Z0-9_/:. -]{0,40}") {
            if let Some((namespace, name, tag)) = parts(&text) {
                let namespace = namespace.map_or(String::new(), |text| text + "/");
                let tag = tag.map_or(String::new(), |text| format!(":{text}"));
                let again = format!("{namespace}{name}{tag}");
                prop_assert_eq!(parts(&again), parts(&text));
            }
        }
    }
}
