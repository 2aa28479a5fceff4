//! Decodes a message in both codecs.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| guest::fuzzing::message(bytes));
