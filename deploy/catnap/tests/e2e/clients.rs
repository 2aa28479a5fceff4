//! The published clients against the gateway. Their tests are in `tests/clients`.
//!
//! Each test runs one client against a gateway of its own: over TLS with host names, or over plain HTTP with one address
//! and headers. Each generation of a client runs all of its tests over one of the two, and a short list over the other,
//! unless `CATNAP_TEST_ALL` is set. `CATNAP_CLIENTS` names the directory that `cargo xtask test` installs the clients in.

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

/// The timeout of all tests of one client.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(1200);
const DOMAIN: &str = "e2b.localhost";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Tls,
    Plain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coverage {
    /// All tests of the client.
    Full,
    /// The tests marked as short, unless `CATNAP_TEST_ALL` is set.
    Short,
}

/// A test run of a client.
#[derive(Debug)]
struct ClientRun<'a> {
    /// A program in the directory of the clients.
    program: &'a str,
    args: &'a [&'a str],
    /// A directory in `tests/clients`.
    tests: &'a str,
    transport: Transport,
}

impl ClientRun<'_> {
    async fn run(&self) {
        // Free the port before the gateway binds it.
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let listen = format!("127.0.0.1:{port}");
        let args = ["--tls-listen", &listen, "--domain", DOMAIN];
        let Some(gateway) = Gateway::start_with(&args).await else {
            return;
        };
        let output = timeout(CLIENT_TIMEOUT, self.command(&gateway, port).output());
        let output = output.await.unwrap().unwrap();
        // The test runner prints it if the test fails.
        for stream in [&output.stdout, &output.stderr] {
            eprintln!("{}", String::from_utf8_lossy(stream));
        }
        assert!(output.status.success(), "{}", output.status);
        gateway.finish().await;
    }

    fn command(&self, gateway: &Gateway, tls_port: u16) -> Command {
        let clients = env::var_os("CATNAP_CLIENTS")
            .map(PathBuf::from)
            .expect("CATNAP_CLIENTS is not set; run `cargo xtask test`");
        let tests = gateway.work.path().join("tests");
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        copy_files(&sources.join(self.tests), &tests);
        // Node looks for packages in the parent directories of a module.
        let packages = clients.join("javascript/node_modules");
        symlink(packages, tests.join("node_modules")).unwrap();
        let mut command = Command::new(clients.join(self.program));
        command
            .args(self.args)
            .current_dir(tests)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .env_remove("E2B_DEBUG")
            .env("E2B_API_KEY", KEY)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("NO_PROXY", "*");
        match self.transport {
            Transport::Tls => {
                let ca = gateway.work.data().join("tls/ca.pem");
                command
                    .env("CATNAP_TRANSPORT", "tls")
                    .env("E2B_DOMAIN", format!("{DOMAIN}:{tls_port}"))
                    .env("SSL_CERT_FILE", &ca)
                    .env("NODE_EXTRA_CA_CERTS", &ca)
            }
            Transport::Plain => command
                .env("CATNAP_TRANSPORT", "plain")
                .env("E2B_API_URL", gateway.url())
                .env("E2B_SANDBOX_URL", gateway.url()),
        };
        let (address, port) = gateway.address().rsplit_once(':').unwrap();
        command
            .env("CUBE_API_URL", gateway.url())
            .env("CUBE_API_KEY", KEY)
            .env("CUBE_TEMPLATE_ID", "base")
            .env("CUBE_PROXY_NODE_IP", address)
            .env("CUBE_PROXY_PORT_HTTP", port);
        command
    }
}

impl Coverage {
    fn is_short(self) -> bool {
        self == Self::Short && env::var_os("CATNAP_TEST_ALL").is_none()
    }
}

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

async fn python(environment: &str, tests: &str, transport: Transport, coverage: Coverage) {
    let mut args = vec!["-m", "pytest"];
    if coverage.is_short() {
        args.extend(["-m", "short"]);
    }
    let run = ClientRun {
        program: &format!("{environment}/bin/python"),
        args: &args,
        tests,
        transport,
    };
    run.run().await;
}

async fn javascript(transport: Transport, coverage: Coverage) {
    let mut args = vec![
        "--test",
        // In one process, which the test can kill.
        "--experimental-test-isolation=none",
        "--test-reporter=spec",
    ];
    if coverage.is_short() {
        args.push(r"--test-name-pattern=\[short\]");
    }
    let run = ClientRun {
        program: "javascript/node",
        args: &args,
        tests: "javascript",
        transport,
    };
    run.run().await;
}

#[tokio::test]
async fn python_e2b_2_63_over_tls() {
    python("python-newest", "python", Transport::Tls, Coverage::Full).await;
}

#[tokio::test]
async fn python_e2b_2_63_over_plain_http() {
    python("python-newest", "python", Transport::Plain, Coverage::Short).await;
}

#[tokio::test]
async fn python_e2b_2_45_over_tls() {
    python("python-older", "python", Transport::Tls, Coverage::Short).await;
}

#[tokio::test]
async fn python_e2b_2_45_over_plain_http() {
    python("python-older", "python", Transport::Plain, Coverage::Full).await;
}

#[tokio::test]
async fn javascript_e2b_2_51_over_tls() {
    javascript(Transport::Tls, Coverage::Full).await;
}

#[tokio::test]
async fn javascript_e2b_2_51_over_plain_http() {
    javascript(Transport::Plain, Coverage::Short).await;
}

#[tokio::test]
async fn cubesandbox_0_7_3_over_plain_http() {
    python(
        "cubesandbox",
        "cubesandbox",
        Transport::Plain,
        Coverage::Full,
    )
    .await;
}
