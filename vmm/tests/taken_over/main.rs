//! Attacks of a taken-over monitor on its host: a program in the monitor's place tries to leave the jail.
//!
//! Each attack has a monitor of its own, once with the filters of system calls and once without them, so that the jail
//! is shown to hold by itself.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../flat/fixture.rs"]
#[allow(dead_code, reason = "this test uses a part of it")]
mod fixture;

use std::{
    net::TcpListener,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
    path::Path,
    process::Command,
};

use tempfile::TempDir;
use vmm_api::{Blank, BootError, BootSpec, Exit, FIRST_USER, Kvm, MachineError, flat};

use self::fixture::Fixture;

const PROGRAM: &str = env!("CARGO_BIN_EXE_catnap-vmm-taken-over");
/// Death by a system call outside of the filter.
const SIGSYS: &str = "signal: 31";
/// Death by the kernel, for want of memory in the control group.
const SIGKILL: &str = "signal: 9";

/// Monitors of the attacker, and what they may find on the host.
struct Attacker {
    fixture: Fixture,
    filtered: Kvm,
    unfiltered: Kvm,
    listener: TcpListener,
    socket: String,
    _abstract_listener: UnixListener,
    _dir: TempDir,
}

/// An attack of the program.
struct Attack {
    name: String,
    stopped_by: Layer,
}

/// The outermost layer that stops an attack.
#[derive(Clone, Copy)]
enum Layer {
    /// User, namespaces, root directory, limits: also without the filter.
    Jail,
    /// The filter of system calls alone.
    Filter,
    /// The attack uses calls that a monitor needs; jail and control groups bound it.
    Bound,
}

/// End of an attack.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Breach,
    Stopped(String),
    /// The monitor died, with this description of its exit status.
    Died(String),
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn taken_over_monitor_reaches_nothing_outside_its_jail() {
    let Some(attacker) = Attacker::new() else {
        return;
    };
    let neighbour = attacker.fixture.boot(8).await;
    let mut breaches = Vec::new();
    let mut count = 0;
    for attack in &attacks() {
        count += 1;
        let pid = neighbour.machine.pid();
        let unfiltered = attacker.run(&attacker.unfiltered, attack, pid).await;
        if !holds_without_filter(attack, &unfiltered) {
            breaches.push(format!("{} without filter: {unfiltered:?}", attack.name));
        }
        let filtered = attacker.run(&attacker.filtered, attack, pid).await;
        if !holds_with_filter(attack, &filtered) {
            breaches.push(format!("{} with filter: {filtered:?}", attack.name));
        }
    }
    assert!(breaches.is_empty(), "{breaches:#?}");
    assert!(count >= 60, "{count} attacks");
    // The neighbour runs, and its memory is as it left it.
    let mut neighbour = neighbour;
    neighbour.machine.pause().await.unwrap();
    assert_eq!(neighbour.next_ring().await, flat::sum(8, 0));
    neighbour.machine.kill().await;
}

/// Returns the attacks that the program lists.
fn attacks() -> Vec<Attack> {
    let output = Command::new(PROGRAM).arg("list").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let parse = |line: &str| {
        let (name, layer) = line.split_once(' ').unwrap();
        let stopped_by = match layer {
            "Jail" => Layer::Jail,
            "Filter" => Layer::Filter,
            "Bound" => Layer::Bound,
            other => panic!("{other}"),
        };
        Attack {
            name: name.to_owned(),
            stopped_by,
        }
    };
    text.lines().map(parse).collect()
}

fn holds_without_filter(attack: &Attack, outcome: &Outcome) -> bool {
    match (attack.stopped_by, outcome) {
        (Layer::Filter, _) | (Layer::Jail, Outcome::Stopped(_)) => true,
        (Layer::Jail, _) => false,
        (Layer::Bound, outcome) => is_bounded(outcome),
    }
}

/// The filter ends the monitor at the first call of an attack, unless monitors need the call.
fn holds_with_filter(attack: &Attack, outcome: &Outcome) -> bool {
    match (attack.stopped_by, outcome) {
        (Layer::Bound, outcome) => is_bounded(outcome),
        (_, Outcome::Died(status)) => status.contains(SIGSYS),
        (_, Outcome::Stopped(_) | Outcome::Breach) => false,
    }
}

fn is_bounded(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Breach => false,
        Outcome::Stopped(_) => true,
        Outcome::Died(status) => status.contains(SIGKILL) || status.contains("more replies"),
    }
}

impl Attacker {
    fn new() -> Option<Self> {
        let fixture = Fixture::new()?;
        let dir = tempfile::tempdir().unwrap();
        let unfiltered = dir.path().join("catnap-vmm-unfiltered");
        std::os::unix::fs::symlink(PROGRAM, &unfiltered).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = format!("catnap-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&socket).unwrap();
        let kvm = |program: &Path| Kvm::jailed(program, FIRST_USER + 1000).unwrap();
        Some(Self {
            fixture,
            filtered: kvm(Path::new(PROGRAM)),
            unfiltered: kvm(&unfiltered),
            listener,
            socket,
            _abstract_listener: UnixListener::bind_addr(&address).unwrap(),
            _dir: dir,
        })
    }

    /// Runs one attack in a monitor of its own.
    async fn run(&self, kvm: &Kvm, attack: &Attack, neighbour: u32) -> Outcome {
        let blank = kvm.spawn(self.fixture.blank_spec()).await.unwrap();
        let spec = BootSpec {
            kernel: tempfile::tempfile().unwrap(),
            command_line: format!(
                "attack={} neighbour={neighbour} port={} socket={} segment={}",
                attack.name,
                self.listener.local_addr().unwrap().port(),
                self.socket,
                0x6361_7470,
            ),
            disks: Vec::new(),
            console: tempfile::tempfile().unwrap(),
        };
        match Box::new(blank).boot(spec).await {
            Err(BootError::Refused(text)) if text == "breach" => Outcome::Breach,
            Err(BootError::Refused(text)) => Outcome::Stopped(text),
            Err(BootError::Lost(MachineError::Gone(Exit::Died(status)))) => Outcome::Died(status),
            Err(BootError::Lost(MachineError::Gone(Exit::Failed(error)))) => Outcome::Died(error),
            Err(other) => Outcome::Died(other.to_string()),
            // The attacker said that its guest runs.
            Ok(machine) => {
                let mut exit = machine.exit();
                let exit = exit.wait_for(Option::is_some).await.unwrap().clone();
                Outcome::Died(exit.unwrap().to_string())
            }
        }
    }
}
