//! The one binary people install: the gateway and its command line.

fn main() {}
