//! Pid 1 inside: mounts, reaps, serves the envd API, relays ports, survives being forked.

fn main() {}
