//! Builds the guest kernel and root disks; runs the demo and the checks.

fn main() {}
