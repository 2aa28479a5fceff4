//! Validated names and numbers.

use std::{fmt, str::FromStr};

use rand::Rng;
use serde::{Deserialize, Serialize};

/// A text that is not a valid name or number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct InvalidId {
    text: String,
    expected: &'static str,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $expected:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    let text = text.chars().take(80).collect();
                    Err(InvalidId { text, expected: $expected })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

fn consists_of(text: &str, longest: usize, also: &str) -> bool {
    (1..=longest).contains(&text.len())
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || also.contains(c))
}

text_id!(
    /// The id of a sandbox: `^[a-z0-9]+$`, at most 63 characters so that it fits a DNS label.
    SandboxId,
    "a sandbox id (1 to 63 characters of a-z and 0-9)",
    |text| consists_of(text, 63, "")
);
text_id!(
    /// The name of a template: `^[a-z0-9-_]+$`, at most 128 characters.
    TemplateName,
    "a template name (1 to 128 characters of a-z, 0-9, '-' and '_')",
    |text| consists_of(text, 128, "-_")
);
text_id!(
    /// The id of a snapshot: the digest of its manifest in hexadecimal.
    SnapshotId,
    "a snapshot id (64 hexadecimal digits)",
    |text| text.len() == 64 && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
);
text_id!(
    /// The id of a host.
    NodeId,
    "a node id (1 to 63 characters of a-z, 0-9 and '-')",
    |text| consists_of(text, 63, "-")
);

impl SandboxId {
    /// Parses the forms that E2B clients send: any case, optionally followed by `-` and a client id, which is ignored.
    pub fn from_wire(text: &str) -> Result<Self, InvalidId> {
        let (id, client) = text.split_once('-').unwrap_or((text, ""));
        if !client.bytes().all(|c| c.is_ascii_alphanumeric()) {
            return Err(InvalidId {
                text: text.chars().take(80).collect(),
                expected: "a sandbox id (1 to 63 characters of a-z and 0-9, then at most one '-' and a client id)",
            });
        }
        id.to_ascii_lowercase().parse()
    }

    /// Generates an unguessable id: `i` and 20 characters, 103 random bits.
    pub fn generate(rng: &mut impl Rng) -> Self {
        const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
        let mut text = String::from("i");
        for _ in 0..20 {
            text.push(char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]));
        }
        Self(text)
    }
}

/// The number of machine starts of a sandbox. Operations with a stale epoch are rejected.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// Returns the following epoch.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A TCP port in a guest, 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Port(u16);

impl Port {
    /// Returns the number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for Port {
    type Error = InvalidId;

    fn try_from(number: u16) -> Result<Self, InvalidId> {
        if number == 0 {
            return Err(InvalidId {
                text: "0".to_owned(),
                expected: "a port (1 to 65535)",
            });
        }
        Ok(Self(number))
    }
}

impl From<Port> for u16 {
    fn from(port: Port) -> Self {
        port.0
    }
}

impl FromStr for Port {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let digits = (1..=5).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_digit());
        let number = if digits {
            text.parse::<u16>().unwrap_or(0)
        } else {
            0
        };
        Self::try_from(number).map_err(|_| InvalidId {
            text: text.chars().take(80).collect(),
            expected: "a port (1 to 65535)",
        })
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_outside_the_alphabet_are_refused() {
        assert!("i0abc".parse::<SandboxId>().is_ok());
        for bad in ["", "A", "a-b", "a/b", "ä", &"a".repeat(64)] {
            assert!(bad.parse::<SandboxId>().is_err(), "{bad:?}");
        }
        assert!("../x".parse::<TemplateName>().is_err());
    }

    #[test]
    fn wire_ids_ignore_case_and_client_suffix() {
        let id: SandboxId = "i0abc".parse().unwrap();
        for text in ["i0abc", "I0ABC", "i0abc-6532622b", "i0abc-"] {
            assert_eq!(SandboxId::from_wire(text), Ok(id.clone()), "{text:?}");
        }
        for text in ["", "-a", "i0abc-a-b", "i0abc-a/b", "i_a"] {
            assert!(SandboxId::from_wire(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn signed_zero_and_oversized_ports_are_refused() {
        assert_eq!("49983".parse::<Port>(), Ok(Port(49983)));
        for bad in ["0", "+80", "65536", "", "080000", "8 0"] {
            assert!(bad.parse::<Port>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn generated_ids_are_valid_and_unique() {
        let mut rng = rand::rng();
        let (a, b) = (SandboxId::generate(&mut rng), SandboxId::generate(&mut rng));
        assert_ne!(a, b);
        assert!(a.as_str().parse::<SandboxId>().is_ok());
    }
}
