//! Long steps and their progress on the terminal.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{IsTerminal, stderr},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// Interval of progress lines when stderr is no terminal.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(30);
/// The number of lines that are printed of the output of a failed program.
const TAIL_LINES: usize = 30;

/// Runs `work`, and shows `title` with the elapsed time.
pub(crate) fn step<T>(title: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    let result = if stderr().is_terminal() {
        let spinner = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
            spinner.set_style(style);
        }
        spinner.set_message(title.to_owned());
        spinner.enable_steady_tick(Duration::from_millis(120));
        let result = work();
        spinner.finish_and_clear();
        result
    } else {
        eprintln!("{title} ...");
        with_heartbeat(title, began, work)
    };
    let took = began.elapsed().as_secs_f64();
    match &result {
        Ok(_) => eprintln!("{title}: done in {took:.1} s"),
        Err(_) => eprintln!("{title}: failed after {took:.1} s"),
    }
    result
}

/// Runs a program that prints its own progress, and prints `title` and the elapsed time.
pub(crate) fn run_visible(title: &str, command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let began = Instant::now();
    eprintln!("{title} ...");
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("failed to run {name}"))?;
    let took = began.elapsed().as_secs_f64();
    if !status.success() {
        eprintln!("{title}: failed after {took:.1} s");
        bail!("{title}: {name} failed ({status})");
    }
    eprintln!("{title}: done in {took:.1} s");
    Ok(())
}

/// Runs `work` while another thread prints the elapsed time at intervals.
fn with_heartbeat<T>(title: &str, began: Instant, work: impl FnOnce() -> T) -> T {
    let (done, is_done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            while is_done.recv_timeout(HEARTBEAT_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{title} ... {} s", began.elapsed().as_secs());
            }
        });
        let result = work();
        drop(done);
        result
    })
}

/// Runs a program with its output appended to `log`; the error contains the end of that output.
pub(crate) fn run_logged(command: &mut Command, log: &Path) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("failed to open log {}", log.display()))?;
    let status = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .with_context(|| format!("failed to run {name}"))?;
    if status.success() {
        return Ok(());
    }
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())?;
    bail!("{name} failed ({status}), with output:\n{}", tail(&text));
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut tail = String::new();
    for line in lines.iter().skip(lines.len().saturating_sub(TAIL_LINES)) {
        // Writing to a string cannot fail.
        let _infallible = writeln!(tail, "  {line}");
    }
    tail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_program_is_reported_with_its_output() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let error = run_logged(
            Command::new("sh").args(["-c", "echo good; echo bad >&2; exit 3"]),
            &log,
        )
        .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("good\n  bad") && text.contains("exit status: 3"),
            "{text}"
        );
        run_logged(&mut Command::new("true"), &log).unwrap();
    }

    #[test]
    fn failing_program_fails_its_step() {
        run_visible("good", &mut Command::new("true")).unwrap();
        let error = run_visible("bad", &mut Command::new("false")).unwrap_err();
        assert!(error.to_string().starts_with("bad: false failed"));
        run_visible("none", &mut Command::new("/no/such/program")).unwrap_err();
    }

    #[test]
    fn tail_is_the_last_30_lines() {
        let text: String = (0..100).map(|n| format!("{n}\n")).collect();
        assert!(tail(&text).starts_with("  70\n") && tail(&text).ends_with("  99\n"));
    }

    #[test]
    fn step_returns_the_result_of_its_work() {
        assert_eq!(step("answer", || Ok(42)).unwrap(), 42);
        step::<()>("trouble", || bail!("no")).unwrap_err();
    }
}
