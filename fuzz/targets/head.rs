//! The header fields and the query of a call of the agent.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| guest::fuzzing::head(bytes));
