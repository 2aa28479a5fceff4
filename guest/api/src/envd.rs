//! Facts of E2B's agent protocol (envd) that the gateway, the guest agent and the command line share.

use std::{fmt, str::FromStr};

/// The envd version whose contract the guest agent implements.
pub const VERSION: &str = "0.6.13";

/// The port of the guest agent: a TCP port inside the guest, and the vsock port for callers.
pub const AGENT_PORT: u16 = 49983;

/// First path segments that only the host may call. The gateway refuses them before anything wakes; the agent serves
/// them on its host vsock port alone.
pub const HOST_ONLY_PATHS: [&str; 8] = [
    "init", "freeze", "unfreeze", "collapse", "fsfreeze", "fsthaw", "upgrade", "warm",
];

/// The message of the 401 to a caller without the agent's token.
pub const UNAUTHORIZED: &str =
    "unauthorized access, please provide a valid access token or method signing if supported";

/// Paths that the agent serves to callers without its token: the health check, and files by signed URLs.
pub const PATHS_WITHOUT_TOKEN: [&str; 3] = ["/health", "/files", "/files/compose"];

/// Signals in the words of Go's `syscall.Signal.String`, which envd reports. The index is the number.
const SIGNAL_NAMES: [&str; 16] = [
    "signal 0",
    "hangup",
    "interrupt",
    "quit",
    "illegal instruction",
    "trace/breakpoint trap",
    "aborted",
    "bus error",
    "floating point exception",
    "killed",
    "user defined signal 1",
    "segmentation fault",
    "user defined signal 2",
    "broken pipe",
    "alarm clock",
    "terminated",
];

/// The largest signal number of Linux (`SIGRTMAX`).
const MAX_SIGNAL: u8 = 64;

/// The outcome of a process: the `status` text of envd's end event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// The process exited with this code.
    Code(i32),
    /// This signal, 1 to 64, terminated the process.
    Signal(u8),
}

/// A text that is not an envd exit status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an exit status")]
pub struct InvalidExitStatus(String);

// === impl ExitStatus ===

impl ExitStatus {
    /// The `exitCode` of envd: the code, or -1 after a signal.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(_) => -1,
        }
    }

    /// The exit code of a shell: the code, or 128 plus the signal number.
    pub fn shell_code(self) -> u8 {
        match self {
            Self::Code(code) => u8::try_from(code).unwrap_or(u8::MAX),
            Self::Signal(number) => number.saturating_add(128),
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(number) => match SIGNAL_NAMES.get(usize::from(*number)) {
                Some(name) => write!(f, "signal: {name}"),
                None => write!(f, "signal: signal {number}"),
            },
        }
    }
}

impl FromStr for ExitStatus {
    type Err = InvalidExitStatus;

    fn from_str(text: &str) -> Result<Self, InvalidExitStatus> {
        let status = text.strip_suffix(" (core dumped)").unwrap_or(text);
        let parsed = if let Some(code) = status.strip_prefix("exit status ") {
            code.parse().ok().map(Self::Code)
        } else {
            status
                .strip_prefix("signal: ")
                .and_then(signal_number)
                .map(Self::Signal)
        };
        parsed.ok_or_else(|| InvalidExitStatus(text.chars().take(80).collect()))
    }
}

fn signal_number(name: &str) -> Option<u8> {
    let known = SIGNAL_NAMES.iter().position(|known| *known == name);
    known
        .and_then(|number| u8::try_from(number).ok())
        .or_else(|| name.strip_prefix("signal ").unwrap_or(name).parse().ok())
        .filter(|number| (1..=MAX_SIGNAL).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_survives_its_text() {
        for number in 1..=MAX_SIGNAL {
            let status = ExitStatus::Signal(number);
            assert_eq!(status.to_string().parse(), Ok(status));
            assert_eq!(status.shell_code(), 128 + number);
        }
    }

    #[test]
    fn codes_survive_their_text() {
        for code in [0, 1, 127, 255, -1] {
            let status = ExitStatus::Code(code);
            assert_eq!(status.to_string().parse(), Ok(status));
        }
        assert_eq!(ExitStatus::Code(-1).shell_code(), 255);
    }

    #[test]
    fn core_dump_suffix_is_ignored() {
        let text = "signal: segmentation fault (core dumped)";
        assert_eq!(text.parse(), Ok(ExitStatus::Signal(11)));
    }

    #[test]
    fn malformed_statuses_are_refused() {
        for text in [
            "",
            "signal: ",
            "signal: odd",
            "signal: 0",
            "signal: signal 65",
            "exit status x",
            "7",
        ] {
            assert!(text.parse::<ExitStatus>().is_err(), "{text:?}");
        }
    }
}
