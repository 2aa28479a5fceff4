//! Long steps, and how a person sees that they go on.

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

/// How often a step says that it goes on where there is no terminal.
const BEAT: Duration = Duration::from_secs(30);
/// Lines of a failed program's output that are shown.
const TAIL: usize = 30;

/// Does `work` and shows `title` with the seconds it has taken.
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
        beating(title, began, work)
    };
    let took = began.elapsed().as_secs_f64();
    match &result {
        Ok(_) => eprintln!("{title}: done in {took:.1} s"),
        Err(_) => eprintln!("{title}: failed after {took:.1} s"),
    }
    result
}

/// Runs a program that shows its own progress, and says what it was for and how long it took.
pub(crate) fn shown(title: &str, command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let began = Instant::now();
    eprintln!("{title} ...");
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("run {name}"))?;
    let took = began.elapsed().as_secs_f64();
    if !status.success() {
        eprintln!("{title}: failed after {took:.1} s");
        bail!("{title}: {name} failed ({status})");
    }
    eprintln!("{title}: done in {took:.1} s");
    Ok(())
}

/// Does `work` while another thread says from time to time that it goes on.
fn beating<T>(title: &str, began: Instant, work: impl FnOnce() -> T) -> T {
    let (done, waiting) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            while waiting.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{title} ... {} s", began.elapsed().as_secs());
            }
        });
        let result = work();
        drop(done);
        result
    })
}

/// Runs a program with its output going to `log`, and shows the end of it if it fails.
pub(crate) fn logged(command: &mut Command, log: &Path) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("open log {}", log.display()))?;
    let status = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .with_context(|| format!("run {name}"))?;
    if status.success() {
        return Ok(());
    }
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())?;
    bail!(
        "{name} failed ({status}); the end of what it said:\n{}",
        tail(&text)
    );
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut shown = String::new();
    for line in lines.iter().skip(lines.len().saturating_sub(TAIL)) {
        // Writing to a string cannot fail.
        let _infallible = writeln!(shown, "  {line}");
    }
    shown
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_failed_program_is_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let error = logged(
            Command::new("sh").args(["-c", "echo good; echo bad >&2; exit 3"]),
            &log,
        )
        .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("good\n  bad") && text.contains("exit status: 3"),
            "{text}"
        );
        logged(&mut Command::new("true"), &log).unwrap();
    }

    #[test]
    fn a_program_that_fails_fails_its_step() {
        shown("good", &mut Command::new("true")).unwrap();
        let error = shown("bad", &mut Command::new("false")).unwrap_err();
        assert!(error.to_string().starts_with("bad: false failed"));
        shown("none", &mut Command::new("/no/such/program")).unwrap_err();
    }

    #[test]
    fn only_the_end_is_shown() {
        let text: String = (0..100).map(|n| format!("{n}\n")).collect();
        assert!(tail(&text).starts_with("  70\n") && tail(&text).ends_with("  99\n"));
    }

    #[test]
    fn a_step_gives_what_its_work_gave() {
        assert_eq!(step("answer", || Ok(42)).unwrap(), 42);
        step::<()>("trouble", || bail!("no")).unwrap_err();
    }
}
