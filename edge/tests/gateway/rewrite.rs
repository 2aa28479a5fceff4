//! SPECIFICATION.md, Requests: masked hosts; path prefixes in redirects and cookies.

use coordinator::Access;

use pool_api::{Secret, fake::Echo};

use crate::{
    clients::{BOTH, h2_connect, h2_get, https_client, url},
    rig::{Rig, public},
};

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

#[tokio::test]
async fn guests_receive_the_address_and_scheme_of_the_client() {
    let rig = Rig::with_tls(|_| {}).await;
    let id = rig.sandbox("iabc", public()).await;
    let forged = [
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil.example"),
        ("x-real-ip", "6.6.6.6"),
        ("forwarded", "for=6.6.6.6"),
    ];
    let echo = rig.get_port(80, &id, &forged).await.echo();
    assert_eq!(echo.headers["x-forwarded-for"], "127.0.0.1");
    assert_eq!(echo.headers["x-forwarded-proto"], "http");
    assert_eq!(echo.headers["x-forwarded-host"], "80-iabc.example.com");
    for name in ["x-real-ip", "forwarded"] {
        assert!(!echo.headers.contains_key(name), "{name}");
    }
    let client = https_client(&rig, BOTH);
    let reply = client.get(url(&rig, "80-iabc", "/")).send().await.unwrap();
    let echo: Echo = reply.json().await.unwrap();
    assert_eq!(echo.headers["x-forwarded-proto"], "https");
}

#[tokio::test]
async fn h2_cookies_arrive_as_one_field() {
    let rig = Rig::with_tls(|_| {}).await;
    let id = rig.sandbox("iabc", public()).await;
    let mut client = h2_connect(&rig).await;
    let mut request = h2_get(&id, "/");
    for cookie in ["a=1", "b=2", "c=3"] {
        request
            .headers_mut()
            .append("cookie", cookie.parse().unwrap());
    }
    let (reply, _) = client.send_request(request, true).unwrap();
    let mut body = reply.await.unwrap().into_body();
    let text = body.data().await.unwrap().unwrap();
    let echo: Echo = serde_json::from_slice(&text).unwrap();
    assert_eq!(echo.headers["cookie"], "a=1; b=2; c=3");
}

#[tokio::test]
async fn gateway_key_is_removed_from_every_field() {
    let rig = Rig::with_config(|config| config.api_key = Some(Secret::new("key"))).await;
    let id = rig.sandbox("iabc", public()).await;
    let headers = [
        ("x-api-key", "other"),
        ("x-api-key", "key"),
        ("authorization", "Bearer key"),
    ];
    let echo = rig.get_port(80, &id, &headers).await.echo();
    for name in ["x-api-key", "authorization"] {
        assert!(!echo.headers.contains_key(name), "{name}");
    }
    let headers = [("x-api-key", "own"), ("authorization", "Bearer own")];
    let echo = rig.get_port(80, &id, &headers).await.echo();
    assert_eq!(echo.headers["x-api-key"], "own");
    assert_eq!(echo.headers["authorization"], "Bearer own");
}
