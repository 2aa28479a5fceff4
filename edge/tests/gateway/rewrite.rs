//! SPECIFICATION.md, Requests: masked hosts; path prefixes in redirects and cookies.

use coordinator::Access;

use crate::rig::{Rig, public};

const LOCAL: (&str, &str) = ("host", "localhost:3000");

#[tokio::test]
async fn masked_host_applies_except_to_agent_port() {
    let rig = Rig::new().await;
    let access = Access {
        mask_request_host: Some("h:${PORT}".to_owned()),
        ..public()
    };
    let id = rig.sandbox("iabc", access).await;
    let echo = rig.get_port(8080, &id, &[]).await.echo();
    assert_eq!(echo.headers["host"], "h:8080");
    assert_eq!(echo.headers["x-forwarded-host"], "8080-iabc.example.com");
    assert_eq!(
        rig.get_port(49983, &id, &[]).await.echo().headers["host"],
        "49983-iabc.example.com"
    );
}

#[tokio::test]
async fn redirects_and_cookies_get_the_path_prefix() {
    let rig = Rig::new().await;
    let mask = Some("app:${PORT}".to_owned());
    rig.sandbox(
        "iabc",
        Access {
            mask_request_host: mask,
            ..public()
        },
    )
    .await;
    let reply = rig
        .get("/sandbox/iabc/80/redirect?to=/login", &[LOCAL])
        .await;
    assert_eq!(
        (reply.status, reply.header("location")),
        (302, "/sandbox/iabc/80/login")
    );
    let cookies: Vec<_> = reply.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=b; Path=/sandbox/iabc/80/; HttpOnly", "c=d"]);
    let reply = rig
        .get("/sandbox/iabc/80/redirect?to=http://app:80/login", &[LOCAL])
        .await;
    assert_eq!(reply.header("location"), "/sandbox/iabc/80/login");
    let reply = rig
        .get("/sandbox/iabc/80/redirect?to=https://other/login", &[LOCAL])
        .await;
    assert_eq!(reply.header("location"), "https://other/login");
    let reply = rig
        .get("/redirect?to=/login", &[("host", "80-iabc.x")])
        .await;
    assert_eq!(reply.header("location"), "/login");
}
