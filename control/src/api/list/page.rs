//! Where a page ends and the next begins.

use std::cmp::Ordering;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::time::Micros;

/// The order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// The one started first first.
    Ascending,
    /// The one started last first.
    Descending,
}

/// The longest id of anything listed.
const LONGEST_ID: usize = 63;

/// The last entry of a page, in the order it was listed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    order: Order,
    started_at: Micros,
    id: String,
}

impl Order {
    pub(crate) fn compare(self, a: (Micros, &str), b: (Micros, &str)) -> Ordering {
        match self {
            Self::Ascending => a.cmp(&b),
            Self::Descending => b.cmp(&a),
        }
    }

    pub(crate) fn token(self, (started_at, id): (Micros, &str)) -> Token {
        Token {
            order: self,
            started_at,
            id: id.to_owned(),
        }
    }
}

impl Token {
    pub(crate) fn order(&self) -> Order {
        self.order
    }

    /// Whether a sandbox comes after the page this token ends.
    pub(crate) fn is_before(&self, key: (Micros, &str)) -> bool {
        self.order.compare((self.started_at, &self.id), key) == Ordering::Less
    }

    /// The last entry's time and id.
    pub(crate) fn into_key(self) -> (Micros, String) {
        (self.started_at, self.id)
    }

    pub(crate) fn encode(&self) -> String {
        let order = match self.order {
            Order::Ascending => "__asc",
            Order::Descending => "",
        };
        URL_SAFE_NO_PAD.encode(format!("{}__{}{order}", self.started_at, self.id))
    }

    pub(crate) fn decode(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let mut parts = text.split("__");
        let (started_at, id) = (Micros::parse(parts.next()?)?, parts.next()?.to_owned());
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if !(1..=LONGEST_ID).contains(&id.len()) || !id.bytes().all(allowed) {
            return None;
        }
        let order = match (parts.next(), parts.next()) {
            (None, None) => Order::Descending,
            (Some("asc"), None) => Order::Ascending,
            _ => return None,
        };
        Some(Self {
            order,
            started_at,
            id,
        })
    }
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_survives_the_wire(micros in 0i64..4_000_000_000_000_000, id in "[a-z0-9-]{1,63}", asc in any::<bool>()) {
            let order = if asc { Order::Ascending } else { Order::Descending };
            let token = order.token((Micros(micros), id.as_str()));
            prop_assert_eq!(Token::decode(&token.encode()), Some(token));
        }

        #[test]
        fn any_text_is_answered(text in ".*", bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            drop(Token::decode(&text));
            drop(Token::decode(&URL_SAFE_NO_PAD.encode(bytes)));
        }
    }
}
