//! How the guest is shown a request, and what its answer must be turned back into.

use http::header;
use pingora::http::{RequestHeader, ResponseHeader};
use pool_api::Secret;
use subtle::ConstantTimeEq;

use crate::{access::TRAFFIC_TOKENS, path::Prefix};

/// How the guest is shown a request.
#[derive(Debug, Default)]
pub(crate) struct Guise {
    /// The host to show it; `None`: the one that was asked for.
    pub(crate) masked_host: Option<String>,
    /// The part of the path to hide from it.
    pub(crate) prefix: Option<Prefix>,
    /// Whether it is spoken to by TLS.
    pub(crate) tls: bool,
}

impl Guise {
    /// Makes the request what the guest is to see. Tokens that are the gateway's own are taken out, and `api_key` where
    /// a client sends it everywhere.
    pub(crate) fn put_on(
        &self,
        request: &mut RequestHeader,
        api_key: Option<&Secret>,
    ) -> pingora::Result<()> {
        for name in &TRAFFIC_TOKENS {
            request.remove_header(name);
        }
        let is_key = api_key.is_some_and(|key| {
            let given = request.headers.get("x-api-key");
            given.is_some_and(|given| given.as_bytes().ct_eq(key.expose().as_bytes()).into())
        });
        if is_key {
            request.remove_header("x-api-key");
        }
        let mut target = match request.raw_path() {
            path if path.starts_with(b"/") || path == b"*" => path.to_vec(),
            // It names the host as well, which is a proxy's form.
            _ => {
                let path = request.uri.path_and_query();
                path.map_or("/", |path| path.as_str()).as_bytes().to_vec()
            }
        };
        if let Some(prefix) = &self.prefix {
            request.insert_header("x-forwarded-prefix", prefix.as_str())?;
            target = prefix.strip(&target);
        }
        if target != request.raw_path() {
            request.set_raw_path(&target)?;
        }
        if let Some(masked) = &self.masked_host {
            if let Some(asked) = request.headers.get(header::HOST).cloned() {
                request.insert_header("x-forwarded-host", asked)?;
            }
            request.insert_header(header::HOST, masked)?;
        }
        Ok(())
    }

    /// Puts the prefix back into what the answer says about paths.
    pub(crate) fn take_off(
        &self,
        request: &RequestHeader,
        response: &mut ResponseHeader,
    ) -> pingora::Result<()> {
        let Some(prefix) = &self.prefix else {
            return Ok(());
        };
        let asked = match request.headers.get(header::HOST) {
            Some(host) => host.to_str().unwrap_or_default(),
            None => request.uri.authority().map_or("", |asked| asked.as_str()),
        };
        let location = response.headers.get(header::LOCATION);
        if let Some(location) = location.and_then(|location| location.to_str().ok())
            && let Some(seen) = prefix.location(location, asked, self.masked_host.as_deref())
        {
            response.insert_header(header::LOCATION, seen)?;
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
            let seen = cookie.to_str().ok().and_then(|text| prefix.cookie(text));
            match seen {
                Some(seen) => response.append_header(header::SET_COOKIE, seen)?,
                None => response.append_header(header::SET_COOKIE, cookie)?,
            };
        }
        Ok(())
    }
}
