//! The body of `POST /init`, which assigns clock, entropy and identity.

use std::{collections::BTreeMap, fmt};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

/// An invalid part of an [`InitRequest`]. The error does not contain the value, which may be secret.
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

/// The body of `POST /init`. The first six fields are those of E2B's agent. An absent field changes nothing, which keeps
/// a plain restore cheap.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InitRequest {
    /// Environment variables of processes started from now on. Replaces all earlier ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env_vars: Option<BTreeMap<String, String>>,
    /// The token that clients of the agent must present. The empty token allows every client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_token: Option<Token>,
    /// The current time (RFC 3339). The guest sets its clock if that is more than 50 ms behind or 5 s ahead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
    /// The user of requests that name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_user: Option<String>,
    /// The working directory of requests that name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_workdir: Option<String>,
    /// The epoch of the sandbox, for logs.
    #[serde(rename = "lifecycleID", skip_serializing_if = "Option::is_none")]
    pub lifecycle_id: Option<String>,
    /// Random bytes for the kernel's pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entropy: Option<Entropy>,
    /// The new `/etc/machine-id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<MachineId>,
    /// The new host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Hostname>,
    /// The ID of the sandbox. If it differs from the last one, the fork hooks run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox_id: Option<String>,
    /// The ID of the sandbox's template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_id: Option<String>,
}

/// A secret token. `Debug` hides it, and there is no `Display`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

/// Random bytes from the host, 1 to 512; base64 in JSON. `Debug` hides them.
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

    /// Returns the token. Compare it in constant time, and do not log it.
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
    /// The most bytes of one request, which the agent adds to the kernel's pool in one call.
    pub const MAX_LEN: usize = 512;

    /// Wraps random bytes.
    pub fn new(bytes: Vec<u8>) -> Result<Self, InvalidInit> {
        if (1..=Self::MAX_LEN).contains(&bytes.len()) {
            Ok(Self(bytes))
        } else {
            Err(InvalidInit::Entropy)
        }
    }

    /// Returns the random bytes. Do not log them.
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
mod tests {
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
    fn json_has_the_field_names_of_the_contract() {
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
    fn unknown_fields_and_nulls_are_ignored() {
        let json = r#"{"hyperloopIP":"1.2.3.4","volumeMounts":[{"nfs_target":"x","path":"/m"}],
                       "caBundle":"-----BEGIN","accessToken":null}"#;
        assert_eq!(
            serde_json::from_str::<InitRequest>(json).unwrap(),
            InitRequest::default()
        );
    }

    #[test]
    fn debug_output_hides_secrets() {
        let text = format!("{:?}", full());
        assert!(
            !text.contains("very secret") && !text.contains("165"),
            "{text}"
        );
    }

    #[test]
    fn invalid_lengths_and_characters_are_refused() {
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
        fn arbitrary_bodies_round_trip_or_are_refused(body: Vec<u8>) {
            if let Ok(request) = serde_json::from_slice::<InitRequest>(&body) {
                let encoded = serde_json::to_vec(&request).unwrap();
                prop_assert_eq!(serde_json::from_slice::<InitRequest>(&encoded).unwrap(), request);
            }
        }

        #[test]
        fn mutated_bodies_round_trip_or_are_refused(at: prop::sample::Index, byte: u8) {
            let mut body = serde_json::to_vec(&full()).unwrap();
            let at = at.index(body.len());
            body[at] = byte;
            if let Ok(request) = serde_json::from_slice::<InitRequest>(&body) {
                let encoded = serde_json::to_vec(&request).unwrap();
                prop_assert_eq!(serde_json::from_slice::<InitRequest>(&encoded).unwrap(), request);
            }
        }
    }
}
