//! Parses the headers and the query of an agent request.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| guest::fuzzing::head(bytes));
