//! Any system call, for the program that plays a taken-over monitor.

use std::io;

/// Performs a system call.
pub fn call(number: libc::c_long, arguments: [usize; 6]) -> io::Result<usize> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: syscall passes its arguments to the kernel. The program stands for one whose memory an attacker controls,
    // and its process ends after one attack; pointers that it passes are to live buffers of its own.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
