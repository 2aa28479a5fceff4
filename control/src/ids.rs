//! Identifiers of templates and builds.

use std::{fmt, str::FromStr};

use pool_api::{InvalidId, SandboxId, TemplateInfo, TemplateName};
use serde::{Serialize, Serializer};
use uuid::Uuid;

/// Identifies a template. A template of the host has its name as its id; one made of snapshots has a random id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub(crate) struct TemplateId(TemplateName);

/// Identifies a build of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct BuildId(Uuid);

// === impl TemplateId ===

impl TemplateId {
    /// Generates an id that cannot be guessed: `t` and 20 characters.
    pub(crate) fn generate() -> Result<Self, InvalidId> {
        let id = SandboxId::generate(&mut rand::rng());
        let random = id.as_str().get(1..).unwrap_or_default();
        format!("t{random}").parse()
    }

    /// The id as text.
    pub(crate) fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The id in the form that the host and references use.
    pub(crate) fn as_name(&self) -> &TemplateName {
        &self.0
    }
}

impl From<TemplateName> for TemplateId {
    fn from(name: TemplateName) -> Self {
        Self(name)
    }
}

impl FromStr for TemplateId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        text.parse().map(Self)
    }
}

impl fmt::Display for TemplateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl BuildId ===

impl BuildId {
    /// Generates a random id.
    pub(crate) fn generate() -> Self {
        Self(Uuid::new_v4())
    }

    /// Derives the id of a host template's build from its snapshot. The nil UUID if the template has no snapshot yet.
    pub(crate) fn of_host_template(info: &TemplateInfo) -> Self {
        let digest = info.snapshot.as_ref().and_then(|id| id.as_str().get(..32));
        let digest = digest.and_then(|digits| Uuid::try_parse(digits).ok());
        Self(digest.map_or(Uuid::nil(), |digest| {
            uuid::Builder::from_custom_bytes(digest.into_bytes()).into_uuid()
        }))
    }
}

impl FromStr for BuildId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::try_parse(text).map(Self)
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for BuildId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
