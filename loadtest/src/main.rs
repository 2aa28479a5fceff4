//! Asks the whole system the questions SPECIFICATION.md answers.

fn main() {}
