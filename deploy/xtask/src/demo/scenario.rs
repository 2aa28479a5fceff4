//! The steps of the demo.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    api::{self, Api, SandboxResponse},
    gateway::GatewayConfig,
};
use crate::step::step;

const TEMPLATE: &str = "base";
/// The port of the HTTP server in the guest.
const PORT: u16 = 8000;
/// Seconds without requests after which the sandbox pauses.
const IDLE: u64 = 5;
const FORKS: usize = 10;
/// Timeout of the idle pause. Guests are slow where KVM emulates their kernel; elsewhere a pause takes far less.
const PAUSE_TIMEOUT: Duration = Duration::from_secs(120);
/// Timeout of the gateway's start, which may include booting a template.
const START_TIMEOUT: Duration = Duration::from_secs(300);

/// An HTTP server that counts its requests, so that each response identifies the process and its state. The command exits
/// when the server listens in the background.
///
/// The script loads no modules, because opening a file takes many milliseconds where KVM emulates the guest kernel. The
/// numbers are `AF_INET`, `SOCK_STREAM`, `SOL_SOCKET` and `SO_REUSEADDR` of Linux.
const SERVER: &str = r#"
socket(my $s, 2, 1, 0) or die "socket: $!"; setsockopt($s, 1, 2, 1);
bind($s, pack("S n C4 x8", 2, $ARGV[0], 127, 0, 0, 1)) or die "bind: $!"; listen($s, 64) or die "listen: $!";
defined(my $child = fork) or die "fork: $!"; exit if $child;
open(STDOUT, ">/dev/null"); open(STDERR, ">/dev/null");
while (accept(my $c, $s)) {
    while (<$c>) { last if /^\r?$/ }
    my $t = "request " . ++$n . " of process $$\n";
    print $c "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: " . length($t) . "\r\n\r\n$t";
    close $c;
}
"#;

/// The measured steps.
#[derive(Debug)]
pub(super) struct Summary {
    sandbox: String,
    rows: Vec<(String, Duration)>,
    /// The `Server-Timing` header of the request that woke the sandbox.
    server_timing: String,
}

/// A response of [`SERVER`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ServerResponse {
    request: u64,
    process: u64,
}

/// Runs the steps against a gateway that was started.
pub(super) fn run(config: &GatewayConfig, keep: bool) -> Result<Summary> {
    let mut rows = Vec::new();
    timed(
        &mut rows,
        "start the gateway (first run: boots the template)",
        || {
            api::poll_until("the gateway to serve requests", START_TIMEOUT, || {
                Ok(Api::is_up(config.listen))
            })
        },
    )?;
    let api = Api::new(config.listen, config.api_key()?);
    if !keep {
        api.kill_demo_sandboxes()
            .context("failed to kill the sandboxes of earlier demos")?;
    }
    let sandbox = timed(&mut rows, "create a sandbox", || api.create(TEMPLATE, IDLE))?;
    timed(&mut rows, "start an HTTP server in the sandbox", || {
        start_server(config, &sandbox)
    })?;
    let first = timed(&mut rows, "first response of the server", || {
        parse_response(&api.get_from_sandbox(&sandbox, PORT)?)
    })?;
    let again = timed(&mut rows, "request to the running sandbox", || {
        api.get_from_sandbox(&sandbox, PORT)
    })?;
    let again = parse_response(&again)?;
    ensure_next_request(first, again)?;

    timed(
        &mut rows,
        &format!("idle pause (after {IDLE} s without requests)"),
        || wait_until_paused(&api, &sandbox),
    )?;
    let woken = timed(&mut rows, "request that wakes the sandbox", || {
        api.get_from_sandbox(&sandbox, PORT)
    })?;
    let after = parse_response(&woken)?;
    ensure_next_request(again, after).context("the wake lost the state of the server")?;
    ensure!(
        woken.server_timing.contains("wake;dur="),
        "the Server-Timing header reports no wake: {:?}",
        woken.server_timing
    );

    let children = timed(&mut rows, &format!("fork the sandbox into {FORKS}"), || {
        api.fork(&sandbox, FORKS)
    })?;
    ensure!(
        children.len() == FORKS,
        "only {} of {FORKS} forks were created",
        children.len()
    );
    timed(&mut rows, "one response from each fork", || {
        check_forks(&api, &children, after)
    })?;
    Ok(Summary {
        sandbox,
        rows,
        server_timing: woken.server_timing,
    })
}

fn timed<T>(
    rows: &mut Vec<(String, Duration)>,
    title: &str,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let began = Instant::now();
    let result = step(title, work)?;
    rows.push((title.to_owned(), began.elapsed()));
    Ok(result)
}

/// Starts the server with `catnap sandbox exec`.
fn start_server(config: &GatewayConfig, sandbox: &str) -> Result<()> {
    let output = Command::new(&config.program)
        .args([
            "sandbox",
            "exec",
            "--url",
            &format!("http://{}", config.listen),
        ])
        .args([sandbox, "--", "perl", "-e", SERVER, &PORT.to_string()])
        .env("CATNAP_API_KEY", config.api_key()?)
        .stdin(Stdio::null())
        .output()
        .context("failed to run catnap sandbox exec")?;
    if !output.status.success() {
        bail!(
            "catnap sandbox exec failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// Waits until a sandbox is paused and its VM is destroyed.
fn wait_until_paused(api: &Api, sandbox: &str) -> Result<()> {
    api::poll_until("the sandbox to pause", PAUSE_TIMEOUT, || {
        Ok(api.state(sandbox)? == "paused")
    })?;
    // The API reports the state when the vCPUs have stopped; this call returns when the snapshot is complete.
    api.pause(sandbox)
}

/// Sends a request to all forks at once: each continues from the state of its origin.
fn check_forks(api: &Api, children: &[String], origin: ServerResponse) -> Result<()> {
    let responses: Vec<Result<ServerResponse>> = thread::scope(|scope| {
        let calls: Vec<_> = children
            .iter()
            .map(|child| scope.spawn(|| parse_response(&api.get_from_sandbox(child, PORT)?)))
            .collect();
        calls
            .into_iter()
            .map(|call| {
                call.join()
                    .unwrap_or_else(|_| bail!("the thread of a request panicked"))
            })
            .collect()
    });
    for (child, response) in children.iter().zip(responses) {
        let response =
            response.with_context(|| format!("failed to get a response of fork {child}"))?;
        ensure_next_request(origin, response)
            .with_context(|| format!("fork {child} lacks the state of its origin"))?;
    }
    Ok(())
}

fn parse_response(response: &SandboxResponse) -> Result<ServerResponse> {
    ensure!(
        response.status == 200,
        "the sandbox returned {}: {}",
        response.status,
        response.body.trim()
    );
    parse(&response.body)
        .with_context(|| format!("failed to parse the response {:?}", response.body))
}

fn parse(body: &str) -> Option<ServerResponse> {
    let (request, process) = body
        .strip_prefix("request ")?
        .trim_end()
        .split_once(" of process ")?;
    Some(ServerResponse {
        request: request.parse().ok()?,
        process: process.parse().ok()?,
    })
}

/// Fails unless `after` is the next response of the same process.
fn ensure_next_request(before: ServerResponse, after: ServerResponse) -> Result<()> {
    let expected = ServerResponse {
        request: before.request + 1,
        ..before
    };
    ensure!(
        after == expected,
        "expected the next response of the same process: {after:?} follows {before:?}"
    );
    Ok(())
}

// === impl Summary ===

impl Summary {
    /// Formats the table of steps and a command to try next.
    pub(super) fn text(&self, listen: SocketAddr) -> String {
        let mut text = String::from("\n");
        let width = self.rows.iter().map(|(title, _)| title.len()).max();
        let width = width.unwrap_or_default();
        let rows = self.rows.iter().map(|(title, took)| {
            format!("  {title:<width$}  {:>10.1} ms\n", took.as_secs_f64() * 1e3)
        });
        text.extend(rows);
        let host = format!("{PORT}-{}.localhost", self.sandbox);
        // Writing to a string cannot fail.
        let _infallible = write!(
            text,
            "\nStages of the wake, in ms:\n  {}\n\n\
             Wake the sandbox yourself after {IDLE} s without requests:\n  curl -i -H 'Host: {host}' http://{listen}/\n",
            self.server_timing.replace(", ", "\n  ")
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };

    use super::*;

    #[test]
    fn restarted_server_is_detected() {
        let before = parse("request 2 of process 41\n").unwrap();
        ensure_next_request(before, parse("request 3 of process 41\n").unwrap()).unwrap();
        ensure_next_request(before, parse("request 1 of process 41\n").unwrap()).unwrap_err();
        ensure_next_request(before, parse("request 3 of process 42\n").unwrap()).unwrap_err();
        assert_eq!(parse("request x of process 1"), None);
        assert_eq!(parse("<html>"), None);
    }

    #[test]
    fn server_counts_its_requests() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let started = Command::new("perl")
            .args(["-e", SERVER, &address.port().to_string()])
            .status()
            .unwrap();
        assert!(started.success());
        let api = Api::new(address, String::new());
        let get = || parse_response(&api.get_from_sandbox("i0", PORT).unwrap()).unwrap();
        let (first, second) = (get(), get());
        let server = Pid::from_raw(first.process.try_into().unwrap());
        kill(server, Signal::SIGKILL).unwrap();
        assert_eq!(first.request, 1);
        ensure_next_request(first, second).unwrap();
    }

    #[test]
    fn summary_columns_are_aligned() {
        let summary = Summary {
            sandbox: "iabc".to_owned(),
            rows: vec![
                ("a".to_owned(), Duration::from_millis(1)),
                ("longer".to_owned(), Duration::from_millis(12_345)),
            ],
            server_timing: "wake;dur=1.0, admit;dur=2.0".to_owned(),
        };
        let text = summary.text("127.0.0.1:3000".parse().unwrap());
        assert!(text.contains("  a              1.0 ms\n  longer     12345.0 ms\n"));
        assert!(text.contains("  wake;dur=1.0\n  admit;dur=2.0\n"));
        assert!(text.contains("curl -i -H 'Host: 8000-iabc.localhost' http://127.0.0.1:3000/"));
    }
}
