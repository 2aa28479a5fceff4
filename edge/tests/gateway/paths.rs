//! Sandboxes named in the path.

use coordinator::Access;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::rig::{PATIENCE, Rig, open, private};

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

#[tokio::test]
async fn a_target_with_an_authority_is_read_as_any_other() {
    let rig = Rig::new().await;
    rig.sandbox("iabc", open()).await;
    let ask = async |target: &str, host: &str| {
        let mut socket = TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap();
        let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut got = String::new();
        let read = tokio::time::timeout(PATIENCE, socket.read_to_string(&mut got)).await;
        read.unwrap().unwrap();
        got
    };
    let got = ask("http://localhost/sandbox/iabc/81/a?b", "localhost").await;
    assert!(
        got.contains(r#""port":81"#) && got.contains("/a?b\""),
        "{got}"
    );
    assert!(!got.contains(r#"/sandbox/iabc/81/a"#), "{got}");
    let got = ask("http://82-iabc.x/a", "82-iabc.x").await;
    assert!(
        got.contains(r#""port":82"#) && got.contains(r#""target":"/a""#),
        "{got}"
    );
    for target in ["http://49983-iabc.x/init", "http://49983-iabc.x/y/../init"] {
        let got = ask(target, "49983-iabc.x").await;
        assert!(got.starts_with("HTTP/1.1 404 "), "{target}: {got}");
    }
    for target in ["http://80-iabc.x/", "*", "//init", "init"] {
        let got = ask(target, "49983-iabc.x").await;
        let refused = got.starts_with("HTTP/1.1 404 ") || got.starts_with("HTTP/1.1 400 ");
        assert!(refused || target == "*", "{target}: {got}");
    }
}
