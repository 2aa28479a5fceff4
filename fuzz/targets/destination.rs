//! Where a request says that it is for.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edge::fuzzing::destination(bytes));
