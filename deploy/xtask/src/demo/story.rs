//! What the demo does, step by step.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    api::{self, Api, Visit},
    gateway::Place,
};
use crate::step::step;

const TEMPLATE: &str = "base";
/// Where the guest's server listens.
const PORT: u16 = 8000;
/// Seconds of no use after which the sandbox falls asleep.
const IDLE: u64 = 5;
const FORKS: usize = 10;
/// Guests are slow where their kernel is interpreted; elsewhere none of this is ever used up.
const PATIENCE: Duration = Duration::from_secs(120);
/// The gateway may have to boot a template first.
const START: Duration = Duration::from_secs(300);

/// A server that counts its requests, so that one can see whether it is still the same. It loads no module, as every file
/// that is opened costs a guest whose kernel is interpreted many milliseconds; the numbers are those of `AF_INET`,
/// `SOCK_STREAM`, `SOL_SOCKET` and `SO_REUSEADDR` on Linux. The command ends when the server listens, in the background.
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

/// What was shown.
#[derive(Debug)]
pub(super) struct Told {
    sandbox: String,
    rows: Vec<(String, Duration)>,
    /// What the gateway said of the wake.
    timing: String,
}

/// What the guest's server says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Said {
    request: u64,
    process: u64,
}

/// Tells the story to a gateway that was started.
pub(super) fn tell(place: &Place, keep: bool) -> Result<Told> {
    let mut rows = Vec::new();
    timed(
        &mut rows,
        "start the gateway (the first time it boots the template)",
        || api::until("the gateway", START, || Ok(Api::is_up(place.listen))),
    )?;
    let api = Api::new(place.listen, place.api_key()?);
    if !keep {
        api.kill_earlier()
            .context("kill what an earlier demo left")?;
    }
    let sandbox = timed(&mut rows, "create a sandbox", || api.create(TEMPLATE, IDLE))?;
    timed(&mut rows, "start a server in it", || serve(place, &sandbox))?;
    let first = timed(&mut rows, "its first answer", || {
        said(&api.visit(&sandbox, PORT)?)
    })?;
    let again = timed(&mut rows, "another request, while it is awake", || {
        api.visit(&sandbox, PORT)
    })?;
    let again = said(&again)?;
    follows(first, again)?;

    timed(
        &mut rows,
        &format!("left alone, it falls asleep (after {IDLE} s)"),
        || asleep(&api, &sandbox),
    )?;
    let woken = timed(&mut rows, "a plain request wakes it", || {
        api.visit(&sandbox, PORT)
    })?;
    let after = said(&woken)?;
    follows(again, after).context("compare the server before and after its sleep")?;
    ensure!(
        woken.timing.contains("wake;dur="),
        "the gateway does not say that it woke the sandbox: {:?}",
        woken.timing
    );

    let children = timed(&mut rows, &format!("fork it {FORKS} times"), || {
        api.fork(&sandbox, FORKS)
    })?;
    ensure!(
        children.len() == FORKS,
        "{} of {FORKS} forks came about",
        children.len()
    );
    timed(&mut rows, "an answer from each fork", || {
        visit_all(&api, &children, after)
    })?;
    Ok(Told {
        sandbox,
        rows,
        timing: woken.timing,
    })
}

fn timed<T>(
    rows: &mut Vec<(String, Duration)>,
    title: &str,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let began = Instant::now();
    let done = step(title, work)?;
    rows.push((title.to_owned(), began.elapsed()));
    Ok(done)
}

/// Starts the server, as a person would.
fn serve(place: &Place, sandbox: &str) -> Result<()> {
    let output = Command::new(&place.program)
        .args([
            "sandbox",
            "exec",
            "--url",
            &format!("http://{}", place.listen),
        ])
        .args([sandbox, "--", "perl", "-e", SERVER, &PORT.to_string()])
        .env("CATNAP_API_KEY", place.api_key()?)
        .stdin(Stdio::null())
        .output()
        .context("run catnap sandbox exec")?;
    if !output.status.success() {
        bail!(
            "catnap sandbox exec failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// Waits until a sandbox has fallen asleep and nothing of its machine is left.
fn asleep(api: &Api, sandbox: &str) -> Result<()> {
    api::until("the sandbox to fall asleep", PATIENCE, || {
        Ok(api.state(sandbox)? == "paused")
    })?;
    // The API says so as soon as the machine has stopped; this returns when it is written down.
    api.pause(sandbox)
}

/// Calls every fork at once: each goes on from where its origin was, by itself.
fn visit_all(api: &Api, children: &[String], origin: Said) -> Result<()> {
    let visits: Vec<Result<Said>> = thread::scope(|scope| {
        let calls: Vec<_> = children
            .iter()
            .map(|child| scope.spawn(|| said(&api.visit(child, PORT)?)))
            .collect();
        calls
            .into_iter()
            .map(|call| {
                call.join()
                    .unwrap_or_else(|_| bail!("a request's thread ended badly"))
            })
            .collect()
    });
    for (child, visit) in children.iter().zip(visits) {
        let visit = visit.with_context(|| format!("call fork {child}"))?;
        follows(origin, visit).with_context(|| format!("compare fork {child} with its origin"))?;
    }
    Ok(())
}

fn said(visit: &Visit) -> Result<Said> {
    ensure!(
        visit.status == 200,
        "the sandbox answered {}: {}",
        visit.status,
        visit.body.trim()
    );
    parse(&visit.body).with_context(|| format!("understand {:?}", visit.body))
}

fn parse(body: &str) -> Option<Said> {
    let (request, process) = body
        .strip_prefix("request ")?
        .trim_end()
        .split_once(" of process ")?;
    Some(Said {
        request: request.parse().ok()?,
        process: process.parse().ok()?,
    })
}

/// The same process, one request on.
fn follows(before: Said, after: Said) -> Result<()> {
    let expected = Said {
        request: before.request + 1,
        ..before
    };
    ensure!(
        after == expected,
        "it is not the process it was: {after:?} came after {before:?}"
    );
    Ok(())
}

// === impl Told ===

impl Told {
    /// The table and what to try next.
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
            "\nThe gateway's part of the wake, in ms:\n  {}\n\n\
             Wake it yourself, once it has slept for {IDLE} s:\n  curl -i -H 'Host: {host}' http://{listen}/\n",
            self.timing.replace(", ", "\n  ")
        );
        text
    }
}

#[cfg(test)]
mod test {
    use std::net::TcpListener;

    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };

    use super::*;

    #[test]
    fn a_restarted_server_is_not_the_same() {
        let before = parse("request 2 of process 41\n").unwrap();
        follows(before, parse("request 3 of process 41\n").unwrap()).unwrap();
        follows(before, parse("request 1 of process 41\n").unwrap()).unwrap_err();
        follows(before, parse("request 3 of process 42\n").unwrap()).unwrap_err();
        assert_eq!(parse("request x of process 1"), None);
        assert_eq!(parse("<html>"), None);
    }

    #[test]
    fn the_server_counts_its_requests() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let started = Command::new("perl")
            .args(["-e", SERVER, &address.port().to_string()])
            .status()
            .unwrap();
        assert!(started.success());
        let api = Api::new(address, String::new());
        let answer = || said(&api.visit("i0", PORT).unwrap()).unwrap();
        let (first, second) = (answer(), answer());
        let server = Pid::from_raw(first.process.try_into().unwrap());
        kill(server, Signal::SIGKILL).unwrap();
        assert_eq!(first.request, 1);
        follows(first, second).unwrap();
    }

    #[test]
    fn the_table_lines_up() {
        let told = Told {
            sandbox: "iabc".to_owned(),
            rows: vec![
                ("a".to_owned(), Duration::from_millis(1)),
                ("longer".to_owned(), Duration::from_millis(12_345)),
            ],
            timing: "wake;dur=1.0, admit;dur=2.0".to_owned(),
        };
        let text = told.text("127.0.0.1:3000".parse().unwrap());
        assert!(text.contains("  a              1.0 ms\n  longer     12345.0 ms\n"));
        assert!(text.contains("  wake;dur=1.0\n  admit;dur=2.0\n"));
        assert!(text.contains("curl -i -H 'Host: 8000-iabc.localhost' http://127.0.0.1:3000/"));
    }
}
