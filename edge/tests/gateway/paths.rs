//! Sandboxes named in the path.

use coordinator::Access;

use crate::rig::{Rig, open, private};

const LOCAL: (&str, &str) = ("host", "localhost:3000");

#[tokio::test]
async fn a_path_leads_into_a_sandbox_and_its_prefix_is_hidden() {
    let rig = Rig::new().await;
    rig.sandbox("iabc", open()).await;
    for host in [
        "localhost",
        "127.0.0.1:3000",
        "api.example.com",
        "[::1]:3000",
    ] {
        let reply = rig
            .get("/sandbox/iabc-old/3000/a//b?c=/d", &[("host", host)])
            .await;
        let echo = reply.echo();
        assert_eq!((echo.port, echo.target.as_str()), (3000, "/a//b?c=/d"));
        assert_eq!(echo.headers["x-forwarded-prefix"], "/sandbox/iabc-old/3000");
        assert_eq!(echo.headers["host"], host);
    }
    let echo = rig.get("/sandbox/iabc/3000?q", &[LOCAL]).await.echo();
    assert_eq!(echo.target, "/?q");
    let forged = ("x-forwarded-prefix", "/evil");
    let echo = rig
        .get("/sandbox/iabc/3000/", &[LOCAL, forged])
        .await
        .echo();
    assert_eq!(echo.headers["x-forwarded-prefix"], "/sandbox/iabc/3000");
    let elsewhere = rig
        .get("/sandbox/iabc/3000/x", &[("host", "80-iabc.x")])
        .await
        .echo();
    assert_eq!(
        (elsewhere.port, elsewhere.target.as_str()),
        (80, "/sandbox/iabc/3000/x")
    );
    let reply = rig.get("/sandbox/i_c/3000/", &[LOCAL]).await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (400, "Invalid sandbox ID")
    );
    let reply = rig.get("/sandbox/iabc/http/", &[LOCAL]).await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (400, "Invalid sandbox port")
    );
}

#[tokio::test]
async fn tokens_and_reserved_paths_are_checked_behind_a_prefix_too() {
    let rig = Rig::new().await;
    rig.sleeping("iabc", private("right")).await;
    assert_eq!(rig.get("/sandbox/iabc/80/", &[LOCAL]).await.status, 403);
    let reserved = rig.get("/sandbox/iabc/49983/x/../init", &[LOCAL]).await;
    assert_eq!(reserved.status, 404);
    assert!(
        reserved.body.contains(r#""path":"/x/../init""#),
        "{}",
        reserved.body
    );
    assert_eq!(rig.fake.wakes(), 0);
    let token = ("cube-traffic-access-token", "right");
    assert_eq!(
        rig.get("/sandbox/iabc/80/", &[LOCAL, token]).await.status,
        200
    );
}

#[tokio::test]
async fn redirects_and_cookies_come_back_under_the_prefix() {
    let rig = Rig::new().await;
    let mask = Some("app:${PORT}".to_owned());
    rig.sandbox(
        "iabc",
        Access {
            mask_request_host: mask,
            ..open()
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
