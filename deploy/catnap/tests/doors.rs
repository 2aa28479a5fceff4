//! The gateway's doors: with TLS, without, and the one for Prometheus. Around a fake host.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::PathBuf, sync::Arc};

use catnap::{Addresses, Config};
use edge::Tls;
use pool_api::{Secret, fake::FakeNode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{process::Command, sync::oneshot, task::JoinHandle};

const KEY: &str = "e2b_0000000000000000000000000000000000000000";
const DOMAIN: &str = "e2b.localhost";

struct Gateway {
    addresses: Addresses,
    authority: PathBuf,
    stop: oneshot::Sender<()>,
    run: JoinHandle<anyhow::Result<()>>,
    _dir: TempDir,
}

impl Gateway {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let local = edge::tls::local(&dir.path().join("tls"), DOMAIN).unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let mut config = Config::new(any, dir.path().to_owned(), Secret::new(KEY));
        config.tls = Some(Tls {
            listen: any,
            config: local.config,
        });
        config.domain = Some(DOMAIN.to_owned());
        config.metrics = Some(any);
        let ((stop, stopped), (ready, listens)) = (oneshot::channel::<()>(), oneshot::channel());
        let node = Arc::new(FakeNode::with_templates(&["base"]));
        let until = async move { drop(stopped.await) };
        let run = tokio::spawn(catnap::run(config, node, until, Some(ready)));
        Self {
            addresses: listens.await.unwrap(),
            authority: local.authority,
            stop,
            run,
            _dir: dir,
        }
    }

    /// A client that trusts the gateway's authority and finds these names there.
    fn client(&self, names: &[&str]) -> reqwest::Client {
        let authority = fs::read(&self.authority).unwrap();
        let authority = reqwest::Certificate::from_pem(&authority).unwrap();
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([authority]);
        for name in names {
            builder = builder.resolve(name, self.addresses.tls.unwrap());
        }
        builder.build().unwrap()
    }

    fn url(&self, name: &str, path: &str) -> String {
        format!(
            "https://{name}:{}{path}",
            self.addresses.tls.unwrap().port()
        )
    }
}

#[tokio::test]
async fn a_sandbox_is_made_and_used_over_tls_and_counted() {
    // Another test may have been first.
    drop(rustls::crypto::ring::default_provider().install_default());
    let gateway = Gateway::new().await;
    let api = format!("api.{DOMAIN}");
    let client = gateway.client(&[&api]);
    let created = client
        .post(gateway.url(&api, "/sandboxes"))
        .header("x-api-key", KEY)
        .json(&json!({ "templateID": "base" }))
        .send()
        .await
        .unwrap();
    assert_eq!(created.status(), 201);
    let created: Value = created.json().await.unwrap();
    let id = created["sandboxID"].as_str().unwrap();
    let refused = client.get(gateway.url(&api, "/sandboxes")).send().await;
    assert_eq!(refused.unwrap().status(), 401);

    let name = format!("8080-{id}.{DOMAIN}");
    let client = gateway.client(&[&name]);
    let ask = client.get(gateway.url(&name, "/x"));
    let reply = ask.header("x-api-key", KEY).send().await.unwrap();
    let echo: Value = reply.json().await.unwrap();
    assert_eq!(
        (&echo["port"], &echo["target"]),
        (&json!(8080), &json!("/x"))
    );
    assert_eq!(
        echo["headers"].get("x-api-key"),
        None,
        "the guest is not given the key"
    );
    let ask = client.get(gateway.url(&name, "/x"));
    let reply = ask.header("x-api-key", "its own").send().await.unwrap();
    let echo: Value = reply.json().await.unwrap();
    assert_eq!(echo["headers"]["x-api-key"], "its own");

    let plain = format!("http://{}/sandbox/{id}/81/y", gateway.addresses.plain);
    let echo: Value = client
        .get(plain)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!((&echo["port"], &echo["target"]), (&json!(81), &json!("/y")));

    let metrics = format!("http://{}/metrics", gateway.addresses.metrics.unwrap());
    let text = client
        .get(metrics)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(
        text.contains("catnap_sandboxes{state=\"running\"} 1"),
        "{text}"
    );
    assert!(!text.contains(id));
    gateway.stop.send(()).unwrap();
    gateway.run.await.unwrap().unwrap();
}

async fn refused(args: &[&str]) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_catnap"));
    command.env_remove("RUST_LOG").args(["up", "--data-dir"]);
    command.arg(dir.path()).args(args).kill_on_drop(true);
    let output = command.output().await.unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), complaint)
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    edge::tls::local(dir.path(), DOMAIN).unwrap();
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let up = async |certificate: &str, key: &str| {
        let door = ["--tls-listen", "127.0.0.1:0", "--tls-cert", certificate];
        refused(&[&door[..], &["--tls-key", key]].concat()).await
    };
    let missing = file("none.pem");
    let (code, complaint) = up(&missing, &missing).await;
    assert_eq!((code, complaint.lines().count()), (1, 1), "{complaint}");
    assert!(
        complaint.starts_with(&format!("catnap: failed to read {missing}: ")),
        "{complaint}"
    );
    let (code, complaint) = up(&file("cert.pem"), &file("ca-key.pem")).await;
    assert_eq!((code, complaint.lines().count()), (1, 1), "{complaint}");
    assert!(
        complaint.starts_with("catnap: failed to use the key in "),
        "{complaint}"
    );
    for args in [
        &["--domain", "a:8443"][..],
        &["--tls-cert", "x"],
        &["--sandbox-connection-limit", "0"],
    ] {
        assert_eq!(refused(args).await.0, 2, "{args:?}");
    }
}
