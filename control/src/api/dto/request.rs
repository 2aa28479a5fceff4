//! Bodies of requests. Unknown members are accepted.

use std::{collections::BTreeMap, time::Duration};

use pool_api::TemplateName;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::INTERNET;
use crate::{
    ledger::Lasting,
    sandboxes::{Failure, NewSandbox},
};

/// A sandbox to be made, second generation: always secured.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NewV2 {
    #[serde(rename = "templateID")]
    template_id: String,
    timeout: Option<i64>,
    #[serde(default)]
    auto_pause: Option<bool>,
    auto_pause_memory: Option<bool>,
    auto_resume: Option<AutoResume>,
    #[serde(rename = "allow_internet_access")]
    allow_internet_access: Option<bool>,
    network: Option<Map<String, Value>>,
    metadata: Option<BTreeMap<String, String>>,
    env_vars: Option<BTreeMap<String, String>>,
    idle_timeout: Option<i64>,
}

/// As [`NewV2`], first generation: secured if asked for, and shorter-lived.
#[derive(Debug, Deserialize)]
pub(crate) struct NewV1 {
    #[serde(flatten)]
    new: NewV2,
    secure: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct AutoResume {
    #[serde(default)]
    enabled: bool,
}

/// Connect, first generation.
#[derive(Debug, Deserialize)]
pub(crate) struct ConnectV1 {
    pub(crate) timeout: i64,
    pub(crate) memory: Option<bool>,
}

/// Connect, second generation.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ConnectV2 {
    pub(crate) timeout: Option<i64>,
    pub(crate) memory: Option<bool>,
}

/// Resume.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Resume {
    pub(crate) timeout: Option<i64>,
    pub(crate) memory: Option<bool>,
}

/// Pause.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Pause {
    pub(crate) memory: Option<bool>,
}

/// Fork.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Fork {
    pub(crate) timeout: Option<i64>,
    pub(crate) count: Option<i64>,
}

/// Timeout.
#[derive(Debug, Deserialize)]
pub(crate) struct Timeout {
    pub(crate) timeout: i64,
}

/// Refresh.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Refresh {
    pub(crate) duration: Option<i64>,
}

/// Seconds a sandbox is given, if they are more than none and not too many.
pub(crate) fn span(seconds: i64, longest: Duration) -> Result<Duration, Failure> {
    let span = u64::try_from(seconds)
        .ok()
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs);
    let span = span.ok_or_else(|| Failure::Invalid("Timeout must be greater than 0".to_owned()))?;
    if span > longest {
        let hours = longest.as_secs() / 3600;
        return Err(Failure::Invalid(format!(
            "Timeout cannot be greater than {hours} hours"
        )));
    }
    Ok(span)
}

impl NewV1 {
    /// What is meant.
    pub(crate) fn checked(self, longest: Duration) -> Result<NewSandbox, Failure> {
        let secure = self.secure.unwrap_or(false);
        let new = self.new.meant(15, secure, longest)?;
        if new.private && !secure {
            let message = "You cannot create a sandbox without public access unless you enable secure envd access via \
                           'secure' flag.";
            return Err(Failure::Invalid(message.to_owned()));
        }
        Ok(new)
    }
}

impl NewV2 {
    /// What is meant.
    pub(crate) fn checked(self, longest: Duration) -> Result<NewSandbox, Failure> {
        self.meant(300, true, longest)
    }

    fn meant(
        self,
        default_timeout: i64,
        secure: bool,
        longest: Duration,
    ) -> Result<NewSandbox, Failure> {
        let template = template(&self.template_id)?;
        let timeout = span(self.timeout.unwrap_or(default_timeout), longest)?;
        let idle_timeout = self.idle_timeout.map(idle).transpose()?;
        if self.auto_pause_memory == Some(false) {
            return Err(Failure::Invalid(
                "a pause without memory is not supported".to_owned(),
            ));
        }
        let mut network = self.network.unwrap_or_default();
        let private = network.get("allowPublicTraffic").and_then(Value::as_bool) == Some(false);
        if let Some(mask) = network
            .get("maskRequestHost")
            .filter(|mask| !mask.is_null())
        {
            check_mask(mask)?;
        }
        if let Some(allow) = self.allow_internet_access {
            network.insert(INTERNET.to_owned(), Value::Bool(allow));
        }
        let lasting = Lasting {
            template,
            timeout,
            idle_timeout,
            auto_pause: self.auto_pause.unwrap_or(false),
            auto_resume: self.auto_resume.is_some_and(|auto| auto.enabled),
            metadata: self.metadata.unwrap_or_default(),
            env: self.env_vars.unwrap_or_default(),
            network: (!network.is_empty()).then_some(Value::Object(network)),
        };
        Ok(NewSandbox {
            lasting,
            secure,
            private,
        })
    }
}

fn idle(seconds: i64) -> Result<Duration, Failure> {
    let span = u64::try_from(seconds)
        .ok()
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs);
    span.ok_or_else(|| Failure::Invalid("idleTimeout must be greater than 0".to_owned()))
}

fn check_mask(mask: &Value) -> Result<(), Failure> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || b"-._:[]".contains(&c);
    let fits = |text: &str| {
        let text = text.replace("${PORT}", "1");
        (1..=253).contains(&text.len()) && text.bytes().all(allowed)
    };
    match mask.as_str() {
        Some(text) if fits(text) => Ok(()),
        _ => Err(Failure::Invalid(
            "maskRequestHost must be a host, with or without a port".to_owned(),
        )),
    }
}

/// Reads `[namespace/]name[:tag]`. There is one namespace and one tag yet.
fn template(reference: &str) -> Result<TemplateName, Failure> {
    let text = reference.trim().to_lowercase();
    let (path, tag) = text.split_once(':').unwrap_or((&text, "default"));
    let named = |text: &str| -> Result<TemplateName, Failure> {
        text.parse()
            .map_err(|error| Failure::Invalid(format!("Invalid template reference: {error}")))
    };
    let name = match path.split_once('/') {
        Some((namespace, name)) => named(namespace).and_then(|_| named(name))?,
        None => named(path)?,
    };
    if tag == "default" {
        return Ok(name);
    }
    let tag: String = tag.chars().take(80).collect();
    Err(Failure::NoTemplate(format!(
        "tag '{tag}' does not exist for template '{name}'"
    )))
}
