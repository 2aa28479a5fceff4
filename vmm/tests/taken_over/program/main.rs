//! A monitor that an attacker has taken over: the process and the jail of `catnap-vmm`, with an attack in the place of
//! its guest. `list` prints the attacks and the layer that stops each. The kernel command line names the attack and its target. A program name that ends with `unfiltered` leaves
//! the filters of system calls off.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "the list is the program's output")]

mod attacks;

use std::{env, io, os::fd::AsFd, process::ExitCode};

use vmm::{Monitor, Takeover};

fn main() -> ExitCode {
    if env::args_os().nth(1).is_some_and(|word| word == "list") {
        println!("{}", attacks::list());
        return ExitCode::SUCCESS;
    }
    let unfiltered = env::args_os()
        .next()
        .is_some_and(|name| name.to_string_lossy().ends_with("unfiltered"));
    let takeover = Takeover {
        filtered: !unfiltered,
        attack: attacks::run,
    };
    let served = vmm::harden()
        .and_then(|()| io::stdin().as_fd().try_clone_to_owned())
        .and_then(|socket| Monitor::taken_over(socket, takeover).serve());
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("catnap-vmm-taken-over: {error}");
            ExitCode::FAILURE
        }
    }
}
