//! What a caller may say of a sandbox's network, checked.
//!
//! It is kept and given back. What it says of traffic that comes in takes effect at the edge.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use http::uri::Authority;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::sandboxes::Failure;

mod address;

pub(crate) use self::address::Cidr;

const EVERYWHERE: &str = "0.0.0.0/0";
/// Entries of a list at most.
const MOST_ENTRIES: usize = 1000;
const MOST_DOMAINS: usize = 10;
const MOST_RULES: usize = 100;
const MOST_HEADERS: usize = 20;
const LONGEST_DOMAIN: usize = 128;
const LONGEST_NAME: usize = 64;
const LONGEST_VALUE: usize = 2048;

/// A sandbox's network, as create and update have it. Members that are not known are dropped.
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
    /// Beside the network on the wire, and kept with it.
    #[serde(
        alias = "allow_internet_access",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) allow_internet_access: Option<bool>,
}

/// A SOCKS5 server that everything goes through.
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

/// What is done to requests that leave: by domain, or a list with matches of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Rules {
    Domains(BTreeMap<String, Vec<Map<String, Value>>>),
    List(Vec<Map<String, Value>>),
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::Invalid(message.into())
}

fn shown(text: &str) -> String {
    text.chars().take(128).collect()
}

// === impl Network ===

impl Network {
    /// What the ledger has; whatever it has.
    pub(crate) fn read(kept: Option<&Value>) -> Self {
        let read = kept.map(|kept| serde_json::from_value(kept.clone()));
        read.and_then(Result::ok).unwrap_or_default()
    }

    /// As the ledger keeps it; `None` when there is nothing to say.
    pub(crate) fn kept(&self) -> Option<Value> {
        if *self == Self::default() {
            return None;
        }
        serde_json::to_value(self).ok()
    }

    /// As callers see it: no password, no secret that is injected, and `allowInternetAccess` is not in it.
    pub(crate) fn shown(mut self) -> Option<Value> {
        self.allow_internet_access = None;
        if let Some(Rules::List(rules)) = &mut self.rules {
            rules.iter_mut().for_each(hide_injected);
        }
        if let Some(proxy) = &mut self.egress_proxy {
            proxy.password = None;
        }
        self.kept()
    }

    /// Ports ask their callers for a token.
    pub(crate) fn is_private(&self) -> bool {
        self.allow_public_traffic == Some(false)
    }

    /// Says no to what cannot be meant.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if let Some(mask) = &self.mask_request_host {
            check_mask(mask)?;
        }
        self.check_lists()?;
        if let Some(proxy) = &self.egress_proxy {
            proxy.check()?;
        }
        match &self.rules {
            Some(Rules::Domains(domains)) => check_domains(domains),
            Some(Rules::List(rules)) if rules.len() > MOST_RULES => {
                Err(invalid(format!("rules has more than {MOST_RULES} rules")))
            }
            _ => Ok(()),
        }
    }

    fn check_lists(&self) -> Result<(), Failure> {
        let allow = self.allow_out.as_deref().unwrap_or_default();
        let deny = self.deny_out.as_deref().unwrap_or_default();
        let ports = self.https_ports.as_deref().unwrap_or_default();
        let servers = self.dns_servers.as_deref().unwrap_or_default();
        let longest = [allow.len(), deny.len(), ports.len(), servers.len()];
        if longest.iter().any(|length| *length > MOST_ENTRIES) {
            return Err(invalid(format!(
                "a list of the network has more than {MOST_ENTRIES} entries"
            )));
        }
        for entry in deny {
            if Cidr::parse(entry).is_none() {
                return Err(invalid(format!("invalid denied CIDR {}", shown(entry))));
            }
        }
        let mut names = false;
        for entry in allow {
            if Cidr::parse(entry).is_some() {
                continue;
            }
            if !is_domain(entry) {
                return Err(invalid(format!("invalid allowed entry {}", shown(entry))));
            }
            names = true;
        }
        let closed = deny.iter().any(|entry| entry.trim() == EVERYWHERE)
            || self.allow_internet_access == Some(false);
        if names && !closed {
            return Err(invalid(
                "When specifying allowed domains in allow out, you must include 'ALL_TRAFFIC' in deny out to block \
                 all other traffic.",
            ));
        }
        if ports.contains(&0) {
            return Err(invalid("httpsPorts has a port that is none"));
        }
        for server in servers {
            if server.parse::<Ipv4Addr>().is_err() {
                return Err(invalid(format!("invalid DNS server {}", shown(server))));
            }
        }
        Ok(())
    }
}

impl EgressProxy {
    fn check(&self) -> Result<(), Failure> {
        let bad = || {
            invalid(format!(
                "invalid egress proxy address {}",
                shown(&self.address)
            ))
        };
        let (host, port) = self.address.rsplit_once(':').ok_or_else(bad)?;
        port.parse::<u16>()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(bad)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        match host.parse::<IpAddr>() {
            Ok(address) if address::is_never_allowed(address) => Err(invalid(format!(
                "egress proxy address {} is in a denied range",
                shown(&self.address)
            ))),
            Ok(_) => Ok(()),
            Err(_) if is_domain(host) && !host.contains('*') => Ok(()),
            Err(_) => Err(bad()),
        }
    }
}

fn check_domains(domains: &BTreeMap<String, Vec<Map<String, Value>>>) -> Result<(), Failure> {
    if domains.len() > MOST_DOMAINS {
        return Err(invalid(format!(
            "rules has more than {MOST_DOMAINS} domains"
        )));
    }
    for (domain, transforms) in domains {
        let at = shown(domain);
        if domain.len() > LONGEST_DOMAIN || !is_domain(domain) {
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
    if headers.len() > MOST_HEADERS {
        return Err(format!("has more than {MOST_HEADERS} headers"));
    }
    for (name, value) in headers {
        if name.len() > LONGEST_NAME || http::HeaderName::try_from(name.as_str()).is_err() {
            return Err(format!("has an invalid header name {}", shown(name)));
        }
        let fits = value.as_str().is_some_and(|value| {
            value.len() <= LONGEST_VALUE && http::HeaderValue::try_from(value).is_ok()
        });
        if !fits {
            return Err(format!(
                "has an invalid value of the header {}",
                shown(name)
            ));
        }
    }
    Ok(())
}

/// Takes the secrets from a rule's injections.
fn hide_injected(rule: &mut Map<String, Value>) {
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

/// A name, `*.name`, or `*`.
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
    // A name whose last label is a number is an address that is none.
    let last = text.rsplit('.').next().unwrap_or_default();
    let named = last.bytes().any(|c| !c.is_ascii_digit());
    named && text.len() <= 253 && text.split('.').all(label)
}

fn check_mask(mask: &str) -> Result<(), Failure> {
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
