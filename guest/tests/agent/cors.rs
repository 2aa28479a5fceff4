//! Cross-origin requests.

use crate::rig::Rig;

#[tokio::test]
async fn pages_of_any_origin_may_call() {
    Rig::run(async |rig| {
        let preflight = [
            ("origin", "https://page.example"),
            ("access-control-request-method", "POST"),
            (
                "access-control-request-headers",
                "x-access-token,content-type",
            ),
        ];
        let response = rig
            .call("OPTIONS", "/process.Process/Start", &preflight, "")
            .await;
        assert_eq!(response.status, 204);
        assert_eq!(response.header("access-control-allow-origin"), "*");
        assert_eq!(
            response.header("access-control-allow-headers"),
            "x-access-token,content-type"
        );
        assert!(
            response
                .header("access-control-allow-methods")
                .contains("DELETE")
        );
        let response = rig.get_with("/health", &preflight[..1]).await;
        assert_eq!(response.header("access-control-allow-origin"), "*");
        assert!(
            response
                .header("access-control-expose-headers")
                .contains("Location")
        );
        assert!(
            rig.get("/health")
                .await
                .headers
                .get("access-control-allow-origin")
                .is_none()
        );
    })
    .await;
}
