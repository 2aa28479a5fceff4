//! What the host tells the agent, and what the agent tells the host.

use guest_api::{InitRequest, Token};

use crate::rig::{Rig, text};

#[tokio::test]
async fn it_is_healthy_and_says_how_busy_it_is() {
    Rig::run(async |rig| {
        assert_eq!(rig.get("/health").await.status, 204);
        let metrics = rig.get("/metrics").await.json();
        for name in ["cpu_count", "mem_total", "mem_used", "disk_total", "ts"] {
            assert!(metrics[name].as_f64().unwrap() > 0.0, "{name}: {metrics}");
        }
        assert_eq!(rig.get("/nowhere").await.status, 404);
    })
    .await;
}

#[tokio::test]
async fn it_is_told_what_it_is_and_asks_for_the_token_from_then_on() {
    Rig::run(async |rig| {
        let body = r#"{"accessToken":"sesame","envVars":{"A":"b"},"sandboxId":"i0"}"#;
        assert_eq!(
            rig.post("/init", "application/json", &[], body)
                .await
                .status,
            204
        );
        let refused = rig.get("/envs").await;
        assert_eq!(refused.status, 401);
        assert_eq!(refused.json()["code"], 401);
        let shown = rig
            .call("GET", "/envs", &[("x-access-token", "sesame")], "")
            .await;
        assert_eq!(shown.json()["A"], "b");
        assert_eq!(rig.get("/health").await.status, 204);
        assert_eq!(rig.get("/files?path=/etc/hostname").await.status, 401);
        let bad = rig
            .post(
                "/init",
                "application/json",
                &[],
                r#"{"accessToken":["sesame"]}"#,
            )
            .await;
        assert_eq!(bad.status, 400);
        assert!(!text(&bad.body).contains("sesame"), "{}", text(&bad.body));
    })
    .await;
}

#[tokio::test]
async fn the_host_library_speaks_to_it() {
    Rig::run(async |rig| {
        guest_api::client::health(rig.unix().await).await.unwrap();
        let request = InitRequest {
            access_token: Some(Token::new("t")),
            ..InitRequest::default()
        };
        guest_api::client::init(rig.unix().await, &request)
            .await
            .unwrap();
        assert_eq!(rig.get("/envs").await.status, 401);
        let wrong = InitRequest {
            timestamp: Some("now".to_owned()),
            ..InitRequest::default()
        };
        let error = guest_api::client::init(rig.unix().await, &wrong)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("400"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn only_the_host_may_say_what_it_is() {
    Rig::run_for(guest::Peer::Other, async |rig| {
        assert_eq!(
            rig.post("/init", "application/json", &[], "{}")
                .await
                .status,
            403
        );
        assert_eq!(rig.get("/envs").await.status, 200);
    })
    .await;
}
