use http::HeaderValue;
use pingora::http::RequestHeader;

use super::*;
use crate::target::{self, Destination};

fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    fields
        .iter()
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        })
        .collect()
}

fn target(port: u16, path: &str) -> Target {
    let mut request = RequestHeader::build("GET", path.as_bytes(), None).unwrap();
    let host = format!("{port}-iabc.x");
    request.insert_header("host", host).unwrap();
    match target::resolve(&request, None) {
        Ok(Destination::Sandbox(target)) => target,
        other => panic!("{other:?}"),
    }
}

#[test]
fn traffic_token_is_required_except_by_agent_port() {
    let access = Access {
        traffic_token: Some(Secret::new("right")),
        auto_resume: true,
        ..Access::default()
    };
    let name = "e2b-traffic-access-token";
    let check = |fields: &[(&'static str, &'static str)]| {
        super::check(&target(80, "/"), &access, &headers(fields)).map(|p| p.if_paused())
    };
    assert_eq!(check(&[]), Err(Denied::TrafficTokenMissing));
    assert_eq!(check(&[(name, "")]), Err(Denied::TrafficTokenMissing));
    assert_eq!(check(&[(name, "wrong")]), Err(Denied::TrafficTokenInvalid));
    assert_eq!(check(&[(name, "right")]), Ok(IfPaused::Wake));
    let other = "cube-traffic-access-token";
    assert_eq!(check(&[(other, "right")]), Ok(IfPaused::Wake));
    assert_eq!(check(&[(name, ""), (other, "right")]), Ok(IfPaused::Wake));
    assert_eq!(check(&[(other, "wrong")]), Err(Denied::TrafficTokenInvalid));
    let both = [(other, "right"), (name, "wrong")];
    assert_eq!(
        check(&both),
        Err(Denied::TrafficTokenInvalid),
        "the first header has precedence"
    );
    let duplicate = [(name, "right"), (name, "right")];
    assert_eq!(check(&duplicate), Err(Denied::TrafficTokenInvalid));
    let agent = super::check(&target(49983, "/"), &access, &HeaderMap::new());
    assert!(agent.is_ok());
}

#[test]
fn agent_token_is_required_except_on_open_paths() {
    let access = Access {
        envd_token: Some(Secret::new("right")),
        auto_resume: true,
        ..Access::default()
    };
    for (fields, if_paused) in [
        (&[][..], IfPaused::Fail),
        (&[("x-access-token", "wrong")], IfPaused::Fail),
        (&[("x-access-token", "right")], IfPaused::Wake),
    ] {
        let permit = check(&target(49983, "/health"), &access, &headers(fields)).unwrap();
        assert_eq!(
            (permit.if_paused(), permit.paused_response()),
            (if_paused, PausedResponse::Forbidden)
        );
    }
    for (path, allowed) in [
        ("/", false),
        ("/process.Process/List", false),
        ("/files?path=a", true),
    ] {
        let checked = check(&target(49983, path), &access, &HeaderMap::new());
        assert_eq!(checked.map(drop).is_ok(), allowed, "{path}");
    }
    let permit = check(&target(80, "/"), &access, &HeaderMap::new()).unwrap();
    assert_eq!(permit.if_paused(), IfPaused::Wake);
    let access = Access {
        auto_resume: false,
        ..access
    };
    let token = headers(&[("x-access-token", "right")]);
    let permit = check(&target(49983, "/"), &access, &token).unwrap();
    assert_eq!(
        (permit.if_paused(), permit.paused_response()),
        (IfPaused::Fail, PausedResponse::NotFound)
    );
}

#[test]
fn host_only_paths_are_denied_in_every_spelling() {
    let access = Access::default();
    for path in [
        "/init",
        "/init/",
        "//init",
        "/./init",
        "/x/../init",
        "/%69nit",
        "/x/%2e%2e/init",
        "/x%2f..%2finit",
        "/init?x",
        "/fsthaw",
        "/warm",
    ] {
        let denied = check(&target(49983, path), &access, &HeaderMap::new()).map(drop);
        assert_eq!(denied, Err(Denied::HostOnlyPath), "{path}");
    }
    for path in ["/", "/initial", "/init/x", "/files", "/files?path=/init"] {
        let permit = check(&target(49983, path), &access, &HeaderMap::new());
        assert!(permit.is_ok(), "{path}");
    }
    assert!(check(&target(80, "/init"), &access, &HeaderMap::new()).is_ok());
}
