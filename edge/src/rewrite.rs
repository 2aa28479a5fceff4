//! Rewrites a request for the guest, and its response for the client.

use http::header;
use pingora::http::{RequestHeader, ResponseHeader};
use pool_api::Secret;

use crate::{
    access::TRAFFIC_TOKENS,
    api_key::{self, API_KEY},
    forwarded::Forwarded,
    framing,
    target::{GuestPath, Prefix},
};

/// The differences between a request as the client sends it and as the guest receives it.
#[derive(Debug)]
pub(crate) struct Rewrite {
    /// The path and query for the guest.
    pub(crate) guest_path: GuestPath,
    /// The part of the path that the guest does not receive.
    pub(crate) prefix: Option<Prefix>,
    /// The `Host` for the guest; `None`: the requested one.
    pub(crate) masked_host: Option<String>,
    /// The client.
    pub(crate) forwarded: Forwarded,
}

impl Rewrite {
    /// Rewrites the request, and removes the gateway's own tokens: those of traffic, and `api_key`, which some clients send
    /// with every request.
    pub(crate) fn rewrite_request(
        &self,
        request: &mut RequestHeader,
        api_key: Option<&Secret>,
    ) -> pingora::Result<()> {
        for name in &TRAFFIC_TOKENS {
            request.remove_header(name);
        }
        if let Some(key) = api_key {
            remove_api_key(request, key);
        }
        framing::join_cookies(request)?;
        framing::normalize_request(request)?;
        self.forwarded.apply(request)?;
        if let Some(prefix) = &self.prefix {
            request.insert_header("x-forwarded-prefix", prefix.as_str())?;
        }
        if self.guest_path.as_bytes() != request.raw_path() {
            request.set_raw_path(self.guest_path.as_bytes())?;
        }
        if let Some(masked) = &self.masked_host {
            request.insert_header(header::HOST, masked)?;
        }
        Ok(())
    }

    /// Prepends the prefix to the paths in `Location` and `Set-Cookie`.
    pub(crate) fn rewrite_response(
        &self,
        request: &RequestHeader,
        response: &mut ResponseHeader,
    ) -> pingora::Result<()> {
        let Some(prefix) = &self.prefix else {
            return Ok(());
        };
        // Sandboxes that are addressed by path share an origin with the API.
        response.remove_header("service-worker-allowed");
        response.remove_header("clear-site-data");
        let requested = match request.headers.get(header::HOST) {
            Some(host) => host.to_str().unwrap_or_default(),
            None => request.uri.authority().map_or("", |host| host.as_str()),
        };
        let location = response.headers.get(header::LOCATION);
        if let Some(location) = location.and_then(|location| location.to_str().ok())
            && let Some(rewritten) =
                prefix.location(location, requested, self.masked_host.as_deref())
        {
            response.insert_header(header::LOCATION, rewritten)?;
        }
        let cookies: Vec<_> = response
            .headers
            .get_all(header::SET_COOKIE)
            .iter()
            .cloned()
            .collect();
        if !cookies.is_empty() {
            response.remove_header(&header::SET_COOKIE);
        }
        for cookie in cookies {
            let rewritten = cookie.to_str().ok().and_then(|text| prefix.cookie(text));
            match rewritten {
                Some(rewritten) => response.append_header(header::SET_COOKIE, rewritten)?,
                None => response.append_header(header::SET_COOKIE, cookie)?,
            };
        }
        Ok(())
    }
}

/// Removes the gateway's key from every field that may carry it.
fn remove_api_key(request: &mut RequestHeader, key: &Secret) {
    let headers = &request.headers;
    let mut values = headers.get_all(API_KEY).iter();
    if values.any(|value| api_key::is_key(value.as_bytes(), key)) {
        request.remove_header(&API_KEY);
    }
    let mut values = request.headers.get_all(header::AUTHORIZATION).iter();
    if values.any(|value| api_key::bearer(value).is_some_and(|token| api_key::is_key(token, key))) {
        request.remove_header(&header::AUTHORIZATION);
    }
}

#[cfg(test)]
mod tests;
