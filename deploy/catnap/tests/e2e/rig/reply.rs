//! A response that was read completely.

use std::str::FromStr;

use reqwest::{Response, header::HeaderMap};

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: HeaderMap,
    pub(crate) body: String,
}

impl Reply {
    /// Reads the body of a response.
    pub(crate) async fn read(response: Response) -> reqwest::Result<Self> {
        Ok(Self {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.text().await?,
        })
    }

    /// Asserts that the status is 200.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.status, 200, "{}", self.body);
        self
    }

    /// Returns a header. An absent one is empty.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// Returns a value of the probe's body, which is `name=value` pairs separated by spaces.
    #[track_caller]
    pub(crate) fn value<T: FromStr>(&self, name: &str) -> T {
        let mut pairs = self
            .body
            .split_whitespace()
            .filter_map(|pair| pair.split_once('='));
        let (_, text) = pairs
            .find(|(found, _)| *found == name)
            .unwrap_or_else(|| panic!("{:?} contains no {name}", self.body));
        text.parse()
            .ok()
            .unwrap_or_else(|| panic!("{:?} contains an invalid {name}", self.body))
    }
}
