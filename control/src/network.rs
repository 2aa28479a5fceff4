//! Network settings of a sandbox, validated.
//!
//! The edge enforces the rules for incoming traffic. Rules for outgoing traffic are stored and returned, not enforced.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use http::uri::Authority;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

mod address;

use self::address::Cidr;

const ALL_TRAFFIC: &str = "0.0.0.0/0";
/// Entries of one list.
const MAX_ENTRIES: usize = 1000;
const MAX_DOMAINS: usize = 10;
const MAX_RULES: usize = 100;
const MAX_HEADERS: usize = 20;
const MAX_DOMAIN_LEN: usize = 128;
const MAX_HEADER_NAME_LEN: usize = 64;
const MAX_HEADER_VALUE_LEN: usize = 2048;

/// Network settings, in the JSON form of the create and update requests. Unknown members are dropped.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Network {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) allow_public_traffic: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mask_request_host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allow_out: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deny_out: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    egress_proxy: Option<EgressProxy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rules: Option<Rules>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) https_ports: Option<Vec<u16>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dns_servers: Option<Vec<String>>,
    /// A sibling of `network` in a create request, stored with it.
    #[serde(
        alias = "allow_internet_access",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) allow_internet_access: Option<bool>,
}

/// A SOCKS5 proxy for all outgoing traffic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct EgressProxy {
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<Map<String, Value>>,
}

/// Transformations of outgoing requests: keyed by domain, or a list of rules with match conditions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Rules {
    Domains(BTreeMap<String, Vec<Map<String, Value>>>),
    List(Vec<Map<String, Value>>),
}

/// Network settings that are invalid. The text is the message that clients receive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct InvalidNetwork(String);

fn invalid(message: impl Into<String>) -> InvalidNetwork {
    InvalidNetwork(message.into())
}

fn shortened(text: &str) -> String {
    text.chars().take(128).collect()
}

// === impl Network ===

impl Network {
    /// The JSON that the ledger stores; `None` for the default settings.
    pub(crate) fn to_stored(&self) -> Option<Value> {
        if *self == Self::default() {
            return None;
        }
        serde_json::to_value(self).ok()
    }

    /// The JSON that responses contain: without the proxy password, injected secrets and `allowInternetAccess`.
    pub(crate) fn redacted(&self) -> Option<Value> {
        let mut network = self.clone();
        network.allow_internet_access = None;
        if let Some(Rules::List(rules)) = &mut network.rules {
            rules.iter_mut().for_each(redact_injected);
        }
        if let Some(proxy) = &mut network.egress_proxy {
            proxy.password = None;
        }
        network.to_stored()
    }

    /// Whether requests to the sandbox's ports need a traffic token.
    pub(crate) fn is_private(&self) -> bool {
        self.allow_public_traffic == Some(false)
    }

    /// Validates the settings.
    pub(crate) fn validate(&self) -> Result<(), InvalidNetwork> {
        if let Some(mask) = &self.mask_request_host {
            check_mask(mask)?;
        }
        self.check_lists()?;
        if let Some(proxy) = &self.egress_proxy {
            proxy.validate()?;
        }
        match &self.rules {
            Some(Rules::Domains(domains)) => check_domains(domains),
            Some(Rules::List(rules)) if rules.len() > MAX_RULES => {
                Err(invalid(format!("rules has more than {MAX_RULES} rules")))
            }
            _ => Ok(()),
        }
    }

    fn check_lists(&self) -> Result<(), InvalidNetwork> {
        let allow = self.allow_out.as_deref().unwrap_or_default();
        let deny = self.deny_out.as_deref().unwrap_or_default();
        let ports = self.https_ports.as_deref().unwrap_or_default();
        let servers = self.dns_servers.as_deref().unwrap_or_default();
        let longest = [allow.len(), deny.len(), ports.len(), servers.len()];
        if longest.iter().any(|length| *length > MAX_ENTRIES) {
            return Err(invalid(format!(
                "a list of the network has more than {MAX_ENTRIES} entries"
            )));
        }
        for entry in deny {
            if Cidr::parse(entry).is_none() {
                return Err(invalid(format!("invalid denied CIDR {}", shortened(entry))));
            }
        }
        let mut has_domain = false;
        for entry in allow {
            if Cidr::parse(entry).is_some() {
                continue;
            }
            if !is_domain(entry) {
                return Err(invalid(format!(
                    "invalid allowed entry {}",
                    shortened(entry)
                )));
            }
            has_domain = true;
        }
        let denies_rest = deny.iter().any(|entry| entry.trim() == ALL_TRAFFIC)
            || self.allow_internet_access == Some(false);
        if has_domain && !denies_rest {
            return Err(invalid(
                "When specifying allowed domains in allow out, you must include 'ALL_TRAFFIC' in deny out to block \
                 all other traffic.",
            ));
        }
        if ports.contains(&0) {
            return Err(invalid("httpsPorts must not contain 0"));
        }
        for server in servers {
            if server.parse::<Ipv4Addr>().is_err() {
                return Err(invalid(format!("invalid DNS server {}", shortened(server))));
            }
        }
        Ok(())
    }
}

impl EgressProxy {
    fn validate(&self) -> Result<(), InvalidNetwork> {
        let bad = || {
            invalid(format!(
                "invalid egress proxy address {}",
                shortened(&self.address)
            ))
        };
        let (host, port) = self.address.rsplit_once(':').ok_or_else(bad)?;
        port.parse::<u16>()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(bad)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        match host.parse::<IpAddr>() {
            Ok(address) if address::is_denied_range(address) => Err(invalid(format!(
                "egress proxy address {} is in a denied range",
                shortened(&self.address)
            ))),
            Ok(_) => Ok(()),
            Err(_) if is_domain(host) && !host.contains('*') => Ok(()),
            Err(_) => Err(bad()),
        }
    }
}

fn check_domains(
    domains: &BTreeMap<String, Vec<Map<String, Value>>>,
) -> Result<(), InvalidNetwork> {
    if domains.len() > MAX_DOMAINS {
        return Err(invalid(format!(
            "rules has more than {MAX_DOMAINS} domains"
        )));
    }
    for (domain, transforms) in domains {
        let at = shortened(domain);
        if domain.len() > MAX_DOMAIN_LEN || !is_domain(domain) {
            return Err(invalid(format!("rules has an invalid domain {at}")));
        }
        if transforms.len() > 1 {
            return Err(invalid(format!(
                "rules of {at} has more than one transform"
            )));
        }
        for rule in transforms {
            check_transform(rule).map_err(|wrong| invalid(format!("rules of {at} {wrong}")))?;
        }
    }
    Ok(())
}

fn check_transform(rule: &Map<String, Value>) -> Result<(), String> {
    let Some(transform) = rule.get("transform").filter(|value| !value.is_null()) else {
        return Ok(());
    };
    let transform = transform
        .as_object()
        .ok_or("has a transform that is not an object")?;
    let Some(headers) = transform.get("headers").filter(|value| !value.is_null()) else {
        return Ok(());
    };
    let headers = headers
        .as_object()
        .ok_or("has headers that are not an object")?;
    if headers.len() > MAX_HEADERS {
        return Err(format!("has more than {MAX_HEADERS} headers"));
    }
    for (name, value) in headers {
        if name.len() > MAX_HEADER_NAME_LEN || http::HeaderName::try_from(name.as_str()).is_err() {
            return Err(format!("has an invalid header name {}", shortened(name)));
        }
        let fits = value.as_str().is_some_and(|value| {
            value.len() <= MAX_HEADER_VALUE_LEN && http::HeaderValue::try_from(value).is_ok()
        });
        if !fits {
            return Err(format!(
                "has an invalid value of the header {}",
                shortened(name)
            ));
        }
    }
    Ok(())
}

/// Removes the secrets that a rule injects.
fn redact_injected(rule: &mut Map<String, Value>) {
    let action = rule.get_mut("action").and_then(Value::as_object_mut);
    let inject = action
        .and_then(|action| action.get_mut("inject"))
        .and_then(Value::as_array_mut);
    for injection in inject.into_iter().flatten() {
        if let Some(injection) = injection.as_object_mut() {
            injection.remove("secret");
        }
    }
}

/// Whether a text is a domain name, `*.` and a domain name, or `*`.
fn is_domain(text: &str) -> bool {
    let text = text.trim().trim_end_matches('.');
    if text == "*" {
        return true;
    }
    let text = text.strip_prefix("*.").unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || b"-_".contains(&c))
    };
    // A numeric last label makes it a malformed IP address.
    let last = text.rsplit('.').next().unwrap_or_default();
    let named = last.bytes().any(|c| !c.is_ascii_digit());
    named && text.len() <= 253 && text.split('.').all(label)
}

fn check_mask(mask: &str) -> Result<(), InvalidNetwork> {
    let text = mask.replace("${PORT}", "1");
    let host: Option<Authority> = text
        .parse()
        .ok()
        .filter(|_| (1..=253).contains(&text.len()) && !text.contains('@'));
    let port = host.is_some_and(|host| {
        let named = !host.host().is_empty();
        let rest = text.strip_prefix(host.host()).unwrap_or_default();
        named && (rest.is_empty() || host.port_u16().is_some())
    });
    if port {
        Ok(())
    } else {
        Err(invalid(
            "maskRequestHost must be a host, with or without a port",
        ))
    }
}

#[cfg(test)]
mod tests;
