use coordinator::Access;
use proptest::prelude::*;

use super::*;
use crate::{
    access,
    target::{self, Destination},
};

/// Resolves a request to the agent port and rewrites it if its path is permitted. Returns the path that was checked and
/// the path that is forwarded.
fn checked_and_forwarded(host: &str, path: &[u8]) -> Option<(GuestPath, RequestHeader)> {
    let mut request = RequestHeader::build("GET", path, None).ok()?;
    request.insert_header("host", host).unwrap();
    let Ok(Destination::Sandbox(target)) = target::resolve(&request, None) else {
        return None;
    };
    let _permit = access::check(&target, &Access::default(), &request.headers).ok()?;
    let rewrite = Rewrite {
        guest_path: target.guest_path.clone(),
        prefix: target.prefix,
        masked_host: None,
        forwarded: Forwarded::unknown(),
    };
    rewrite.rewrite_request(&mut request, None).unwrap();
    Some((target.guest_path, request))
}

/// Resolves the forwarded request again, as the guest reads it, and checks whether its path is for the host only.
fn is_host_only(forwarded: &RequestHeader) -> bool {
    let mut request = forwarded.clone();
    request.insert_header("host", "49983-iabc.x").unwrap();
    let Ok(Destination::Sandbox(target)) = target::resolve(&request, None) else {
        panic!("the forwarded request has no target")
    };
    access::is_host_only(&target.guest_path)
}

#[test]
fn prefix_does_not_hide_host_only_paths() {
    for path in [
        "/sandbox/iabc/49983/init",
        "/sandbox/iabc/49983//init",
        "/sandbox/iabc/49983/./init",
        "/sandbox/iabc/49983/%69nit",
        "/sandbox/iabc/49983/x/%2e%2e/init",
        "/sandbox/iabc/49983/init?q",
        "/sandbox/iabc/49983/init#f",
        "/sandbox/iabc-old/49983/init",
        "/sandbox/IABC/49983/init",
        "/sandbox/iabc/49983/../init",
        "/sandbox/iabc/49983/%2e%2e/%2e%2e/init",
        "http://localhost/sandbox/iabc/49983/init",
        "HTTP://x@localhost:1/sandbox/iabc/49983/init",
    ] {
        assert!(
            checked_and_forwarded("localhost", path.as_bytes()).is_none(),
            "{path}"
        );
    }
    // These have no prefix, although they look alike once they are decoded.
    for path in [
        "/x/../sandbox/iabc/49983/init",
        "/%73andbox/iabc/49983/init",
        "//sandbox/iabc/49983/init",
        "/sandbox%2fiabc/49983/init",
        "/sandbox/iabc/4998%33/init",
    ] {
        assert!(
            checked_and_forwarded("localhost", path.as_bytes()).is_none(),
            "{path}"
        );
    }
}

#[test]
fn forwarded_path_keeps_its_encoding() {
    for (path, forwarded) in [
        (
            &b"/sandbox/iabc/49983/a//b/../%2e?c=/d"[..],
            &b"/a//b/../%2e?c=/d"[..],
        ),
        (b"/sandbox/iabc/49983", b"/"),
        (b"/sandbox/iabc/49983?q", b"/?q"),
        (b"/sandbox/iabc/49983/\xff", b"/\xff"),
        (b"http://localhost/sandbox/iabc/49983/a?b", b"/a?b"),
        (
            b"/sandbox/iabc/49983/sandbox/iabc/49983/init",
            b"/sandbox/iabc/49983/init",
        ),
    ] {
        let (_, request) = checked_and_forwarded("localhost", path).unwrap();
        assert_eq!(request.raw_path(), forwarded);
    }
}

proptest! {
    #[test]
    fn checked_path_is_the_forwarded_path(
        scheme in "(http://localhost)?",
        prefix in "(/sandbox/iabc(-old)?/49983)?",
        segments in "(/|/\\.|/\\.\\.|/%2e%2e|/init|/%69nit|/x|/sandbox/iabc/49983|[?#%]|/\\PC){0,8}",
        raw in proptest::collection::vec(any::<u8>(), 0..4),
    ) {
        let path = [format!("{scheme}{prefix}{segments}").as_bytes(), raw.as_slice()].concat();
        for host in ["localhost", "49983-iabc.x"] {
            if let Some((checked, request)) = checked_and_forwarded(host, &path) {
                prop_assert_eq!(request.raw_path(), checked.as_bytes());
                prop_assert!(!is_host_only(&request));
            }
        }
    }
}
