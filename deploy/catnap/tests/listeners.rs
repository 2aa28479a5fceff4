//! The listeners of a gateway around a fake host: plain HTTP, TLS, and Prometheus.

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
        // Fails if another test installed it.
        drop(rustls::crypto::ring::default_provider().install_default());
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
        let ((stop, stopped), (ready, addresses)) = (oneshot::channel::<()>(), oneshot::channel());
        let node = Arc::new(FakeNode::with_templates(&["base"]));
        let shutdown = async move { drop(stopped.await) };
        let run = tokio::spawn(catnap::run(config, node, shutdown, Some(ready)));
        Self {
            addresses: addresses.await.unwrap(),
            authority: local.authority,
            stop,
            run,
            _dir: dir,
        }
    }

    /// Builds a client that trusts the gateway's CA and resolves these names to the TLS listener.
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

    fn tls_url(&self, name: &str, path: &str) -> String {
        format!(
            "https://{name}:{}{path}",
            self.addresses.tls.unwrap().port()
        )
    }

    /// Creates a sandbox over TLS, and returns its ID.
    async fn create(&self) -> String {
        let api = format!("api.{DOMAIN}");
        let client = self.client(&[&api]);
        let created = client
            .post(self.tls_url(&api, "/sandboxes"))
            .header("x-api-key", KEY)
            .json(&json!({ "templateID": "base" }))
            .send()
            .await
            .unwrap();
        assert_eq!(created.status(), 201);
        let created: Value = created.json().await.unwrap();
        created["sandboxID"].as_str().unwrap().to_owned()
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.run.await.unwrap().unwrap();
    }
}

/// Sends a request to a fake guest, and returns what it received.
async fn echo(request: reqwest::RequestBuilder) -> Value {
    request.send().await.unwrap().json().await.unwrap()
}

#[tokio::test]
async fn tls_listener_serves_api_and_sandboxes() {
    let gateway = Gateway::new().await;
    let id = gateway.create().await;
    let api = format!("api.{DOMAIN}");
    let client = gateway.client(&[&api]);
    let without_key = client.get(gateway.tls_url(&api, "/sandboxes")).send().await;
    assert_eq!(without_key.unwrap().status(), 401);

    let name = format!("8080-{id}.{DOMAIN}");
    let client = gateway.client(&[&name]);
    let request = client.get(gateway.tls_url(&name, "/x"));
    let received = echo(request.header("x-api-key", KEY)).await;
    assert_eq!(
        (&received["port"], &received["target"]),
        (&json!(8080), &json!("/x"))
    );
    let forwarded = received["headers"].get("x-api-key");
    assert_eq!(forwarded, None, "the guest must not receive the API key");
    let request = client.get(gateway.tls_url(&name, "/x"));
    let received = echo(request.header("x-api-key", "its own")).await;
    assert_eq!(received["headers"]["x-api-key"], "its own");
    gateway.stop().await;
}

#[tokio::test]
async fn plain_listener_serves_sandbox_paths() {
    let gateway = Gateway::new().await;
    let id = gateway.create().await;
    let url = format!("http://{}/sandbox/{id}/81/y", gateway.addresses.plain);
    let received = echo(gateway.client(&[]).get(url)).await;
    assert_eq!(
        (&received["port"], &received["target"]),
        (&json!(81), &json!("/y"))
    );
    gateway.stop().await;
}

#[tokio::test]
async fn metrics_listener_reports_sandboxes_without_ids() {
    let gateway = Gateway::new().await;
    let id = gateway.create().await;
    let url = format!("http://{}/metrics", gateway.addresses.metrics.unwrap());
    let metrics = gateway.client(&[]).get(url).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(
        metrics.contains("catnap_sandboxes{state=\"running\"} 1"),
        "{metrics}"
    );
    assert!(!metrics.contains(&id), "{metrics}");
    gateway.stop().await;
}

#[tokio::test]
async fn address_in_use_error_names_address_and_remedy() {
    let gateway = Gateway::new().await;
    let address = gateway.addresses.plain;
    let dir = tempfile::tempdir().unwrap();
    let config = Config::new(address, dir.path().to_owned(), Secret::new(KEY));
    let node = Arc::new(FakeNode::default());
    let error = catnap::run(config, node, std::future::pending(), None)
        .await
        .unwrap_err();
    let error = format!("{error:#}");
    assert!(
        error.starts_with(&format!("failed to listen on {address}: ")),
        "{error}"
    );
    assert!(error.ends_with("choose another address"), "{error}");
    let database = dir.path().join("control.db");
    assert!(!database.exists(), "no state was created");
    gateway.stop().await;
}

/// Runs a `catnap up` that must fail, and returns its exit code and error.
async fn fail_up(args: &[&str]) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_catnap"));
    command.env_remove("RUST_LOG").args(["up", "--data-dir"]);
    command.arg(dir.path()).args(args).kill_on_drop(true);
    let output = command.output().await.unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), error)
}

#[tokio::test]
async fn invalid_certificate_is_a_one_line_error() {
    let dir = tempfile::tempdir().unwrap();
    edge::tls::local(dir.path(), DOMAIN).unwrap();
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let up = async |certificate: &str, key: &str| {
        let args = ["--tls-listen", "127.0.0.1:0", "--tls-cert", certificate];
        fail_up(&[&args[..], &["--tls-key", key]].concat()).await
    };
    let missing = file("none.pem");
    let (code, error) = up(&missing, &missing).await;
    assert_eq!((code, error.lines().count()), (1, 1), "{error}");
    assert!(
        error.starts_with(&format!("catnap: failed to read {missing}: ")),
        "{error}"
    );
    let (code, error) = up(&file("cert.pem"), &file("ca-key.pem")).await;
    assert_eq!((code, error.lines().count()), (1, 1), "{error}");
    assert!(
        error.starts_with("catnap: failed to use the key in "),
        "{error}"
    );
}

#[tokio::test]
async fn invalid_listener_arguments_exit_with_2() {
    for args in [
        &["--domain", "a:8443"][..],
        &["--tls-cert", "x"],
        &["--sandbox-connection-limit", "0"],
    ] {
        assert_eq!(fail_up(args).await.0, 2, "{args:?}");
    }
}
