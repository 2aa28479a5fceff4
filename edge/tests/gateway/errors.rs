//! SPECIFICATION.md, Requests: status codes and bodies for sandboxes that cannot serve a request.

use coordinator::Access;
use pool_api::{
    Port, SandboxState,
    fake::{PortScript, WakeScript},
};

use crate::rig::{Rig, public};

const CHROME: (&str, &str) = ("user-agent", "Mozilla/5.0 Chrome/140");
const JSON: &str = "application/json; charset=utf-8";

#[tokio::test]
async fn unknown_and_unwakeable_sandboxes_are_502() {
    let rig = Rig::new().await;
    let id = rig.paused_sandbox("ipaused", Access::default()).await;
    for id in [&"iunknown".parse().unwrap(), &id] {
        let reply = rig.get_port(80, id, &[]).await;
        assert_eq!((reply.status, reply.header("content-type")), (502, JSON));
        assert_eq!(
            reply.body,
            format!(r#"{{"sandboxId":"{id}","message":"The sandbox was not found","code":502}}"#)
        );
    }
    let page = rig.get_port(80, &id, &[CHROME]).await;
    assert_eq!(
        (page.status, page.header("content-type")),
        (502, "text/html; charset=utf-8")
    );
    assert!(page.body.starts_with("<html") && page.body.ends_with("</html>"));
    assert!(page.body.contains("<title>Sandbox Not Found</title>"));
    assert_eq!(rig.node.wakes(), 0);
}

#[tokio::test]
async fn withdrawn_sandbox_is_502() {
    let rig = Rig::new().await;
    let id = rig.sandbox("iabc", public()).await;
    assert_eq!(rig.get_port(80, &id, &[]).await.status, 200);
    rig.coordinator.withdraw(&id);
    assert_eq!(rig.get_port(80, &id, &[]).await.status, 502);
}

#[tokio::test]
async fn closed_port_is_502_after_five_attempts() {
    let rig = Rig::new().await;
    let id = rig.sandbox("iabc", public()).await;
    let port = |number: u16| Port::try_from(number).unwrap();
    rig.node.script_port(port(3210), PortScript::Closed);
    rig.node.script_port(port(3211), PortScript::ClosedTimes(4));
    let (closed, late) = tokio::join!(rig.get_port(3210, &id, &[]), rig.get_port(3211, &id, &[]));
    assert_eq!(closed.status, 502);
    let expected = r#"{"sandboxId":"iabc","message":"The sandbox is running but port is not open","port":3210,"code":502}"#;
    assert_eq!(closed.body, expected);
    assert_eq!(late.echo().port, 3211);
    assert_eq!(rig.node.dials(), 10);
    let page = rig.get_port(3210, &id, &[CHROME]).await;
    assert!(
        page.body.contains("Closed Port Error") && page.body.contains("no service running on port")
    );
}

#[tokio::test]
async fn unwakeable_pausing_sandbox_is_502() {
    let rig = Rig::new().await;
    let id = rig.sandbox("iabc", Access::default()).await;
    rig.node.set_state(&id, SandboxState::Pausing);
    let reply = rig.get_port(80, &id, &[]).await;
    assert_eq!(reply.status, 502);
    assert!(reply.body.contains("The sandbox was not found"));
}

#[tokio::test]
async fn stopping_sandbox_is_502() {
    let rig = Rig::new().await;
    let id = rig.sandbox("iabc", public()).await;
    rig.node.set_state(&id, SandboxState::Stopping);
    let reply = rig.get_port(80, &id, &[]).await;
    assert_eq!(reply.status, 502);
    assert!(reply.body.contains("The sandbox was not found"));
}

#[tokio::test]
async fn failed_wake_is_503_and_next_request_succeeds() {
    let rig = Rig::new().await;
    let id = rig.paused_sandbox("iabc", public()).await;
    for script in [WakeScript::NoRoom, WakeScript::Fails] {
        rig.node.script_wake(script);
        let reply = rig.get_port(80, &id, &[]).await;
        assert_eq!((reply.status, reply.header("retry-after")), (503, "2"));
    }
    assert_eq!(rig.get_port(80, &id, &[]).await.status, 200);
}
