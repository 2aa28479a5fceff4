//! The attacks, and the layer that stops each.

mod files;
mod kernel;
mod namespaces;
mod network;
mod processes;
mod resources;

use std::{ffi::CString, io};

use vmm::raw;

/// One way out of a monitor. Its success is a breach.
struct Attack {
    name: &'static str,
    stopped_by: Layer,
    run: fn(&Target) -> io::Result<()>,
}

/// The outermost layer that stops an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    /// User, namespaces, root directory, limits: also without the filter.
    Jail,
    /// The filter of system calls alone.
    Filter,
    /// The attack uses calls that a monitor needs; jail and control groups bound it.
    Bound,
}

/// Facts about the host that an attacker is given.
#[derive(Debug, Default)]
struct Target {
    /// The process of a neighbour, as the host numbers it.
    neighbour: usize,
    /// A TCP port on which the host listens.
    port: u16,
    /// An abstract Unix socket of the host.
    socket: String,
    /// A System V shared memory segment of the host.
    segment: usize,
}

/// Returns a line for each attack: its name and the layer that stops it.
pub(crate) fn list() -> String {
    let line = |attack: &Attack| format!("{} {:?}", attack.name, attack.stopped_by);
    all().map(line).collect::<Vec<_>>().join("\n")
}

fn all() -> impl Iterator<Item = &'static Attack> {
    [
        files::ATTACKS,
        namespaces::ATTACKS,
        processes::ATTACKS,
        kernel::ATTACKS,
        network::ATTACKS,
        resources::ATTACKS,
    ]
    .into_iter()
    .flatten()
}

/// Runs the attack that a command line names, and reports how it ended.
pub(crate) fn run(command_line: &str) -> String {
    let mut name = "";
    let mut target = Target::default();
    for word in command_line.split(' ') {
        match word.split_once('=') {
            Some(("attack", value)) => name = value,
            Some(("neighbour", value)) => target.neighbour = value.parse().unwrap_or(0),
            Some(("port", value)) => target.port = value.parse().unwrap_or(0),
            Some(("socket", value)) => value.clone_into(&mut target.socket),
            Some(("segment", value)) => target.segment = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    let Some(attack) = all().find(|attack| attack.name == name) else {
        return format!("no attack has the name {name}");
    };
    match (attack.run)(&target) {
        Ok(()) => "breach".to_owned(),
        Err(error) => format!("stopped: {error}"),
    }
}

/// Performs a system call, and returns its value.
fn call(number: libc::c_long, arguments: &[usize]) -> io::Result<usize> {
    let mut all = [0; 6];
    for (slot, argument) in all.iter_mut().zip(arguments) {
        *slot = *argument;
    }
    raw::call(number, all)
}

/// Performs a system call whose success is the breach.
fn attempt(number: libc::c_long, arguments: &[usize]) -> io::Result<()> {
    call(number, arguments).map(drop)
}

/// A string of C. Its pointer is valid while it lives.
fn text(value: &str) -> CString {
    CString::new(value).unwrap_or_default()
}

fn address<T: ?Sized>(value: &T) -> usize {
    std::ptr::from_ref(value).cast::<u8>() as usize
}

/// `AT_FDCWD` as a register holds it.
const HERE: usize = usize::MAX - 99;
