//! SPECIFICATION.md, Requests: masked hosts and tokens over HTTP/2; excessive resets.

use coordinator::Access;
use http::Version;
use pool_api::fake::Echo;

use crate::{
    clients::{BOTH, h2_connect, h2_get, https_client, tls_connect, url},
    rig::{DOMAIN, Rig, TIMEOUT, public, with_traffic_token},
};

#[tokio::test]
async fn excessive_h2_resets_trigger_goaway() {
    let rig = Rig::with_tls(|config| config.limits.resets = 20).await;
    let id = rig.paused_sandbox("iabc", public()).await;
    rig.node.hold_wakes(true);
    let mut other_client = h2_connect(&rig).await;
    let stream = tls_connect(&rig, b"h2").await;
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let resets = async {
        loop {
            if futures::future::poll_fn(|cx| sender.poll_ready(cx))
                .await
                .is_err()
            {
                return;
            }
            let Ok((response, mut request)) = sender.send_request(h2_get(&id, "/"), false) else {
                return;
            };
            // Reset only requests that the edge serves: h2 itself bounds resets of unaccepted streams.
            rig.wait_for_entering(1).await;
            request.send_reset(h2::Reason::CANCEL);
            drop(response);
            rig.wait_for_entering(0).await;
        }
    };
    tokio::select! {
        () = resets => {}
        () = tokio::time::sleep(TIMEOUT) => panic!("no GOAWAY"),
        // The client may wait for a stream that the edge never accepted.
        () = async { while !connection.is_finished() { tokio::task::yield_now().await } } => {}
    }
    let error = connection.await.unwrap().unwrap_err();
    assert_eq!(
        error.reason(),
        Some(h2::Reason::ENHANCE_YOUR_CALM),
        "{error}"
    );
    rig.node.hold_wakes(false);
    let (reply, _) = other_client.send_request(h2_get(&id, "/"), true).unwrap();
    assert_eq!(reply.await.unwrap().status(), 200);
}

#[tokio::test]
async fn h2_masks_hosts_and_removes_traffic_tokens() {
    let rig = Rig::with_tls(|_| {}).await;
    let access = Access {
        mask_request_host: Some("app.test:${PORT}".to_owned()),
        ..with_traffic_token("right")
    };
    let id = rig.sandbox("iabc", access).await;
    let client = https_client(&rig, BOTH);
    let requested = format!("8080-{id}.{DOMAIN}:{}", rig.tls_port.unwrap());
    let url = url(&rig, &format!("8080-{id}"), "/");
    assert_eq!(client.get(&url).send().await.unwrap().status(), 403);
    for name in ["e2b-traffic-access-token", "cube-traffic-access-token"] {
        let reply = client.get(&url).header(name, "right").send().await.unwrap();
        assert_eq!(reply.version(), Version::HTTP_2);
        let echo: Echo = reply.json().await.unwrap();
        assert_eq!(echo.headers["host"], "app.test:8080");
        assert_eq!(echo.headers["x-forwarded-host"], requested);
        assert!(
            !echo.headers.contains_key(name),
            "the guest does not receive the token"
        );
    }
}
