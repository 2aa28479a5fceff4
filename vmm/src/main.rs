//! Runs one guest, and can put it into a file and take it out again.

fn main() {}
