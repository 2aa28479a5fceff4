//! Requests of the host: init, health, metrics and template hooks.

use guest_api::{InitRequest, Token};

use crate::rig::{Rig, text};

#[tokio::test]
async fn init_sets_the_token_that_clients_must_present() {
    Rig::run(async |rig| {
        let body = r#"{"accessToken":"secret","envVars":{"A":"b"},"sandboxId":"i0"}"#;
        assert_eq!(
            rig.post("/init", "application/json", &[], body)
                .await
                .status,
            204
        );
        let without_token = rig.get("/envs").await;
        assert_eq!(without_token.status, 401);
        assert_eq!(without_token.json()["code"], 401);
        let with_token = rig
            .call("GET", "/envs", &[("x-access-token", "secret")], "")
            .await;
        assert_eq!(with_token.json()["A"], "b");
        assert_eq!(rig.get("/health").await.status, 204);
        assert_eq!(rig.get("/files?path=/etc/hostname").await.status, 401);
        let invalid = rig
            .post(
                "/init",
                "application/json",
                &[],
                r#"{"accessToken":["secret"]}"#,
            )
            .await;
        assert_eq!(invalid.status, 400);
        assert!(
            !text(&invalid.body).contains("secret"),
            "{}",
            text(&invalid.body)
        );
    })
    .await;
}

#[tokio::test]
async fn host_client_sends_health_and_init() {
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
        let invalid = InitRequest {
            timestamp: Some("now".to_owned()),
            ..InitRequest::default()
        };
        let error = guest_api::client::init(rig.unix().await, &invalid)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("400"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn init_is_403_for_clients() {
    Rig::run_for(guest::Peer::Other, async |rig| {
        assert_eq!(
            rig.post("/init", "application/json", &[], "{}")
                .await
                .status,
            403
        );
        assert_eq!(rig.get("/envs").await.status, 200);
        assert_eq!(rig.get("/metrics").await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn init_after_a_boot_applies_every_field() {
    Rig::run(async |rig| {
        let request = InitRequest {
            env_vars: Some([("A".to_owned(), "b".to_owned())].into()),
            access_token: Some(Token::new("t")),
            sandbox_id: Some("i0abc".to_owned()),
            template_id: Some("base".to_owned()),
            lifecycle_id: Some("7".to_owned()),
            default_user: Some("user".to_owned()),
            default_workdir: Some(rig.path("run")),
            machine_id: Some([0xab; 16].into()),
            ..InitRequest::default()
        };
        guest_api::client::init(rig.unix().await, &request).await.unwrap();
        for (file, content) in [
            ("run/e2b/.E2B_SANDBOX", "true"),
            ("run/e2b/.E2B_SANDBOX_ID", "i0abc"),
            ("run/e2b/.E2B_TEMPLATE_ID", "base"),
            ("etc/machine-id", "abababababababababababababababab\n"),
        ] {
            assert_eq!(std::fs::read_to_string(rig.path(file)).unwrap(), content);
        }
        let body = r#"{"process":{"cmd":"/bin/sh","args":["-c","echo $A $E2B_SANDBOX_ID $E2B_TEMPLATE_ID; pwd"]},"stdin":false}"#;
        let response = rig.stream("Start", &[("x-access-token", "t")], body).await;
        let (events, _) = crate::rig::events(&response.body);
        let output = text(&crate::rig::output(&events, "stdout"));
        assert_eq!(output, format!("b i0abc base\n{}\n", rig.path("run")));
        // The host reads metrics without a token; clients need one.
        let metrics = guest_api::client::metrics(rig.unix().await).await.unwrap();
        assert!(metrics.mem_total > 0 && metrics.disk_total > 0, "{metrics:?}");
        assert_eq!(rig.get("/envs").await.status, 401);
    })
    .await;
}

#[tokio::test]
async fn warm_runs_hooks_and_waits_for_them() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    // The rig creates the parent directory.
    let hooks = "etc/catnap/before-snapshot.d";
    let path = root.path().to_owned();
    Rig::run_on(root, guest::Peer::Host, None, async |rig| {
        let log = path.join("marks");
        // Succeeds without hooks.
        guest_api::client::warm(rig.unix().await).await.unwrap();
        std::fs::create_dir_all(path.join(hooks)).unwrap();
        for (name, exit) in [("1-fails", "exit 3"), ("2-works", "exit 0")] {
            let script = format!("#!/bin/sh\necho {name} >>{}\n{exit}\n", log.display());
            let file = path.join(hooks).join(name);
            std::fs::write(&file, script).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        guest_api::client::warm(rig.unix().await).await.unwrap();
        let output = std::fs::read_to_string(&log).unwrap();
        assert_eq!(output, "1-fails\n2-works\n");
    })
    .await;
}
