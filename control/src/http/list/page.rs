//! Tokens of pages.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::time::Micros;

/// The order of a list, by time and id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Order {
    /// Oldest first.
    Ascending,
    /// Newest first.
    Descending,
}

/// The longest id of a list's elements.
const MAX_ID_LEN: usize = 63;

/// Identifies the last element of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::http) struct PageToken {
    order: Order,
    time: Micros,
    id: String,
}

impl Order {
    /// Creates the token of a page that ends with an element.
    pub(in crate::http) fn token(self, (time, id): (Micros, &str)) -> PageToken {
        PageToken {
            order: self,
            time,
            id: id.to_owned(),
        }
    }
}

impl PageToken {
    /// The order of the list.
    pub(in crate::http) fn order(&self) -> Order {
        self.order
    }

    /// Time and id of the last element.
    pub(in crate::http) fn into_key(self) -> (Micros, String) {
        (self.time, self.id)
    }

    /// Encodes the token for a header.
    pub(in crate::http) fn encode(&self) -> String {
        let order = match self.order {
            Order::Ascending => "__asc",
            Order::Descending => "",
        };
        URL_SAFE_NO_PAD.encode(format!("{}__{}{order}", self.time, self.id))
    }

    /// Decodes a token of a client.
    pub(in crate::http) fn decode(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let mut parts = text.split("__");
        let (time, id) = (Micros::parse(parts.next()?)?, parts.next()?.to_owned());
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if !(1..=MAX_ID_LEN).contains(&id.len()) || !id.bytes().all(allowed) {
            return None;
        }
        let order = match (parts.next(), parts.next()) {
            (None, None) => Order::Descending,
            (Some("asc"), None) => Order::Ascending,
            _ => return None,
        };
        Some(Self { order, time, id })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn page_tokens_round_trip(micros in 0i64..4_000_000_000_000_000, id in "[a-z0-9-]{1,63}", asc in any::<bool>()) {
            let order = if asc { Order::Ascending } else { Order::Descending };
            let token = order.token((Micros(micros), id.as_str()));
            prop_assert_eq!(PageToken::decode(&token.encode()), Some(token));
        }

        #[test]
        fn any_page_token_is_decoded_without_panic(text in ".*", bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            drop(PageToken::decode(&text));
            drop(PageToken::decode(&URL_SAFE_NO_PAD.encode(bytes)));
        }
    }
}
