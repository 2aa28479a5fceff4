//! An answer.

use std::{collections::BTreeMap, str::FromStr};

use reqwest::{Response, header::HeaderMap};

/// An answer, all of it.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) async fn of(response: Response) -> reqwest::Result<Self> {
        Ok(Self {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.text().await?,
        })
    }

    /// It says yes.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.status, 200, "{}", self.body);
        self
    }

    /// A header field, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// What the probe answers: `name=value` with spaces between.
    pub(crate) fn values(&self) -> BTreeMap<String, String> {
        let pairs = self
            .body
            .split_whitespace()
            .filter_map(|pair| pair.split_once('='));
        pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    /// One of them.
    #[track_caller]
    pub(crate) fn value<T: FromStr>(&self, name: &str) -> T {
        let values = self.values();
        let text = values
            .get(name)
            .unwrap_or_else(|| panic!("no {name} in {:?}", self.body));
        text.parse()
            .ok()
            .unwrap_or_else(|| panic!("{name} in {:?}", self.body))
    }
}
