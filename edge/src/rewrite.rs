//! Rewrites a request for the guest, and its response for the client.

use http::header;
use pingora::http::{RequestHeader, ResponseHeader};
use pool_api::Secret;
use subtle::ConstantTimeEq;

use crate::{
    access::TRAFFIC_TOKENS,
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
        let has_api_key = api_key.is_some_and(|key| {
            let value = request.headers.get("x-api-key");
            value.is_some_and(|value| value.as_bytes().ct_eq(key.expose().as_bytes()).into())
        });
        if has_api_key {
            request.remove_header("x-api-key");
        }
        if let Some(prefix) = &self.prefix {
            request.insert_header("x-forwarded-prefix", prefix.as_str())?;
        }
        if self.guest_path.as_bytes() != request.raw_path() {
            request.set_raw_path(self.guest_path.as_bytes())?;
        }
        if let Some(masked) = &self.masked_host {
            if let Some(requested) = request.headers.get(header::HOST).cloned() {
                request.insert_header("x-forwarded-host", requested)?;
            }
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

#[cfg(test)]
mod tests;
