//! What a guest is told it is.

use std::{collections::BTreeMap, fmt};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

/// A part of an [`InitRequest`] that is not what it should be. The part itself is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidInit {
    /// See [`Entropy`].
    #[error("entropy is not 1 to 512 bytes in base64")]
    Entropy,
    /// See [`MachineId`].
    #[error("machine id is not 32 hexadecimal digits")]
    MachineId,
    /// See [`Hostname`].
    #[error("hostname is not 1 to 63 characters of a-z, 0-9 and '-'")]
    Hostname,
}

/// The body of `POST /init`. The first six fields are those of E2B's agent. A field that is absent changes nothing, so
/// that a plain restore says little and costs little.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InitRequest {
    /// Environment of every process started from now on; replaces the earlier one whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env_vars: Option<BTreeMap<String, String>>,
    /// What a caller of the agent must show; the empty token lets everybody in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_token: Option<Token>,
    /// The time now (RFC 3339). The guest's clock is set when it is more than 50 ms behind or 5 s ahead of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
    /// Who runs processes and owns files when a caller names nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_user: Option<String>,
    /// Where processes run when a caller names no directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_workdir: Option<String>,
    /// The life of the sandbox, for logs.
    #[serde(rename = "lifecycleID", skip_serializing_if = "Option::is_none")]
    pub lifecycle_id: Option<String>,
    /// Fresh randomness for the kernel's pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entropy: Option<Entropy>,
    /// The new `/etc/machine-id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<MachineId>,
    /// The new host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Hostname>,
    /// The sandbox this guest is now. When it differs from the last one, the hooks for forks run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox_id: Option<String>,
    /// The template the sandbox was made from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_id: Option<String>,
}

/// A token that must not be printed. `Debug` hides it; it has no `Display`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

/// Randomness from the host, 1 to 512 bytes; base64 in JSON. `Debug` hides it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Entropy(Vec<u8>);

/// A machine id: 32 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MachineId(String);

/// A host name: 1 to 63 characters of `a-z`, `0-9` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hostname(String);

// === impl Token ===

impl Token {
    /// Wraps a token.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The token itself. Compare in constant time, and do not log it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

// === impl Entropy ===

impl Entropy {
    /// Most bytes that can be given at once: what the kernel's pool takes in one call.
    pub const MAX_LEN: usize = 512;

    /// Wraps random bytes.
    pub fn new(bytes: Vec<u8>) -> Result<Self, InvalidInit> {
        if (1..=Self::MAX_LEN).contains(&bytes.len()) {
            Ok(Self(bytes))
        } else {
            Err(InvalidInit::Entropy)
        }
    }

    /// The random bytes. Do not log them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entropy({} bytes)", self.0.len())
    }
}

impl TryFrom<String> for Entropy {
    type Error = InvalidInit;

    fn try_from(text: String) -> Result<Self, InvalidInit> {
        if text.len() > Self::MAX_LEN.div_ceil(3) * 4 {
            return Err(InvalidInit::Entropy);
        }
        let bytes = STANDARD.decode(text).map_err(|_| InvalidInit::Entropy)?;
        Self::new(bytes)
    }
}

impl From<Entropy> for String {
    fn from(entropy: Entropy) -> Self {
        STANDARD.encode(entropy.0)
    }
}

// === impl MachineId ===

impl MachineId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<[u8; 16]> for MachineId {
    fn from(bytes: [u8; 16]) -> Self {
        Self(format!("{:032x}", u128::from_be_bytes(bytes)))
    }
}

impl TryFrom<String> for MachineId {
    type Error = InvalidInit;

    fn try_from(text: String) -> Result<Self, InvalidInit> {
        let hex = |c| matches!(c, b'0'..=b'9' | b'a'..=b'f');
        if text.len() == 32 && text.bytes().all(hex) {
            Ok(Self(text))
        } else {
            Err(InvalidInit::MachineId)
        }
    }
}

impl From<MachineId> for String {
    fn from(id: MachineId) -> Self {
        id.0
    }
}

// === impl Hostname ===

impl Hostname {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Hostname {
    type Error = InvalidInit;

    fn try_from(text: String) -> Result<Self, InvalidInit> {
        let valid = |c| matches!(c, b'0'..=b'9' | b'a'..=b'z' | b'-');
        if (1..=63).contains(&text.len()) && text.bytes().all(valid) {
            Ok(Self(text))
        } else {
            Err(InvalidInit::Hostname)
        }
    }
}

impl From<Hostname> for String {
    fn from(name: Hostname) -> Self {
        name.0
    }
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::*;

    fn full() -> InitRequest {
        InitRequest {
            env_vars: Some(BTreeMap::from([("A".to_owned(), "b=c\n".to_owned())])),
            access_token: Some(Token::new("very secret")),
            timestamp: Some("2026-11-22T01:35:11.872215Z".to_owned()),
            default_user: Some("user".to_owned()),
            default_workdir: Some("/home/user".to_owned()),
            lifecycle_id: Some("7".to_owned()),
            entropy: Some(Entropy::new(vec![0xa5; 64]).unwrap()),
            machine_id: Some(MachineId::from([0xab; 16])),
            hostname: Some(Hostname::try_from("i0abc".to_owned()).unwrap()),
            sandbox_id: Some("i0abc".to_owned()),
            template_id: Some("base".to_owned()),
        }
    }

    #[test]
    fn the_names_on_the_wire_are_those_of_the_contract() {
        let json = serde_json::to_value(full()).unwrap();
        let names: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
        let expected = [
            "accessToken",
            "defaultUser",
            "defaultWorkdir",
            "entropy",
            "envVars",
            "hostname",
            "lifecycleID",
            "machineId",
            "sandboxId",
            "templateId",
            "timestamp",
        ];
        assert_eq!(names, expected);
        assert_eq!(
            serde_json::to_string(&InitRequest::default()).unwrap(),
            "{}"
        );
        assert_eq!(serde_json::from_value::<InitRequest>(json).unwrap(), full());
    }

    #[test]
    fn unknown_fields_and_nulls_change_nothing() {
        let json = r#"{"hyperloopIP":"1.2.3.4","volumeMounts":[{"nfs_target":"x","path":"/m"}],
                       "caBundle":"-----BEGIN","accessToken":null}"#;
        assert_eq!(
            serde_json::from_str::<InitRequest>(json).unwrap(),
            InitRequest::default()
        );
    }

    #[test]
    fn secrets_are_not_printed() {
        let text = format!("{:?}", full());
        assert!(
            !text.contains("very secret") && !text.contains("165"),
            "{text}"
        );
    }

    #[test]
    fn lengths_are_checked() {
        assert_eq!(Entropy::new(vec![]), Err(InvalidInit::Entropy));
        assert_eq!(Entropy::new(vec![0; 513]), Err(InvalidInit::Entropy));
        let long = String::from(Entropy::new(vec![7; 512]).unwrap());
        assert!(Entropy::try_from(long.clone()).is_ok());
        assert_eq!(
            Entropy::try_from(format!("{long}AAAA")),
            Err(InvalidInit::Entropy)
        );
        for bad in ["", "AB", "a b", "x\n127.0.0.1 evil", &"a".repeat(64)] {
            assert!(Hostname::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
        for bad in ["", "g", &"a".repeat(33), &"A".repeat(32)] {
            assert!(MachineId::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_body_is_a_request_or_is_refused(body: Vec<u8>) {
            if let Ok(request) = serde_json::from_slice::<InitRequest>(&body) {
                let again = serde_json::to_vec(&request).unwrap();
                prop_assert_eq!(serde_json::from_slice::<InitRequest>(&again).unwrap(), request);
            }
        }

        #[test]
        fn a_changed_body_is_a_request_or_is_refused(at: prop::sample::Index, byte: u8) {
            let mut body = serde_json::to_vec(&full()).unwrap();
            let at = at.index(body.len());
            body[at] = byte;
            if let Ok(request) = serde_json::from_slice::<InitRequest>(&body) {
                let again = serde_json::to_vec(&request).unwrap();
                prop_assert_eq!(serde_json::from_slice::<InitRequest>(&again).unwrap(), request);
            }
        }
    }
}
