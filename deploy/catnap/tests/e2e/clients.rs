//! The published clients, unchanged, at the gateway: what they do is in `tests/clients`, one environment each.
//!
//! Each client is run against a gateway of its own, by TLS and host names (`Tls`) and by one plain address and headers
//! (`Plain`). `CATNAP_CLIENTS` names the folder they are installed in; `cargo xtask test` makes it.

use std::{
    env, fs,
    net::TcpListener,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{process::Command, time::timeout};

use crate::rig::{Gateway, KEY};

/// The longest all tests of one client may take.
const LIMIT: Duration = Duration::from_secs(660);
const DOMAIN: &str = "e2b.localhost";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Tls,
    Plain,
}

/// Runs the tests of one client: a program in the folder of the clients, its arguments, and where its tests are.
async fn drive(program: &str, args: &[&str], tests: &str, mode: Mode) {
    // The listener goes before the gateway takes the port.
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|free| free.local_addr())
        .unwrap()
        .port();
    let listen = format!("127.0.0.1:{port}");
    let Some(gateway) = Gateway::with(&["--tls-listen", &listen, "--domain", DOMAIN]).await else {
        return;
    };
    let clients = PathBuf::from(
        env::var_os("CATNAP_CLIENTS")
            .expect("CATNAP_CLIENTS names the installed clients: run `cargo xtask test`"),
    );
    // Next to what they import: JavaScript looks for packages in the folders above a module.
    let folder = gateway.work.path().join("tests");
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    copy(&sources.join(tests), &folder);
    symlink(
        clients.join("javascript/node_modules"),
        folder.join("node_modules"),
    )
    .unwrap();
    let mut command = Command::new(clients.join(program));
    command
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .env_remove("E2B_DEBUG")
        .env("E2B_API_KEY", KEY)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("NO_PROXY", "*");
    match mode {
        Mode::Tls => {
            let ca = gateway.work.data().join("tls/ca.pem");
            command
                .env("CATNAP_MODE", "tls")
                .env("E2B_DOMAIN", format!("{DOMAIN}:{port}"))
                .env("SSL_CERT_FILE", &ca)
                .env("NODE_EXTRA_CA_CERTS", &ca)
        }
        Mode::Plain => command
            .env("CATNAP_MODE", "plain")
            .env("E2B_API_URL", gateway.url())
            .env("E2B_SANDBOX_URL", gateway.url()),
    };
    let (address, plain_port) = gateway.address().rsplit_once(':').unwrap();
    command
        .env("CUBE_API_URL", gateway.url())
        .env("CUBE_API_KEY", KEY)
        .env("CUBE_TEMPLATE_ID", "base")
        .env("CUBE_PROXY_NODE_IP", address)
        .env("CUBE_PROXY_PORT_HTTP", plain_port);
    let output = timeout(LIMIT, command.output()).await.unwrap().unwrap();
    // Shown when the test fails.
    for said in [&output.stdout, &output.stderr] {
        eprintln!("{}", String::from_utf8_lossy(said));
    }
    assert!(output.status.success(), "{}", output.status);
    gateway.finish().await;
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

async fn python(environment: &str, tests: &str, mode: Mode) {
    let program = format!("{environment}/bin/python");
    drive(&program, &["-m", "pytest"], tests, mode).await;
}

async fn javascript(mode: Mode) {
    // In one process, which ends with the test.
    let args = [
        "--test",
        "--experimental-test-isolation=none",
        "--test-reporter=spec",
    ];
    drive("javascript/node", &args, "javascript", mode).await;
}

#[tokio::test]
async fn python_e2b_2_63_by_tls() {
    python("python-newest", "python", Mode::Tls).await;
}

#[tokio::test]
async fn python_e2b_2_63_in_plain() {
    python("python-newest", "python", Mode::Plain).await;
}

#[tokio::test]
async fn python_e2b_2_45_by_tls() {
    python("python-older", "python", Mode::Tls).await;
}

#[tokio::test]
async fn python_e2b_2_45_in_plain() {
    python("python-older", "python", Mode::Plain).await;
}

#[tokio::test]
async fn javascript_e2b_2_51_by_tls() {
    javascript(Mode::Tls).await;
}

#[tokio::test]
async fn javascript_e2b_2_51_in_plain() {
    javascript(Mode::Plain).await;
}

#[tokio::test]
async fn cubesandbox_0_7_3() {
    python("cubesandbox", "cubesandbox", Mode::Plain).await;
}
