//! Decodes the envelopes of a message stream.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| guest::fuzzing::envelopes(bytes));
