//! Fuzzes target resolution, authorization and rewriting of requests in the edge.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edge::fuzzing::destination(bytes));
