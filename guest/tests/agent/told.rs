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
        assert_eq!(rig.get("/metrics").await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn http_2_is_spoken_without_tls_with_calls_beside_each_other() {
    Rig::run(async |rig| {
        let json = "application/json";
        let answers = rig
            .call_in_two(vec![
                ("GET", "/health", "", ""),
                ("POST", "/process.Process/List", json, "{}"),
                (
                    "POST",
                    "/files?path=two",
                    "application/octet-stream",
                    "content",
                ),
                (
                    "POST",
                    "/filesystem.Filesystem/Stat",
                    json,
                    r#"{"path":"/none"}"#,
                ),
            ])
            .await;
        let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, [204, 200, 200, 404]);
        assert_eq!(rig.get("/files?path=two").await.body, b"content");
    })
    .await;
}

#[tokio::test]
async fn a_guest_that_has_just_booted_is_told_everything_at_once() {
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
        let answer = rig.stream("Start", &[("x-access-token", "t")], body).await;
        let (events, _) = crate::rig::events(&answer.body);
        let said = text(&crate::rig::output(&events, "stdout"));
        assert_eq!(said, format!("b i0abc base\n{}\n", rig.path("run")));
        // The host needs no token to ask how busy it is; others do.
        let metrics = guest_api::client::metrics(rig.unix().await).await.unwrap();
        assert!(metrics.mem_total > 0 && metrics.disk_total > 0, "{metrics:?}");
        assert_eq!(rig.get("/envs").await.status, 401);
    })
    .await;
}

#[tokio::test]
async fn a_template_has_its_programs_run_when_the_host_asks_and_waits_for_them() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    // Where the agent looks; the rig makes the folder above it.
    let hooks = "etc/catnap/before-snapshot.d";
    let path = root.path().to_owned();
    Rig::run_on(root, guest::Peer::Host, None, async |rig| {
        let marks = path.join("marks");
        // Without any there is nothing to do.
        guest_api::client::warm(rig.unix().await).await.unwrap();
        std::fs::create_dir_all(path.join(hooks)).unwrap();
        for (name, end) in [("1-fails", "exit 3"), ("2-works", "exit 0")] {
            let script = format!("#!/bin/sh\necho {name} >>{}\n{end}\n", marks.display());
            let file = path.join(hooks).join(name);
            std::fs::write(&file, script).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        guest_api::client::warm(rig.unix().await).await.unwrap();
        let ran = std::fs::read_to_string(&marks).unwrap();
        assert_eq!(ran, "1-fails\n2-works\n");
    })
    .await;
}
