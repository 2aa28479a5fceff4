//! A stream of messages.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| guest::fuzzing::envelopes(bytes));
