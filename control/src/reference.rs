//! How callers name templates and snapshots: `[namespace/]name[:tag]`, or an id.

use std::{fmt, str::FromStr};

use pool_api::TemplateName;
use uuid::Uuid;

/// The namespace of everything here.
pub(crate) const NAMESPACE: &str = "catnap";
/// The tag that is meant when none is given.
pub(crate) const DEFAULT_TAG: &str = "default";

/// The longest reference anybody may write, in bytes.
const LONGEST: usize = 512;

/// The name of a template or a snapshot, as a caller gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    /// Whose it is; `None`: nobody said.
    pub(crate) namespace: Option<TemplateName>,
    /// The name, or the id.
    pub(crate) name: TemplateName,
    /// Which build; `None`: nobody said.
    pub(crate) tag: Option<Tag>,
}

/// A name of a build: `^[a-z0-9-_.]+$`, at most 128 characters, and no UUID.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Tag(String);

/// A text that names no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidReference {
    #[error("it is longer than {LONGEST} bytes")]
    Long,
    #[error("{0:?} is not a name (1 to 128 characters of a-z, 0-9, '-' and '_', and no UUID)")]
    Name(String),
    #[error("{0:?} is not a tag (1 to 128 characters of a-z, 0-9, '-', '_' and '.', and no UUID)")]
    Tag(String),
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

fn is_uuid(text: &str) -> bool {
    text.contains('-') && Uuid::try_parse(text).is_ok()
}

fn name(text: &str) -> Result<TemplateName, InvalidReference> {
    let bad = || InvalidReference::Name(shortened(text));
    if is_uuid(text) {
        return Err(bad());
    }
    text.parse().map_err(|_| bad())
}

// === impl Reference ===

impl Reference {
    /// The tag that is meant.
    pub(crate) fn tag_or_default(&self) -> Tag {
        self.tag.clone().unwrap_or_default()
    }

    /// Whether it may be one of ours.
    pub(crate) fn is_ours(&self) -> bool {
        self.namespace
            .as_ref()
            .is_none_or(|namespace| namespace.as_str() == NAMESPACE)
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        if text.len() > LONGEST {
            return Err(InvalidReference::Long);
        }
        let text = text.trim().to_lowercase();
        let (path, tag) = match text.split_once(':') {
            Some((path, tag)) => (path, Some(tag.parse()?)),
            None => (text.as_str(), None),
        };
        let (namespace, named) = match path.split_once('/') {
            Some((namespace, named)) => (Some(name(namespace)?), named),
            None => (None, path),
        };
        Ok(Self {
            namespace,
            name: name(named)?,
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

    /// Whether it is the one that is meant when none is given.
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
mod test {
    use proptest::prelude::*;

    use super::*;

    fn parts(text: &str) -> Option<(Option<String>, String, Option<String>)> {
        let read: Reference = text.parse().ok()?;
        let namespace = read.namespace.map(|namespace| namespace.to_string());
        let tag = read.tag.map(|tag| tag.to_string());
        Some((namespace, read.name.to_string(), tag))
    }

    #[test]
    fn references_are_trimmed_and_lowered() {
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
            Err(InvalidReference::Long)
        );
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in ".*") {
            drop(text.parse::<Reference>());
        }

        #[test]
        fn what_is_read_reads_the_same_again(text in "[a-zA-Z0-9_/:. -]{0,40}") {
            if let Some((namespace, name, tag)) = parts(&text) {
                let namespace = namespace.map_or(String::new(), |text| text + "/");
                let tag = tag.map_or(String::new(), |text| format!(":{text}"));
                let again = format!("{namespace}{name}{tag}");
                prop_assert_eq!(parts(&again), parts(&text));
            }
        }
    }
}
