//! SPECIFICATION.md, Requests: pages of any origin read the gateway's own responses.

use crate::rig::{Rig, public};

#[tokio::test]
async fn error_responses_are_readable_from_any_origin() {
    let rig = Rig::new().await;
    let unknown = "iunknown".parse().unwrap();
    let preflight = rig.preflight(49983, &unknown).await;
    assert_eq!((preflight.status, preflight.body.as_str()), (204, ""));
    assert_eq!(preflight.header("access-control-allow-origin"), "*");
    assert_eq!(
        preflight.header("access-control-allow-headers"),
        "x-access-token"
    );
    let response = rig
        .get_port(49983, &unknown, &[("origin", "https://a.example")])
        .await;
    assert_eq!(response.status, 502);
    assert_eq!(response.header("access-control-allow-origin"), "*");
    // A running guest answers requests and preflights itself.
    let running = rig.sandbox("iabc", public()).await;
    let echo = rig.preflight(80, &running).await;
    assert_eq!(echo.status, 200);
    assert!(!echo.headers.contains_key("access-control-allow-origin"));
}
