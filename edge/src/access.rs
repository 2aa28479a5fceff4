//! May this request use the sandbox, and may it wake it?
//!
//! [`check`] is the only maker of a [`Permit`], and only a permit gets a request in: nothing is woken before its token
//! was checked. Tokens are compared in constant time.

use coordinator::Access;
use guest_api::envd;
use http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;
use pool_api::{IfPaused, Secret};
use subtle::ConstantTimeEq;

use crate::host::Address;

/// The fields that carry the token of private traffic, the one that counts first. The guest does not see them.
pub(crate) const TRAFFIC_TOKENS: [HeaderName; 2] = [
    HeaderName::from_static("e2b-traffic-access-token"),
    HeaderName::from_static("cube-traffic-access-token"),
];
const ENVD_TOKEN: HeaderName = HeaderName::from_static("x-access-token");

/// Proof that a request's tokens were checked.
#[derive(Debug)]
#[must_use]
pub(crate) struct Permit {
    address: Address,
    wake: IfPaused,
    asleep: Asleep,
}

/// What a request that must not wake its sandbox is told when it sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asleep {
    /// Requests do not wake this sandbox: it is as good as gone.
    NotFound,
    /// Requests do, this one's token is not good enough.
    BadCredentials,
}

/// A request whose tokens are not good enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// No token of private traffic.
    TrafficTokenMissing,
    /// Another one.
    TrafficTokenInvalid,
    /// A path that only the host may ask of the guest agent.
    Reserved,
}

impl Permit {
    /// The sandbox and port it is for.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Whether the sandbox may be woken.
    pub(crate) fn wake(&self) -> IfPaused {
        self.wake
    }

    /// What to say when it sleeps and must not be woken.
    pub(crate) fn asleep(&self) -> Asleep {
        self.asleep
    }
}

/// Checks a request's tokens and path.
pub(crate) fn check(
    address: &Address,
    access: &Access,
    headers: &HeaderMap,
    path: &str,
) -> Result<Permit, Denied> {
    if address.port.get() == envd::AGENT_PORT {
        if is_reserved(path) {
            return Err(Denied::Reserved);
        }
        // A running guest agent checks its own token; here it only decides whether to wake.
        let known = access
            .envd_token
            .as_ref()
            .is_none_or(|token| matches(headers, &ENVD_TOKEN, token) == Some(true));
        return Ok(permit(address, access, known));
    }
    let Some(token) = &access.traffic_token else {
        return Ok(permit(address, access, true));
    };
    match TRAFFIC_TOKENS
        .iter()
        .find_map(|name| matches(headers, name, token))
    {
        Some(true) => Ok(permit(address, access, true)),
        Some(false) => Err(Denied::TrafficTokenInvalid),
        None => Err(Denied::TrafficTokenMissing),
    }
}

fn permit(address: &Address, access: &Access, known: bool) -> Permit {
    let wake = if access.auto_resume && known {
        IfPaused::Wake
    } else {
        IfPaused::Fail
    };
    let asleep = if access.auto_resume {
        Asleep::BadCredentials
    } else {
        Asleep::NotFound
    };
    Permit {
        address: address.clone(),
        wake,
        asleep,
    }
}

/// Whether the field holds the token; `None` when there is no such field, or an empty one.
fn matches(headers: &HeaderMap, name: &HeaderName, token: &Secret) -> Option<bool> {
    let mut values = headers.get_all(name).iter();
    let given = values.next().filter(|value| !value.is_empty())?;
    Some(values.next().is_none() && bool::from(given.as_bytes().ct_eq(token.expose().as_bytes())))
}

/// Paths of the guest agent that are for the host alone, however they are written.
fn is_reserved(path: &str) -> bool {
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let mut clean: Vec<&str> = Vec::new();
    for part in decoded.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(clean.pop()),
            part => clean.push(part),
        }
    }
    matches!(clean.as_slice(), [one] if envd::HOST_ONLY_PATHS.contains(one))
}

#[cfg(test)]
mod test {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    http::HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    fn address(port: u16) -> Address {
        Address {
            sandbox: "iabc".parse().unwrap(),
            port: port.try_into().unwrap(),
        }
    }

    #[test]
    fn private_traffic_needs_its_token_on_every_port_but_the_agents() {
        let access = Access {
            traffic_token: Some(Secret::new("right")),
            auto_resume: true,
            ..Access::default()
        };
        let name = "e2b-traffic-access-token";
        let ask = |fields: &[(&'static str, &'static str)]| {
            check(&address(80), &access, &headers(fields), "/").map(|p| p.wake())
        };
        assert_eq!(ask(&[]), Err(Denied::TrafficTokenMissing));
        assert_eq!(ask(&[(name, "")]), Err(Denied::TrafficTokenMissing));
        assert_eq!(ask(&[(name, "wrong")]), Err(Denied::TrafficTokenInvalid));
        assert_eq!(ask(&[(name, "right")]), Ok(IfPaused::Wake));
        let other = "cube-traffic-access-token";
        assert_eq!(ask(&[(other, "right")]), Ok(IfPaused::Wake));
        assert_eq!(ask(&[(name, ""), (other, "right")]), Ok(IfPaused::Wake));
        assert_eq!(ask(&[(other, "wrong")]), Err(Denied::TrafficTokenInvalid));
        let both = [(other, "right"), (name, "wrong")];
        assert_eq!(
            ask(&both),
            Err(Denied::TrafficTokenInvalid),
            "the first counts"
        );
        let twice = [(name, "right"), (name, "right")];
        assert_eq!(ask(&twice), Err(Denied::TrafficTokenInvalid));
        assert!(check(&address(49983), &access, &HeaderMap::new(), "/").is_ok());
    }

    #[test]
    fn the_agents_token_decides_only_about_waking() {
        let access = Access {
            envd_token: Some(Secret::new("right")),
            auto_resume: true,
            ..Access::default()
        };
        for (fields, wake) in [
            (&[][..], IfPaused::Fail),
            (&[("x-access-token", "wrong")], IfPaused::Fail),
            (&[("x-access-token", "right")], IfPaused::Wake),
        ] {
            let permit = check(&address(49983), &access, &headers(fields), "/health").unwrap();
            assert_eq!(
                (permit.wake(), permit.asleep()),
                (wake, Asleep::BadCredentials)
            );
        }
        assert_eq!(
            check(&address(80), &access, &HeaderMap::new(), "/")
                .unwrap()
                .wake(),
            IfPaused::Wake
        );
        let access = Access {
            auto_resume: false,
            ..access
        };
        let permit = check(
            &address(49983),
            &access,
            &headers(&[("x-access-token", "right")]),
            "/",
        )
        .unwrap();
        assert_eq!(
            (permit.wake(), permit.asleep()),
            (IfPaused::Fail, Asleep::NotFound)
        );
    }

    #[test]
    fn reserved_paths_are_found_however_they_are_written() {
        for path in [
            "/init",
            "/init/",
            "//init",
            "/./init",
            "/x/../init",
            "/%69nit",
            "/x/%2e%2e/init",
            "/fsthaw",
        ] {
            let got = check(&address(49983), &Access::default(), &HeaderMap::new(), path).map(drop);
            assert_eq!(got, Err(Denied::Reserved), "{path}");
        }
        for path in ["/", "/initial", "/init/x", "/files"] {
            assert!(
                check(&address(49983), &Access::default(), &HeaderMap::new(), path).is_ok(),
                "{path}"
            );
        }
        assert!(check(&address(80), &Access::default(), &HeaderMap::new(), "/init").is_ok());
    }
}
